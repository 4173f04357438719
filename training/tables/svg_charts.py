"""Charts as inline SVG, for pages.

Colors are CSS classes (`seen`, `unseen`, `all`, `quiet`, `c0`...), which the page's style sheet
defines. Elements are built with ElementTree, so that text never becomes markup.
"""

import math
from collections.abc import Sequence
from typing import Literal
from xml.etree import ElementTree

import numpy as np
from markupsafe import Markup
from numpy.typing import ArrayLike

WIDTH, HEIGHT = 360, 236
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 12, 38
# Approximate size of a letter of a label.
LETTER, LINE = 6.8, 13
# Points drawn per line: more are not visible.
MAX_POINTS = 400


class Chart:
    """A pair of axes to draw on.

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
        self._axes(x_label, y_label, per_cent, whole_x)

    def line(self, xs: ArrayLike, ys: ArrayLike, css: str, area: bool = False) -> None:
        """Draws a line through points; `area` tints the area below it."""
        xs, ys = _thinned(np.asarray(xs, float), np.asarray(ys, float))
        points = [self._position(x, y) for x, y in zip(xs, ys, strict=True)]
        if area and points:
            floor = HEIGHT - BOTTOM
            outline = [(points[0][0], floor), *points, (points[-1][0], floor)]
            self._add("polygon", {"points": _text_of(outline), "class": f"area {css}"})
        self._add("polyline", {"points": _text_of(points), "class": f"line {css}"})

    def dot(self, x: float, y: float, css: str, tip: str, radius: float = 4) -> None:
        """Draws a dot; `tip` is shown when the pointer rests on it."""
        cx, cy = self._position(x, y)
        attributes = {"cx": _number(cx), "cy": _number(cy), "r": _number(radius), "class": css}
        dot = self._add("circle", attributes)
        ElementTree.SubElement(dot, "title").text = tip

    def markup(self) -> Markup:
        """Returns the chart, safe to put into a page."""
        return Markup(ElementTree.tostring(self._root, encoding="unicode"))

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


def scatter(points: np.ndarray, members: ArrayLike, names: Sequence[str], label: str) -> Markup:
    """Returns a scatter plot with one color per class, each class named at its median.

    Args:
        points: (P, 2).
        members: (P,) the class of each point, an index into `names`.
        names: of the classes.
        label: description of the plot for screen readers.
    """
    width, height, margin = 360, 320, 14
    low, high = points.min(axis=0), points.max(axis=0)
    scale = np.array([width, height]) - 2 * margin
    pixels = margin + (points - low) / np.where(high > low, high - low, 1) * scale
    root = ElementTree.Element(
        "svg", {"viewBox": f"0 0 {width} {height}", "role": "img", "class": "chart scatter"}
    )
    root.set("aria-label", label)
    classes = np.asarray(members)
    for (x, y), c in zip(pixels, classes, strict=True):
        css = {"cx": _number(x), "cy": _number(y), "r": "3.2", "class": f"c{c}"}
        dot = ElementTree.SubElement(root, "circle", css)
        ElementTree.SubElement(dot, "title").text = names[c]
    for c, (x, y) in _label_positions(pixels, classes, names, width - margin).items():
        attributes = {"x": _number(x), "y": _number(y), "text-anchor": "middle"}
        text = ElementTree.SubElement(root, "text", {**attributes, "class": f"place c{c}"})
        text.text = names[c]
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _label_positions(
    points: np.ndarray, members: np.ndarray, names: Sequence[str], right: float
) -> dict[int, tuple[float, float]]:
    """The median of each class's points, moved down where it would overlap another label."""
    middles = {c: np.median(points[members == c], axis=0) for c in np.unique(members).tolist()}
    found: dict[int, tuple[float, float]] = {}
    for c, (x, y) in sorted(middles.items(), key=lambda item: item[1][1]):
        half = LETTER * len(names[c]) / 2
        x = float(np.clip(x, half, max(half, right - half)))
        y = max(float(y), LINE)
        for other, (other_x, other_y) in found.items():  # from the top downwards
            room = half + LETTER * len(names[other]) / 2
            if abs(x - other_x) < room and abs(y - other_y) < LINE:
                y = other_y + LINE
        found[c] = (x, y)
    return found


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
