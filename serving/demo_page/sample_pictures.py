"""Drawn pictures with which a new user tries the page, of things that its model knows."""

import pathlib
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFilter

from biam_tf.embeddings.names import normalize
from biam_tf.shape_painter import OBJECT_CLASSES, ObjectClass, paint

COUNT = 3
_SHAPES_SIDE = 384
_OBJECTS = 3
# Drawn twice as large and reduced, for smooth edges.
_WIDTH, _HEIGHT, _SCALE = 560, 420, 2

_SKY, _SEA, _SAND, _LEAVES, _WOOD = "#7db8e8", "#2a6f97", "#e6cf9b", "#3f7d3a", "#7a5230"


def draw_samples(names: Sequence[str], folder: pathlib.Path) -> list[pathlib.Path]:
    """Draws `COUNT` pictures into a folder and returns their files.

    A model of the quickstart's classes gets shapes as in its training pictures, all others get a
    beach, a street and mountains.

    Args:
        names: the classes that the model was trained with.
        folder: an existing folder.
    """
    known = {normalize(name) for name in names}
    shapes = [each for each in OBJECT_CLASSES if normalize(each.name) in known]
    pictures = _shapes(shapes) if len(shapes) >= COUNT * _OBJECTS else _scenery()
    files = []
    for name, picture in pictures.items():
        files.append(folder / f"{name}.png")
        picture.save(files[-1])
    return files


def _shapes(classes: Sequence[ObjectClass]) -> dict[str, Image.Image]:
    rng = np.random.default_rng(0)
    rows = rng.permutation(len(classes))
    pictures = {}
    for i in range(COUNT):
        chosen = [classes[row] for row in rows[i * _OBJECTS : (i + 1) * _OBJECTS]]
        pictures[f"shapes {i + 1}"] = paint(rng, _SHAPES_SIDE, chosen)[0]
    return pictures


def _scenery() -> dict[str, Image.Image]:
    drawn: dict[str, Callable[[ImageDraw.ImageDraw], None]] = {
        "beach": _draw_beach,
        "street": _draw_street,
        "mountains": _draw_mountains,
    }
    pictures = {}
    for name, draw_on in drawn.items():
        large = Image.new("RGB", (_WIDTH * _SCALE, _HEIGHT * _SCALE), _SKY)
        draw_on(ImageDraw.Draw(large))
        picture = large.resize((_WIDTH, _HEIGHT), Image.Resampling.LANCZOS)
        pictures[name] = picture.filter(ImageFilter.GaussianBlur(0.6))
    return pictures


def _box(*corners: float) -> list[float]:
    """Corners in shares of the picture's width and height as pixels."""
    sides = (_WIDTH * _SCALE, _HEIGHT * _SCALE)
    return [share * sides[i % 2] for i, share in enumerate(corners)]


def _fade(draw: ImageDraw.ImageDraw, top: float, bottom: float, first: str, last: str) -> None:
    """Fills the whole width from one color to another."""
    start, end = (np.array(ImageColor.getrgb(color)) for color in (first, last))
    rows = range(round(top * _HEIGHT * _SCALE), round(bottom * _HEIGHT * _SCALE))
    for i, y in enumerate(rows):
        color = start + (end - start) * i / len(rows)
        draw.line((0, y, _WIDTH * _SCALE, y), tuple(color.astype(int).tolist()))


def _draw_beach(draw: ImageDraw.ImageDraw) -> None:
    _fade(draw, 0, 0.45, "#4f9ad8", "#cfe6f5")
    draw.ellipse(_box(0.66, 0.08, 0.76, 0.213), "#fff3b0")
    for x, y in ((0.1, 0.12), (0.36, 0.2)):
        for dx, dy in ((0, 0), (0.05, -0.025), (0.1, 0)):
            draw.ellipse(_box(x + dx, y + dy, x + dx + 0.1, y + dy + 0.07), "#ffffff")
    _fade(draw, 0.45, 0.72, _SEA, "#6fc3d0")
    draw.polygon(_box(0.3, 0.48, 0.44, 0.48, 0.41, 0.52, 0.33, 0.52), "#8c2f2f")
    draw.polygon(_box(0.365, 0.27, 0.365, 0.47, 0.445, 0.47), "#fdfdfd")
    draw.polygon(_box(0.355, 0.31, 0.355, 0.47, 0.305, 0.47), "#e8ecef")
    draw.polygon(_box(0, 0.74, 0.3, 0.69, 0.65, 0.72, 1, 0.66, 1, 1, 0, 1), "#f4ead0")
    draw.polygon(_box(0, 0.76, 0.3, 0.71, 0.65, 0.745, 1, 0.685, 1, 1, 0, 1), _SAND)
    draw.polygon(_box(0.8, 0.9, 0.835, 0.9, 0.875, 0.4, 0.855, 0.39), _WOOD)
    for tip in ((0.68, 0.36), (0.72, 0.25), (0.84, 0.2), (0.97, 0.26), (1.0, 0.38), (0.78, 0.5)):
        middle = ((0.865 + tip[0]) / 2, min(0.39, tip[1]) - 0.03)
        draw.polygon(
            _box(0.85, 0.4, *middle, *tip, middle[0], middle[1] + 0.06, 0.88, 0.41), _LEAVES
        )
    draw.pieslice(_box(0.12, 0.6, 0.36, 0.84), 180, 360, "#d64545")
    draw.pieslice(_box(0.18, 0.6, 0.3, 0.84), 180, 360, "#fbfbfb")
    draw.line(_box(0.24, 0.6, 0.24, 0.92), "#5c4630", 7)


