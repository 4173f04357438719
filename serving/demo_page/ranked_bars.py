"""Tags of a photo as ranked bars, in HTML."""

import dataclasses

import numpy as np

from serving.demo_page.markup import render
from serving.demo_page.tagging import TaggedPhoto

_BARS = """
<div class="bars" role="group" aria-label="Tags, best first">
{% for bar in bars %}
<button type="button" class="bar {{ bar.group }}{{ ' given' if bar.given }}"
 data-choice="{{ bar.place }}" aria-pressed="{{ 'true' if bar.chosen else 'false' }}"
 {{ 'disabled' if fixed }}>
<span class="bar-text"><span class="bar-name">{{ bar.name }}</span>
{% if bar.group == 'unseen' %}<span class="badge">unseen</span>{% endif %}
<span class="bar-score">
{% if bar.given %}<span class="tick" title="given as a tag">✓ </span>{% endif %}
{{ bar.number }}</span></span>
<span class="track"><span class="fill" style="width:{{ bar.length }}%"></span>
{% if bar.cut is not none %}<span class="cut" style="left:{{ bar.cut }}%"></span>{% endif %}</span>
</button>
{% endfor %}
</div>
"""


@dataclasses.dataclass(frozen=True)
class _Bar:
    place: int
    name: str
    group: str
    number: str
    length: float  # per cent of the track
    cut: float | None  # likewise
    given: bool
    chosen: bool


def cuts_of(photo: TaggedPhoto, level: float | None) -> np.ndarray:
    """Returns (C,) what the scores of a photo's classes must reach.

    Args:
        photo: the photo.
        level: None: the run's calibrated thresholds, or nothing where it has none. Else one level
            for all classes: a calibrated probability between 0 and 1, or the score itself where
            the run has no calibration.
    """
    its = photo.thresholds
    if its is None:
        return np.full(len(photo.names), -np.inf if level is None else level)
    if level is None:
        return its.cuts
    return (np.log(level / (1 - level)) - its.offsets) / its.slopes


def draw_bars(
    photo: TaggedPhoto,
    top: int,
    level: float | None,
    chosen: int | None = None,
    fixed: bool = False,
) -> str:
    """Returns the best tags of a photo as HTML, a button each.

    A bar is the score, on one scale for the photo: from its median score, or what is shown below
    that, to its highest. A line marks the threshold, a tick that it is reached.

    Args:
        photo: the photo.
        top: how many tags.
        level: as for `cuts_of`.
        chosen: place of the class whose response map is shown.
        fixed: whether there is nothing to choose.
    """
    cuts, best = cuts_of(photo, level), photo.ranked(top)
    shown = photo.scores[best].astype(np.float64)
    marks = cuts[best][np.isfinite(cuts[best])]
    low = min(float(np.median(photo.scores)), shown.min(), *marks)
    high = max(shown.max(), *marks) if len(marks) else shown.max()

    def place(score: float) -> float:
        share = (score - low) / (high - low) if high > low else 1.0
        return round(100 * float(np.clip(share, 0, 1)), 2)

    bars = [
        _Bar(
            place=int(c),
            name=photo.names[c],
            group=photo.groups[c],
            number=_number(photo, c),
            length=place(photo.scores[c]),
            cut=place(cuts[c]) if np.isfinite(cuts[c]) else None,
            given=bool(photo.scores[c] >= cuts[c]),
            chosen=c == chosen,
        )
        for c in best
    ]
    return render(_BARS, bars=bars, fixed=fixed)


def _number(photo: TaggedPhoto, c: int) -> str:
    score, probabilities = f"{photo.scores[c]:.2f}", photo.probabilities
    return score if probabilities is None else f"{score} · {100 * probabilities[c]:.0f} %"
