"""Charts as inline SVG, for pages.

Colors are CSS classes (`seen`, `unseen`, `all`, `quiet`, `c0`...), which the page's style sheet
defines. Elements are built with ElementTree, so that text never becomes markup.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal
from xml.etree import ElementTree

import numpy as np
from markupsafe import Markup
from numpy.typing import ArrayLike

WIDTH, HEIGHT = 360, 236
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 12, 38
# Points drawn per line: more are not visible.
MAX_POINTS = 400
# Signs of classes in a scatter plot, so that colors are not all that tells them apart: corners as
# shares of the radius (none: a circle), and the same sign in a text.
SIGNS: tuple[tuple[str, tuple[tuple[float, float], ...]], ...] = (
    ("\N{BLACK CIRCLE}", ()),
    ("\N{BLACK SQUARE}", ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9))),
    ("\N{BLACK UP-POINTING TRIANGLE}", ((0, -1.2), (1.15, 0.9), (-1.15, 0.9))),
    ("\N{BLACK DIAMOND}", ((0, -1.3), (1.2, 0), (0, 1.3), (-1.2, 0))),
    ("\N{BLACK DOWN-POINTING TRIANGLE}", ((0, 1.2), (1.15, -0.9), (-1.15, -0.9))),
)


@dataclasses.dataclass(frozen=True)
class Key:
    """An entry of a chart's legend.

    Attributes:
        kind: "line", "dot" or, in a scatter plot, "sign".
        css: CSS class of what it stands for.
        name: what it is.
        sign: the text of a "sign".
    """

    kind: Literal["line", "dot", "sign"]
    css: str
    name: str
    sign: str = ""


class Chart:
    """A pair of axes to draw on.

    What is drawn with a name has an entry in `legend`, and nothing else has.

    Args:
        label: description of the chart for screen readers.
        x_label: of the horizontal axis.
        y_label: of the vertical axis.
        x: (lowest, highest) value on the horizontal axis.
        y: likewise on the vertical axis.
        per_cent: axes, "x", "y" or "xy", whose values are fractions shown in per cent.
        whole_x: labels the horizontal axis with whole numbers only.
    """

    def __init__(
        self,
        label: str,
        x_label: str,
        y_label: str,
        x: tuple[float, float],
        y: tuple[float, float],
        per_cent: Literal["", "x", "y", "xy"] = "",
        whole_x: bool = False,
    ) -> None:
        self._x, self._y = _widened(x), _widened(y)
        self._root = ElementTree.Element(
            "svg",
            {"viewBox": f"0 0 {WIDTH} {HEIGHT}", "role": "img", "class": "chart"},
        )
        self._root.set("aria-label", label)
        self._keys: dict[tuple[str, str], Key] = {}
        self._axes(x_label, y_label, per_cent, whole_x)

    @property
    def legend(self) -> tuple[Key, ...]:
        """What is drawn with a name, in this order."""
        return tuple(self._keys.values())

    def line(
        self, xs: ArrayLike, ys: ArrayLike, css: str, area: bool = False, name: str = ""
    ) -> None:
        """Draws a line through points; `area` tints the area below it; `name` is of the legend."""
        self._name("line", css, name)
        xs, ys = _thinned(np.asarray(xs, float), np.asarray(ys, float))
        points = [self._position(x, y) for x, y in zip(xs, ys, strict=True)]
        if area and points:
            floor = HEIGHT - BOTTOM
            outline = [(points[0][0], floor), *points, (points[-1][0], floor)]
            self._add("polygon", {"points": _text_of(outline), "class": f"area {css}"})
        self._add("polyline", {"points": _text_of(points), "class": f"line {css}"})

    def dot(
        self, x: float, y: float, css: str, tip: str, radius: float = 4, name: str = ""
    ) -> None:
        """Draws a dot; `tip` is shown when the pointer rests on it; `name` is of the legend."""
        self._name("dot", css, name)
        cx, cy = self._position(x, y)
        attributes = {"cx": _number(cx), "cy": _number(cy), "r": _number(radius), "class": css}
        dot = self._add("circle", attributes)
        ElementTree.SubElement(dot, "title").text = tip

    def markup(self) -> Markup:
        """Returns the chart, safe to put into a page."""
        return Markup(ElementTree.tostring(self._root, encoding="unicode"))

    def _name(self, kind: Literal["line", "dot"], css: str, name: str) -> None:
        if name:
            self._keys.setdefault((kind, css), Key(kind, css, name))

    def _axes(self, x_label: str, y_label: str, per_cent: str, whole_x: bool) -> None:
        floor = HEIGHT - BOTTOM
        for value in _ticks(*self._y, 4):
            _, y = self._position(self._x[0], value)
            edge = {"x1": str(LEFT), "x2": str(WIDTH - RIGHT), "y1": _number(y), "y2": _number(y)}
            self._add("line", {**edge, "class": "grid"})
            self._text(LEFT - 6, y + 4, _label_of(value, "y" in per_cent), "tick", "end")
        for value in _ticks(*self._x, 5):
            if whole_x and abs(value - round(value)) > 1e-9:
                continue
            x, _ = self._position(value, self._y[0])
            self._text(x, floor + 15, _label_of(value, "x" in per_cent), "tick", "middle")
        self._add(
            "line",
            {
                "x1": str(LEFT),
                "x2": str(WIDTH - RIGHT),
                "y1": str(floor),
                "y2": str(floor),
                "class": "axis",
            },
        )
        self._text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 5, x_label, "name", "middle")
        middle = (TOP + floor) / 2
        name = self._text(11, middle, y_label, "name", "middle")
        name.set("transform", f"rotate(-90 11 {_number(middle)})")

    def _position(self, x: float, y: float) -> tuple[float, float]:
        across = (x - self._x[0]) / (self._x[1] - self._x[0])
        up = (y - self._y[0]) / (self._y[1] - self._y[0])
        floor = HEIGHT - BOTTOM
        return LEFT + across * (WIDTH - LEFT - RIGHT), floor - up * (floor - TOP)

    def _text(self, x: float, y: float, text: str, css: str, anchor: str) -> ElementTree.Element:
        attributes = {"x": _number(x), "y": _number(y), "text-anchor": anchor, "class": css}
        element = self._add("text", attributes)
        element.text = text
        return element

    def _add(self, tag: str, attributes: dict[str, str]) -> ElementTree.Element:
        return ElementTree.SubElement(self._root, tag, attributes)


def scatter(
    points: np.ndarray, members: ArrayLike, names: Sequence[str], label: str
) -> tuple[Markup, tuple[Key, ...]]:
    """Returns a scatter plot with a color and a sign per class, and its legend.

    The names stand in the legend, not in the plot, where they would cover points.

    Args:
        points: (P, 2).
        members: (P,) the class of each point, an index into `names`.
        names: of the classes.
        label: description of the plot for screen readers.
    """
    width, height, margin, radius = 360, 320, 14, 3.4
    low, high = points.min(axis=0), points.max(axis=0)
    scale = np.array([width, height]) - 2 * margin
    pixels = margin + (points - low) / np.where(high > low, high - low, 1) * scale
    root = ElementTree.Element(
        "svg", {"viewBox": f"0 0 {width} {height}", "role": "img", "class": "chart scatter"}
    )
    root.set("aria-label", label)
    classes = np.asarray(members)
    for (x, y), c in zip(pixels, classes, strict=True):
        corners = SIGNS[c % len(SIGNS)][1]
        if corners:
            outline = [(x + radius * across, y + radius * down) for across, down in corners]
            sign = ElementTree.SubElement(root, "polygon", {"points": _text_of(outline)})
        else:
            place = {"cx": _number(x), "cy": _number(y), "r": _number(radius)}
            sign = ElementTree.SubElement(root, "circle", place)
        sign.set("class", f"c{c}")
        ElementTree.SubElement(sign, "title").text = names[c]
    legend = tuple(
        Key("sign", f"c{c}", names[c], SIGNS[c % len(SIGNS)][0]) for c in np.unique(classes)
    )
    return Markup(ElementTree.tostring(root, encoding="unicode")), legend


def padded(values: Sequence[ArrayLike], share: float = 0.05) -> tuple[float, float]:
    """Returns the range of all values with a margin; it starts at 0 if that is near.

    Args:
        values: arrays of any shapes.
        share: size of the margin, as a fraction of the range.
    """
    every = np.concatenate([np.ravel(v) for v in values]) if len(values) else np.zeros(1)
    low, high = float(every.min()), float(every.max())
    if 0 <= low < 0.6 * high:
        low = 0.0
    room = share * (high - low)
    return (low if low == 0 else low - room), high + room


def _widened(limits: tuple[float, float]) -> tuple[float, float]:
    low, high = limits
    return (
        (low, high) if high > low else (low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1))
    )


def _ticks(low: float, high: float, about: int) -> list[float]:
    rough = (high - low) / about
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def _label_of(value: float, per_cent: bool) -> str:
    value = 100 * value if per_cent else value
    text = f"{value:.4g}"
    if 0 < abs(value) < 0.001:
        mantissa, exponent = f"{value:.1e}".split("e")
        text = f"{float(mantissa):g}e{int(exponent)}"
    return "0" if text == "-0" else text


def _thinned(xs: np.ndarray, ys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The points, or the means of `MAX_POINTS` stretches of them."""
    if len(xs) <= MAX_POINTS:
        return xs, ys
    parts = np.array_split(np.arange(len(xs)), MAX_POINTS)
    means = [np.array([v[part].mean() for part in parts]) for v in (xs, ys)]
    return means[0], means[1]


def _text_of(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{_number(x)},{_number(y)}" for x, y in points)


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
