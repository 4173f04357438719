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


def cuts_of(photo: TaggedPhoto, cut: float | None) -> np.ndarray:
    """Returns (C,) what a score must reach: `cut`, or for None the run's calibrated thresholds.

    A photo of a run without calibrated thresholds is given every class then.
    """
    if cut is not None:
        return np.full(len(photo.names), cut)
    return np.full(len(photo.names), -np.inf) if photo.cuts is None else photo.cuts


def draw_bars(
    photo: TaggedPhoto, top: int, cut: float | None, chosen: int | None = None, fixed: bool = False
) -> str:
    """Returns the best tags of a photo as HTML, a button each.

    A bar is the score, on one scale for the photo: from its median score, or what is shown below
    that, to its highest. A line marks the threshold, a tick that it is reached.

    Args:
        photo: the photo.
        top: how many tags.
        cut: as for `cuts_of`.
        chosen: place of the class whose response map is shown.
        fixed: whether there is nothing to choose.
    """
    cuts, best = cuts_of(photo, cut), photo.ranked(top)
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
    score = f"{photo.scores[c]:.2f}"
    if photo.probabilities is None:
        return score
    return f"{score} · {100 * photo.probabilities[c]:.0f} %"
