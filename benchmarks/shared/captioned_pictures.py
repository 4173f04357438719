"""Pictures for a small image-text model: of one object, and whole scenes, of seen classes only."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

SIZE, PART, PATCH = 96, 48, 12
SHIFTS = PATCH  # pictures are larger by this, so that batches can see them at all places of patches


class Pictures(NamedTuple):
    """Drawn pictures.

    Attributes:
        pixels: `(N, S, S, 3)` uint8.
        counts: `(N, 72)` int8, how many objects of each class they show.
    """

    pixels: np.ndarray
    counts: np.ndarray


def _seen_classes() -> list[int]:
    """Returns the numbers of the classes that are seen in the scenes data set of seed 0."""
    from biam_tf.shape_painter import OBJECT_CLASSES
    from training.data.scenes.reader import unseen_classes

    unseen = unseen_classes(0)
    return [number for number, each in enumerate(OBJECT_CLASSES) if each not in unseen]


def draw_one(rng: np.random.Generator, seen: list[int]) -> tuple[np.ndarray, list[int]]:
    """Draws one object, and returns a part of the picture that holds it."""
    from biam_tf.shape_painter import OBJECT_CLASSES, paint

    number = int(rng.choice(seen))
    picture, (box,) = paint(rng, SIZE, [OBJECT_CLASSES[number]])
    side = PART + SHIFTS

    def start(first: int, last: int) -> int:
        """Returns a place at which every shifted part holds all of the object, if it can."""
        lowest, highest = sorted((last - PART, first - SHIFTS))
        return int(np.clip(rng.integers(lowest, highest, endpoint=True), 0, SIZE - side))

    x, y = start(box.x0, box.x1), start(box.y0, box.y1)
    return np.asarray(picture)[y : y + side, x : x + side], [number]


def draw_several(rng: np.random.Generator, seen: list[int]) -> tuple[np.ndarray, list[int]]:
    """Draws one to four objects, of which two may be of the same class."""
    from benchmarks.shared.captions import MAXIMAL_OBJECTS
    from biam_tf.shape_painter import OBJECT_CLASSES, paint

    numbers = rng.choice(seen, rng.integers(1, MAXIMAL_OBJECTS, endpoint=True)).tolist()
    if len(numbers) > 1 and rng.random() < 0.2:
        numbers[1] = numbers[0]
    picture, _ = paint(rng, SIZE, [OBJECT_CLASSES[number] for number in numbers])
    margin = (SHIFTS // 2, SHIFTS - SHIFTS // 2)
    return np.pad(np.asarray(picture), (margin, margin, (0, 0)), mode="edge"), numbers


def draw_pictures(
    draw: Callable[..., tuple[np.ndarray, list[int]]],
    name: str,
    count: int,
    seed: np.random.SeedSequence,
) -> Pictures:
    """Draws `count` pictures of seen classes by `draw_one` or `draw_several`; says so by `name`."""
    from biam_tf.shape_painter import OBJECT_CLASSES

    print(f"drawing {count:,} pictures ({name})", flush=True)
    seen, pixels = _seen_classes(), []
    counts = np.zeros((count, len(OBJECT_CLASSES)), np.int8)
    for row, own in enumerate(seed.spawn(count)):
        picture, numbers = draw(np.random.default_rng(own), seen)
        pixels.append(picture)
        np.add.at(counts[row], numbers, 1)
    return Pictures(np.stack(pixels), counts)
