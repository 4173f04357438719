"""Captions of drawn pictures, made from what was drawn, and of which pictures they are true.

"two red striped stars and a blue plain ring" lists objects by all their attributes; "a red star",
"a striped thing" or "two rings" say less. A caption is true of every picture that shows what it
says, not of the one alone for which it was written.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from biam_tf.shape_painter import COLORS, OBJECT_CLASSES, SHAPES, TEXTURES

NUMBERS = ("", "a", "two", "three", "four")
MAXIMAL_OBJECTS = len(NUMBERS) - 1
# Which of color, texture and shape a phrase of one object says, and how often.
_SAID = (
    *[(True, True, True)] * 4,
    *[(True, False, True)] * 2,
    *[(False, False, True)] * 2,
    (True, True, False),
    (False, True, True),
    (True, False, False),
    (False, True, False),
)
_LISTS = 0.3  # share of the captions that list several objects
_ATTRIBUTES = np.array(
    [
        (COLORS.index(c.color), TEXTURES.index(c.texture), SHAPES.index(c.shape))
        for c in OBJECT_CLASSES
    ]
)


@dataclasses.dataclass(frozen=True, eq=False)
class Caption:
    """A text and what it says.

    Attributes:
        text: the caption.
        classes: `(parts, 72)` bool, for each part the classes of `OBJECT_CLASSES` that fit it.
        numbers: `(parts,)`, how many objects of these a picture shows at least.
    """

    text: str
    classes: np.ndarray
    numbers: np.ndarray


def phrase(color: str, texture: str, shape: str, number: int = 1) -> str:
    """Returns "two red striped stars"; attributes may be empty, the shape is then "thing"."""
    noun = shape or "thing"
    if number > 1:
        noun += "es" if noun == "cross" else "s"
    return " ".join(filter(None, (NUMBERS[number], color, texture, noun)))


def write_caption(rng: np.random.Generator, counts: np.ndarray) -> Caption:
    """Writes a caption that is true of a picture.

    Args:
        rng: random generator.
        counts: `(72,)`, how many objects of each class the picture shows.
    """
    shown = rng.permutation(np.flatnonzero(counts))
    if rng.random() < _LISTS:
        listed = shown[: rng.integers(1, len(shown) + 1)]
        numbers = counts[listed]
        words = [
            phrase(*OBJECT_CLASSES[i], number=int(n)) for i, n in zip(listed, numbers, strict=True)
        ]
        return Caption(" and ".join(words), np.eye(len(counts), dtype=bool)[listed], numbers)
    said = _SAID[rng.integers(len(_SAID))]
    fitting = ((_ATTRIBUTES == _ATTRIBUTES[shown[0]]) | ~np.array(said)).all(1)
    number = int(counts[fitting].sum()) if rng.random() < 0.5 else 1
    own = OBJECT_CLASSES[shown[0]]
    words = [word if is_said else "" for word, is_said in zip(own, said, strict=True)]
    return Caption(phrase(*words, number=number), fitting[None], np.array([number]))


def are_true(counts: np.ndarray, captions: Sequence[Caption]) -> np.ndarray:
    """Returns which captions are true of which pictures, `(N, T)` bool.

    Args:
        counts: `(N, 72)`, how many objects of each class the pictures show.
        captions: T captions.
    """
    owners = np.repeat(np.arange(len(captions)), [len(c.numbers) for c in captions])
    shown = counts @ np.concatenate([c.classes for c in captions]).T.astype(np.int32)
    lacking = shown < np.concatenate([c.numbers for c in captions])
    wrong = np.zeros((len(counts), len(captions)), bool)
    np.logical_or.at(wrong, (slice(None), owners), lacking)
    return ~wrong
