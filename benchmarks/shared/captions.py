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
# Which of color, texture and shape a phrase of one object says, and how often. Few say all three: a
# model that has mostly seen whole descriptions learns these by heart instead of their parts, and
# then understands no new combination.
_SAID = (
    (True, True, True),
    *[(True, False, True)] * 3,
    *[(False, True, True)] * 3,
    *[(True, True, False)] * 2,
    *[(False, False, True)] * 2,
    (True, False, False),
    (False, True, False),
)
_IN_LISTS = tuple(said for said in _SAID if said[2])
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
        said = _IN_LISTS[rng.integers(len(_IN_LISTS))]
        listed: dict[tuple[str, ...], np.ndarray] = {}  # objects that are described alike are one
        for number in shown[: rng.integers(1, len(shown) + 1)]:
            listed.setdefault(_words(number, said), _fitting(number, said))
        classes = np.stack(list(listed.values()))
        numbers = classes.astype(np.int64) @ counts
        words = [phrase(*own, number=int(n)) for own, n in zip(listed, numbers, strict=True)]
        return Caption(" and ".join(words), classes, numbers)
    said = _SAID[rng.integers(len(_SAID))]
    fitting = _fitting(shown[0], said)
    number = int(counts[fitting].sum()) if rng.random() < 0.5 else 1
    return Caption(
        phrase(*_words(shown[0], said), number=number), fitting[None], np.array([number])
    )


def _words(number: int, said: tuple[bool, ...]) -> tuple[str, ...]:
    """Returns color, texture and shape of a class, "" for what is not said."""
    return tuple(w if said[i] else "" for i, w in enumerate(OBJECT_CLASSES[number]))


def _fitting(number: int, said: tuple[bool, ...]) -> np.ndarray:
    """Returns which of the 72 classes share with a class what is said of it."""
    return ((_ATTRIBUTES == _ATTRIBUTES[number]) | ~np.array(said)).all(1)


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
