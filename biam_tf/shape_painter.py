"""Paints a picture of the scenes data set: a blurred background and a few colored objects."""

import colorsys
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

HUES = {"red": 0.0, "yellow": 0.14, "green": 0.33, "turquoise": 0.49, "blue": 0.63, "pink": 0.86}
COLORS = tuple(HUES)
TEXTURES = ("plain", "striped")
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")

SUPERSAMPLING = 4
MAXIMAL_OVERLAP = 0.02  # intersection over union of two objects' boxes
RADII = (0.14, 0.25)  # shares of the picture's side


class ObjectClass(NamedTuple):
    """A combination of attributes."""

    color: str
    texture: str
    shape: str

    @property
    def name(self) -> str:
        """The class's name, such as "red striped circle"."""
        return " ".join(self)


OBJECT_CLASSES = tuple(ObjectClass(*words) for words in itertools.product(COLORS, TEXTURES, SHAPES))


class Box(NamedTuple):
    """Bounding box of an object in pixels; x1 and y1 are exclusive."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def area(self) -> int:
        """Number of pixels."""
        return (self.x1 - self.x0) * (self.y1 - self.y0)

    def overlap(self, other: "Box") -> float:
        """Returns the intersection over union of two boxes."""
        width = min(self.x1, other.x1) - max(self.x0, other.x0)
        height = min(self.y1, other.y1) - max(self.y0, other.y0)
        intersection = max(width, 0) * max(height, 0)
        return intersection / (self.area + other.area - intersection)


def paint(
    rng: np.random.Generator, size: int, classes: Sequence[ObjectClass]
) -> tuple[Image.Image, list[Box]]:
    """Paints one object per class, at random positions, sizes and angles.

    Returns:
        A `size` x `size` RGB picture and the objects' boxes.
    """
    boxes = _place(rng, size, len(classes))
    shapes = [object_class.shape for object_class in classes]
    masks = [_mask(rng, shape, box) for shape, box in zip(shapes, boxes, strict=True)]
    canvas = _background(rng, size)
    canvas *= _shadow(rng, size, boxes, masks)
    light = rng.uniform(0, 2 * math.pi)
    tight = []
    for object_class, box, mask in zip(classes, boxes, masks, strict=True):
        surface = _surface(rng, object_class, box.x1 - box.x0, light)
        region = canvas[box.y0 : box.y1, box.x0 : box.x1]
        region += mask[:, :, None] * (surface - region)
        tight.append(_tight(box, mask))
    canvas += rng.uniform(2, 5) * rng.standard_normal(canvas.shape, np.float32)
    return Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8)), tight


def _place(rng: np.random.Generator, size: int, count: int) -> list[Box]:
    """Returns square boxes with at most `MAXIMAL_OVERLAP`, smaller ones after failed attempts."""
    tries = 40 * count
    while True:
        boxes: list[Box] = []
        for attempt, (share, left, top) in enumerate(rng.random((tries, 3)).tolist()):
            largest = RADII[1] - (RADII[1] - RADII[0]) * attempt / tries
            side = max(2 * round(size * (RADII[0] + share * (largest - RADII[0]))), 8)
            x, y = int(left * (size - side + 1)), int(top * (size - side + 1))
            box = Box(x, y, x + side, y + side)
            if all(box.overlap(other) <= MAXIMAL_OVERLAP for other in boxes):
                boxes.append(box)
            if len(boxes) == count:
                return boxes


def _background(rng: np.random.Generator, size: int) -> np.ndarray:
    """Returns a background of soft, muted blobs, float32 (size, size, 3)."""
    base = rng.uniform(75, 190) - 128 + rng.uniform(-16, 16, 3)
    blobs = _enlarge(base + _noise(rng, 3, brightness=45, tint=10), size)
    blobs += _enlarge(_noise(rng, 7, brightness=18, tint=6), size)
    blobs += _enlarge(_noise(rng, max(size // 4, 1), brightness=5, tint=2), size)
    return np.clip(blobs + 128, 15, 235)


def _noise(rng: np.random.Generator, cells: int, brightness: float, tint: float) -> np.ndarray:
    gray = rng.normal(0, brightness, (cells, cells, 1))
    return gray + rng.normal(0, tint, (cells, cells, 3))


def _enlarge(values: np.ndarray, size: int) -> np.ndarray:
    """Resizes (cells, cells, 3) values smoothly to (size, size, 3)."""
    # Pillow resizes three channels only as bytes; the offset 128 keeps the sign.
    coarse = Image.fromarray(np.clip(values + 128, 0, 255).astype(np.uint8))
    return np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC), np.float32) - 128


def _mask(rng: np.random.Generator, shape: str, box: Box) -> np.ndarray:
    """Returns the share of each pixel of the box that the rotated shape covers, 0 to 1."""
    side = (box.x1 - box.x0) * SUPERSAMPLING
    center, radius = (side - 1) / 2, side / 2 - SUPERSAMPLING / 2
    angle = rng.uniform(0, 2 * math.pi)
    image = Image.new("L", (side, side))
    pencil = ImageDraw.Draw(image)

    def circle(share: float, ink: int) -> None:
        reach = radius * share
        pencil.ellipse([center - reach, center - reach, center + reach, center + reach], fill=ink)

    if shape == "circle":
        circle(0.9, 255)
    elif shape == "ring":
        circle(0.97, 255)
        circle(0.52, 0)
    else:
        corners = [
            (center + radius * r * math.cos(angle + a), center + radius * r * math.sin(angle + a))
            for r, a in _OUTLINES[shape]
        ]
        pencil.polygon(corners, fill=255)
    return np.asarray(image.reduce(SUPERSAMPLING), np.float32) / 255


def _regular(corners: int, radii: Sequence[float] = (1.0,)) -> list[tuple[float, float]]:
    return [(radii[i % len(radii)], 2 * math.pi * i / corners) for i in range(corners)]


def _plus(arm: float) -> list[tuple[float, float]]:
    """Returns the twelve corners of a cross whose arms are 2 * `arm` wide."""
    quarter = [(1.0, -arm), (1.0, arm), (arm, arm)]
    corners = []
    for turn in range(4):
        for x, y in quarter:
            for _ in range(turn):
                x, y = -y, x
            corners.append((math.hypot(x, y) / math.hypot(1.0, arm), math.atan2(y, x)))
    return corners


# Corners as (radius, angle) in the unit circle, so that every rotation stays in its box.
_OUTLINES = {
    "square": _regular(4),
    "triangle": _regular(3),
    "star": _regular(10, (1.0, 0.42)),
    "cross": _plus(0.3),
}


def _surface(
    rng: np.random.Generator, object_class: ObjectClass, side: int, light: float
) -> np.ndarray:
    """Returns the color of the object, lit from one side, with stripes, float32 (side, side, 3)."""
    hue = HUES[object_class.color] + rng.uniform(-0.025, 0.025)
    saturation, value = rng.uniform(0.72, 1.0), rng.uniform(0.72, 1.0)
    color = np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value), np.float32) * 255
    axis = np.linspace(-1, 1, side, dtype=np.float32)
    x, y = axis[None, :], axis[:, None]
    surface = np.broadcast_to(color, (side, side, 3))
    if object_class.texture == "striped":
        other = 0.35 * color if rng.random() < 0.5 else 0.3 * color + 0.7 * 245
        angle, phase = rng.uniform(0, 2 * math.pi, 2)
        # Stripes of at least three pixels: thinner ones would look like another plain color.
        stripes = min(rng.uniform(2.2, 3.6), side / 6)
        wave = np.sin(math.pi * stripes * (x * math.cos(angle) + y * math.sin(angle)) + phase)
        share = np.clip(wave * side / (math.pi * stripes * 2) + 0.5, 0, 1)[:, :, None]
        surface = color + share * (other - color)
    shade = 0.9 + rng.uniform(0.08, 0.2) * (x * math.cos(light) + y * math.sin(light))
    return surface * shade[:, :, None]


def _shadow(
    rng: np.random.Generator, size: int, boxes: Sequence[Box], masks: Sequence[np.ndarray]
) -> np.ndarray:
    """Returns the brightness of the background under the objects' shadows, (size, size, 1)."""
    canvas = Image.new("L", (size, size))
    reach = max(size // 40, 1)
    dx, dy = rng.integers(-reach, reach, 2, endpoint=True)
    for box, mask in zip(boxes, masks, strict=True):
        stamp = Image.fromarray((mask * 255).astype(np.uint8))
        canvas.paste(255, (box.x0 + int(dx), box.y0 + int(dy)), stamp)
    blurred = canvas.filter(ImageFilter.BoxBlur(reach))
    return 1 - rng.uniform(0.2, 0.5) * np.asarray(blurred, np.float32)[:, :, None] / 255


def _tight(box: Box, mask: np.ndarray) -> Box:
    """Returns the bounding box of the pixels that the object covers by at least half."""
    rows, columns = np.flatnonzero((mask >= 0.5).any(1)), np.flatnonzero((mask >= 0.5).any(0))
    return Box(
        box.x0 + int(columns[0]),
        box.y0 + int(rows[0]),
        box.x0 + int(columns[-1]) + 1,
        box.y0 + int(rows[-1]) + 1,
    )
