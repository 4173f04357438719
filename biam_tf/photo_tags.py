"""The best tags of a photo as pictures and pages of labeled photos list them."""

import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Tag:
    """One line of a photo's list of tags.

    Attributes:
        column: of the class.
        name: of the class.
        unseen: whether the class is unseen.
        value: probability or score, as text.
        length: of the bar, 0 to 1.
        label: +1 present, -1 absent, 0 unknown; None: without labels.
        given: whether its score reaches the class's threshold.
    """

    column: int
    name: str
    unseen: bool
    value: str
    length: float
    label: int | None
    given: bool = False


def best_tags(
    scores: np.ndarray,
    names: Sequence[str],
    groups: Sequence[str],
    labels: np.ndarray | None,
    probabilities: np.ndarray | None,
    given: np.ndarray | None,
    count: int,
) -> list[Tag]:
    """Returns the tags of a photo with the best scores, best first; arrays are (C,).

    A bar shows the probability, or else where the score lies between the photo's median and best.
    """
    median, best = np.median(scores), scores.max()
    tags = []
    for c in np.argsort(-scores, kind="stable")[:count].tolist():
        length = (scores[c] - median) / (best - median) if best > median else 1.0
        value = f"{scores[c]:.2f}"
        if probabilities is not None:
            length, value = probabilities[c], f"{100 * probabilities[c]:.0f} %"
            if np.isnan(length):
                length, value = 0.0, "no %"
        label, is_given = (None if of is None else of[c] for of in (labels, given))
        length = float(np.clip(length, 0, 1))
        unseen = groups[c] == "unseen"
        tags.append(
            Tag(
                c,
                names[c],
                unseen,
                value,
                length,
                None if label is None else int(label),
                bool(is_given),
            )
        )
    return tags


def row_of(array: np.ndarray | None, row: int) -> np.ndarray | None:
    """Returns a row of an array that may be missing."""
    return None if array is None else array[row]
