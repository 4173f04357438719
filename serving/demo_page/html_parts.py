"""Parts of the page as HTML, filled into the templates of `templates/` with all texts escaped."""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence

import jinja2
import markupsafe
import numpy as np
from PIL import Image

from serving.demo_page.class_list import KnownClasses
from serving.demo_page.evidence import as_data_uri
from serving.demo_page.tagging import TaggedPhoto, cuts_of

# Marks the result of `render` in the values of another template: it is not escaped again.
Html = markupsafe.Markup

# Gradio evaluates what it shows as a template once more: a class called ${x} would be executed.
_GRADIO = {ord("{"): "&#123;", ord("}"): "&#125;", ord("$"): "&#36;", ord("`"): "&#96;"}

# Of a longer list only unknown classes are shown, and only some of them.
_MAX_CHIPS, _MAX_UNKNOWN_CHIPS = 30, 8


def render(template: str, **values: object) -> str:
    """Returns the template `templates/{template}.html` with every value escaped but `Html`."""
    return _environment().get_template(f"{template}.html").render(**values)


def message(text: str, kind: str = "quiet") -> str:
    """Returns a message, one line of HTML per line of `text`; kind: "quiet", "good" or "error"."""
    return render("message", lines=text.splitlines(), kind=kind)


def errors(texts: Sequence[str]) -> str:
    """Returns a message of one error per line; empty without errors."""
    return message("\n".join(texts), "error") if texts else ""


def class_chips(
    known: KnownClasses, names: Sequence[str], groups: Sequence[str], removable: bool = True
) -> str:
    """Returns a list of classes; unknown ones are marked and have buttons with suggestions.

    Args:
        known: the classes that the model can score.
        names: the classes in their order.
        groups: "seen" or "unseen" for each.
        removable: whether unknown ones have a button that leaves them out.
    """
    unknown = {each.name: each for each in known.unknown(names)}
    shown = list(zip(names, groups, strict=True))
    if len(names) > _MAX_CHIPS:
        shown = [(name, group) for name, group in shown if name in unknown][:_MAX_UNKNOWN_CHIPS]
    chips = [
        {
            "name": name,
            "group": group,
            "unknown_word": unknown[name].word if name in unknown else None,
            "suggestions": known.suggestions(unknown[name]) if name in unknown else (),
        }
        for name, group in shown
    ]
    return render(
        "class_chips",
        count=_count(len(names), len(unknown)),
        chips=chips,
        more=len(unknown) - sum(name in unknown for name, _ in shown),
        unknown=len(unknown),
        removable=removable,
    )


def ranked_bars(
    photo: TaggedPhoto,
    top: int,
    level: float | None,
    chosen: int | None = None,
    fixed: bool = False,
) -> str:
    """Returns the best tags of a photo, one button per tag.

    The length of a bar is the score, from the photo's median score (or the lowest shown number)
    to its highest. A line marks the threshold, a tick that the score reaches it.

    Args:
        photo: the tagged photo.
        top: number of tags.
        level: as for `cuts_of`.
        chosen: index of the class whose response map is shown.
        fixed: whether the buttons are disabled.
    """
    cuts, best = cuts_of(photo, level), photo.ranked(top)
    shown = photo.scores[best].astype(np.float64)
    marks = cuts[best][np.isfinite(cuts[best])]
    low = min(float(np.median(photo.scores)), shown.min(), *marks)
    high = max(shown.max(), *marks) if len(marks) else shown.max()

    def per_cent(score: float) -> float:
        share = (score - low) / (high - low) if high > low else 1.0
        return round(100 * float(np.clip(share, 0, 1)), 2)

    bars = [
        _Bar(
            class_index=int(c),
            name=photo.names[c],
            group=photo.groups[c],
            number=_number(photo, int(c)),
            length=per_cent(photo.scores[c]),
            cut=per_cent(cuts[c]) if np.isfinite(cuts[c]) else None,
            given=bool(photo.scores[c] >= cuts[c]),
            chosen=c == chosen,
        )
        for c in best
    ]
    return render("ranked_bars", bars=bars, fixed=fixed)


def evidence_panel(
    picture: Image.Image, alt: str, caption: str, regions: tuple[int, int] | None = None
) -> str:
    """Returns a picture with a caption.

    Args:
        picture: the picture.
        alt: description of the picture for screen readers.
        caption: text below it.
        regions: (h, w), regions that are buttons; None for no buttons.
    """
    rows, columns = regions or (0, 0)
    width, height = picture.size
    return render(
        "evidence",
        source=as_data_uri(picture),
        width=width,
        height=height,
        alt=alt,
        caption=caption,
        rows=rows,
        columns=columns,
    )


def empty_panel(text: str) -> str:
    """Returns a text in the place of a picture."""
    return render("evidence_empty", text=text)


@dataclasses.dataclass(frozen=True)
class _Bar:
    class_index: int
    name: str
    group: str
    number: str
    length: float  # percentage of the track
    cut: float | None  # percentage of the track
    given: bool
    chosen: bool


def _number(photo: TaggedPhoto, c: int) -> str:
    score, probabilities = f"{photo.scores[c]:.2f}", photo.probabilities
    if probabilities is None or np.isnan(probabilities[c]):
        return score
    return f"{score} · {100 * probabilities[c]:.0f} %"


def _count(names: int, unknown: int) -> str:
    if not names:
        return ""
    text = "1 class" if names == 1 else f"{names:,} classes"
    if unknown:
        return f"{text}, {unknown:,} unknown:"
    return f"{text}:" if names <= _MAX_CHIPS else text


@functools.cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).with_name("templates")),
        autoescape=True,
        finalize=_escape,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )


def _escape(value: object) -> Html:
    if isinstance(value, Html):
        return value
    return Html(str(markupsafe.escape(value)).translate(_GRADIO))