def _draw_street(draw: ImageDraw.ImageDraw) -> None:
    _fade(draw, 0, 0.62, "#6aa9de", "#dcecf7")
    draw.rectangle(_box(0.04, 0.24, 0.34, 0.64), "#d9b38c")
    draw.polygon(_box(0.01, 0.25, 0.19, 0.08, 0.37, 0.25), "#9c4a3c")
    draw.rectangle(_box(0.38, 0.14, 0.66, 0.64), "#b9c3cf")
    for left in (0.09, 0.22):
        draw.rectangle(_box(left, 0.32, left + 0.07, 0.42), "#41566b")
    draw.rectangle(_box(0.155, 0.48, 0.225, 0.64), "#5f3b26")
    for left in (0.41, 0.495, 0.58):
        for top in (0.19, 0.31, 0.43):
            draw.rectangle(_box(left, top, left + 0.055, top + 0.075), "#4d6377")
    draw.rectangle(_box(0.8, 0.4, 0.83, 0.66), _WOOD)
    for x, y in ((0.72, 0.24), (0.8, 0.16), (0.8, 0.3)):
        draw.ellipse(_box(x, y, x + 0.16, y + 0.2), _LEAVES)
    draw.rectangle(_box(0, 0.63, 1, 0.7), "#b4b0a8")
    _fade(draw, 0.69, 1, "#6b6d72", "#4b4d52")
    for left in (0.04, 0.3, 0.56, 0.82):
        draw.polygon(
            _box(left, 0.9, left + 0.14, 0.9, left + 0.13, 0.925, left - 0.01, 0.925), "#f1efe6"
        )
    draw.polygon(_box(0.34, 0.62, 0.41, 0.51, 0.6, 0.51, 0.68, 0.62), "#a81f24")
    draw.polygon(_box(0.37, 0.615, 0.42, 0.53, 0.495, 0.53, 0.495, 0.615), "#bfe0ee")
    draw.polygon(_box(0.51, 0.615, 0.51, 0.53, 0.59, 0.53, 0.645, 0.615), "#bfe0ee")
    draw.rounded_rectangle(_box(0.25, 0.61, 0.77, 0.755), 24, "#cf2a2f")
    draw.rectangle(_box(0.74, 0.645, 0.77, 0.68), "#fff4c2")
    for left in (0.31, 0.6):
        draw.ellipse(_box(left, 0.69, left + 0.105, 0.83), "#1d1e20")
        draw.ellipse(_box(left + 0.03, 0.73, left + 0.075, 0.79), "#c9ccd1")


def _draw_mountains(draw: ImageDraw.ImageDraw) -> None:
    _fade(draw, 0, 0.6, "#5a9fdc", "#e3eff8")
    peaks = ((0.25, 0.14, "#6d7686"), (0.72, 0.22, "#7c8696"), (0.5, 0.3, "#586274"))
    for x, y, color in peaks:
        draw.polygon(_box(x - 0.38, 0.64, x, y, x + 0.38, 0.64), color)
        snow = (x - 0.085, y + 0.115, x, y, x + 0.085, y + 0.115, x + 0.035, y + 0.1)
        draw.polygon(_box(*snow, x, y + 0.14, x - 0.04, y + 0.095), "#f7f9fb")
    draw.polygon(_box(0, 0.6, 0.3, 0.57, 0.7, 0.61, 1, 0.57, 1, 0.8, 0, 0.8), "#5b8f4a")
    _fade(draw, 0.7, 1, "#4f93b5", "#2b6584")
    draw.polygon(_box(0, 0.68, 1, 0.68, 1, 0.7, 0.6, 0.73, 0.25, 0.71, 0, 0.74), "#5b8f4a")
    for x, base in ((0.06, 0.72), (0.14, 0.7), (0.8, 0.69), (0.88, 0.71), (0.95, 0.72)):
        draw.rectangle(_box(x - 0.008, base - 0.03, x + 0.008, base + 0.02), _WOOD)
        for layer in range(3):
            top, half = base - 0.27 + 0.07 * layer, 0.028 + 0.014 * layer
            draw.polygon(_box(x - half, top + 0.11, x, top, x + half, top + 0.11), "#24573a")
