"""Parts of the page as HTML, filled into the templates of `templates/` with all texts escaped."""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence

import jinja2
import markupsafe
import numpy as np
from PIL import Image

from biam_tf.metrics.calibration import sigmoid
from serving.demo_page.class_list import KnownClasses
from serving.demo_page.evidence import as_data_uri
from serving.demo_page.tagging import TaggedPhoto, cuts_of, verdicts_of

# Marks the result of `render` in the values of another template: it is not escaped again.
Html = markupsafe.Markup

# Gradio evaluates what it shows as a template once more: a class called ${x} would be executed.
_GRADIO = {ord("{"): "&#123;", ord("}"): "&#125;", ord("$"): "&#36;", ord("`"): "&#96;"}

# Of a longer list only unknown classes are shown, and only some of them.
_MAX_CHIPS, _MAX_UNKNOWN_CHIPS, _FEW_UNKNOWN = 30, 8, 2


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
        groups: for each as `ExportedModel.groups`.
        removable: whether unknown ones have a button that leaves them out.
    """
    unknown = {each.name: each for each in known.unknown(names)}
    shown = list(zip(names, groups, strict=True))
    if len(names) > _MAX_CHIPS:
        shown = [(name, group) for name, group in shown if name in unknown][:_MAX_UNKNOWN_CHIPS]
    # Of many unknown names each takes one line.
    most = 3 if len(unknown) <= _FEW_UNKNOWN else 1
    chips = [
        {
            "name": name,
            "group": group,
            "unknown_word": unknown[name].word if name in unknown else None,
            "suggestions": known.suggestions(unknown[name])[:most] if name in unknown else (),
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


@dataclasses.dataclass(frozen=True)
class BarScale:
    """What the length of a bar stands for.

    Attributes:
        low: the score of an empty bar; None: bars are probabilities, from 0 to 1.
        high: the score of a full bar; None likewise.
    """

    low: float | None = None
    high: float | None = None

    @property
    def of_probabilities(self) -> bool:
        """Whether bars are probabilities."""
        return self.low is None

    def per_cent(self, photo: TaggedPhoto, c: int, score: float) -> float | None:
        """Returns where a score of class c lies, in per cent; None: it has no probability."""
        if self.low is None or self.high is None:
            if photo.thresholds is None:
                return None
            thresholds = photo.thresholds
            share = float(sigmoid(thresholds.slopes[c] * score + thresholds.offsets[c]))
        else:
            share = (score - self.low) / (self.high - self.low) if self.high > self.low else 1.0
        return round(100 * float(np.clip(share, 0, 1)), 2) if np.isfinite(share) else None


def bar_scale(photos: Sequence[TaggedPhoto], top: int, level: float | None) -> BarScale:
    """Returns the scale of the bars of photos that are shown together.

    Bars are probabilities if the photos have them. Otherwise they are scores, from the lowest
    median of a photo (or the lowest number that is shown) to the highest number.
    """
    numbers: list[float] = []
    for photo in photos:
        best = photo.ranked(top)
        probabilities = photo.probabilities
        if probabilities is not None and np.isfinite(probabilities[best]).any():
            return BarScale()
        cuts = cuts_of(photo, level)[best]
        numbers += [float(np.median(photo.scores)), *photo.scores[best].tolist()]
        numbers += cuts[np.isfinite(cuts)].tolist()
    return BarScale(min(numbers), max(numbers))


def ranked_bars(
    photo: TaggedPhoto,
    top: int,
    level: float | None,
    chosen: int | None = None,
    fixed: bool = False,
    raw: bool = False,
    scale: BarScale | None = None,
) -> str:
    """Returns the best tags of a photo, one button per tag.

    A tag has its probability, or its score if the model gives none, and whether it reaches its
    threshold, which a line on its bar marks.

    Args:
        photo: the tagged photo.
        top: number of tags.
        level: as for `cuts_of`.
        chosen: index of the class whose response map is shown.
        fixed: whether the tags are text and no buttons.
        raw: whether scores are shown next to probabilities.
        scale: of the bars; None: that of this photo.
    """
    scale = scale or bar_scale([photo], top, level)
    cuts, verdicts = cuts_of(photo, level), verdicts_of(photo, level)
    bars = []
    for c in photo.ranked(top).tolist():
        length = scale.per_cent(photo, c, photo.scores[c])
        marked = length is not None and np.isfinite(cuts[c])
        bars.append(
            _Bar(
                class_index=c,
                name=photo.names[c],
                group=photo.groups[c],
                number=number_of(photo, c),
                score=f"{photo.scores[c]:.2f}" if raw and scale.of_probabilities else None,
                length=length,
                cut=scale.per_cent(photo, c, cuts[c]) if marked else None,
                given=verdicts[c],
                chosen=c == chosen,
            )
        )
    return render("ranked_bars", bars=bars, fixed=fixed)


def number_of(photo: TaggedPhoto, c: int) -> str:
    """Returns the one number of a tag: its probability, or its score if the model gives none."""
    if photo.probabilities is None or np.isnan(photo.probabilities).all():
        return f"{photo.scores[c]:.2f}"
    probability = photo.probabilities[c]
    return "no probability" if np.isnan(probability) else f"{100 * probability:.0f} %"


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
    score: str | None
    length: float | None  # percentage of the track; None: no bar
    cut: float | None  # percentage of the track
    given: bool | None  # None: there is no threshold
    chosen: bool


def _count(names: int, unknown: int) -> str:
    if not names:
        return ""
    text = "1 class" if names == 1 else f"{names:,} classes"
    if unknown:
        return f"{text}, {unknown:,} unknown"
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
