"""Scores to probabilities and tags, for any classes: the one rule of every door.

The probability of class c with score s is sigmoid(slope_c s + offset_c), and c is a tag of a photo
if s reaches cut_c. Which numbers a class has:

1. Its name is listed in the thresholds of the model, by the rule of `biam_tf.embeddings.names` for
   whole names: its own.
2. Otherwise, and where a request brings embeddings without names, the class is new to the model.
   Its numbers follow from its similarity to the seen classes: the mean of the largest cosines of
   its embedding and theirs. They are read off a line through knots (`NewClassRule`); one knot gives
   the same numbers to all new classes.

A slope and offset of NaN say that the class is not calibrated: it has no probability. A cut of NaN
says that there is no threshold: the class is never a tag.

`serving.graph.calibration` is the same rule as TensorFlow operations.
tests/test_answers_everywhere.py compares all doors with each other.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from biam_tf.embeddings.names import NameIndex, look_up
from biam_tf.errors import UserError
from biam_tf.metrics.calibration import sigmoid

_ROWS_AT_A_TIME = 256
# Of a knot in JSON; "likeness" is the similarity.
_KEYS = ("likeness", "slope", "offset", "threshold")


@dataclasses.dataclass(frozen=True, eq=False)
class ClassCalibration:
    """Calibration and thresholds of C classes.

    Attributes:
        slopes: (C,) float64, positive; NaN: the class is not calibrated.
        offsets: (C,) float64.
        cuts: (C,) float64; a class is a tag if its score is at least this. NaN: no threshold.
    """

    slopes: np.ndarray
    offsets: np.ndarray
    cuts: np.ndarray

    @property
    def columns(self) -> np.ndarray:
        """Slopes, offsets and cuts as (C, 3) float64."""
        return np.stack([self.slopes, self.offsets, self.cuts], axis=1).astype(np.float64)

    def of(self, c: int) -> "ClassCalibration":
        """Returns the calibration of class c, for arrays of its scores."""
        return ClassCalibration(*(column[c] for column in (self.slopes, self.offsets, self.cuts)))

    def probabilities(self, scores: ArrayLike) -> np.ndarray:
        """Returns the probability of each class, (..., C) float64, for scores (..., C).

        NaN for classes that are not calibrated.
        """
        return sigmoid(self.slopes * np.asarray(scores, np.float64) + self.offsets)

    def decide(self, scores: ArrayLike) -> np.ndarray:
        """Returns which classes are tags, (..., C) bool, for scores (..., C)."""
        return np.asarray(scores) >= self.cuts


@dataclasses.dataclass(frozen=True)
class Tag:
    """A class of a photo.

    Attributes:
        name: the class, as it was given.
        score: by which the classes of a photo are ordered; comparable within one model only.
        probability: calibrated, 0 to 1; None: the model has no thresholds, or none for this class.
        present: whether the class is a tag of the photo; None: the model has no thresholds.
    """

    name: str
    score: float
    probability: float | None
    present: bool | None


@dataclasses.dataclass(frozen=True)
class Selection:
    """Which classes of a photo are given as tags.

    Attributes:
        top: largest number of them, the highest scores first; None: no limit.
        only_present: whether those below their threshold are left out.
        probability: replaces the thresholds; classes of a lower probability are left out.
        score: replaces the thresholds; classes of a lower score are left out.
    """

    top: int | None = None
    only_present: bool = False
    probability: float | None = None
    score: float | None = None

    @property
    def needs_calibration(self) -> bool:
        """Whether it cannot be applied to scores alone."""
        return self.only_present or self.probability is not None

    def decide(
        self, scores: np.ndarray, probabilities: np.ndarray | None, present: np.ndarray | None
    ) -> np.ndarray | None:
        """Returns which classes are tags, (..., C) bool; None: nothing tells.

        Args:
            scores: (..., C).
            probabilities: (..., C); None: there are none.
            present: (..., C) bool, by the thresholds; None: there are none.

        Raises:
            UserError: it needs probabilities or thresholds, and there are none.
        """
        if present is None and self.needs_calibration:
            what = "thresholds" if self.probability is None else "probabilities"
            raise UserError(
                f"the model gives scores only, no {what}: its run had no validation photos, or it "
                "was exported by an early version; choose by score, or take the best of each photo"
            )
        if self.score is not None:
            return scores >= self.score
        if self.probability is not None:
            assert probabilities is not None
            return probabilities >= self.probability
        return present

    @property
    def leaves_out(self) -> bool:
        """Whether classes that are no tags are left out."""
        return self.needs_calibration or self.score is not None

    def tags(
        self,
        names: Sequence[str],
        scores: np.ndarray,
        probabilities: np.ndarray | None,
        present: np.ndarray | None,
    ) -> list[Tag]:
        """Returns the tags of a photo, the highest score first; arguments as of `decide`, (C,)."""
        present = self.decide(scores, probabilities, present)
        order = np.argsort(-scores, kind="stable")
        if self.leaves_out:
            assert present is not None
            order = order[present[order]]
        return [
            Tag(
                names[c],
                float(scores[c]),
                None if probabilities is None else number_or_null(probabilities[c]),
                None if present is None else bool(present[c]),
            )
            for c in order[: self.top]
        ]


@dataclasses.dataclass(frozen=True, eq=False)
class NewClassRule:
    """Calibration of classes that are new to a model, by their similarity to the seen classes.

    Between two knots the numbers lie on a line; before the first and after the last they are those
    of that knot.

    Attributes:
        similarity: (K,) float64, ascending: the knots.
        slopes: (K,) float64; NaN: not calibrated, up to the next knot on both sides.
        offsets: (K,) float64, likewise.
        cuts: (K,) float64; NaN: no threshold, likewise.
        neighbors: number of seen classes whose mean cosine is the similarity.
    """

    similarity: np.ndarray
    slopes: np.ndarray
    offsets: np.ndarray
    cuts: np.ndarray
    neighbors: int = 1

    @classmethod
    def constant(cls, slope: float, offset: float, cut: float) -> "NewClassRule":
        """Returns the rule that gives the same numbers to all new classes."""
        return cls(np.zeros(1), np.array([slope]), np.array([offset]), np.array([cut]))

    @property
    def is_constant(self) -> bool:
        """Whether all new classes have the same numbers, and embeddings do not matter."""
        return len(self.similarity) == 1

    @property
    def knots(self) -> np.ndarray:
        """Slopes, offsets and cuts as (K, 3) float64."""
        return np.stack([self.slopes, self.offsets, self.cuts], axis=1)

    def __call__(self, similarity: ArrayLike) -> ClassCalibration:
        """Returns the calibration of C classes of the given similarity (C,)."""
        values = np.clip(similarity, self.similarity[0], self.similarity[-1]).astype(np.float64)
        knots, right = self.knots, np.searchsorted(self.similarity, values, side="right")
        right = np.clip(right, 1, max(len(knots) - 1, 1))
        left, right = right - 1, np.minimum(right, len(knots) - 1)
        width = self.similarity[right] - self.similarity[left]
        share = np.where(width > 0, (values - self.similarity[left]) / np.where(width, width, 1), 0)
        found = knots[left] + share[:, None] * (knots[right] - knots[left])
        return ClassCalibration(*(column.copy() for column in found.T))

    def to_json(self) -> dict[str, Any]:
        """Returns the rule ready for JSON; null where a number is NaN."""
        rows = zip(self.similarity.tolist(), *self.knots.T.tolist(), strict=True)
        knots = [dict(zip(_KEYS, map(number_or_null, row), strict=True)) for row in rows]
        return {"neighbors": self.neighbors, "knots": knots}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "NewClassRule":
        """Reads what `to_json` returned.

        Raises:
            ValueError: the similarities do not ascend, or there is no knot.
        """
        similarity, slopes, offsets, cuts = (
            np.array([knot[name] for knot in value["knots"]], np.float64) for name in _KEYS
        )
        if not len(similarity) or not (np.diff(similarity) > 0).all():
            raise ValueError("the likenesses of new_classes must ascend")
        return cls(similarity, slopes, offsets, cuts, int(value["neighbors"]))


def number_or_null(value: float) -> float | None:
    """Returns a number as JSON holds it: null for NaN."""
    return None if math.isnan(value) else float(value)


def similarity_to(class_embeddings: np.ndarray, seen: np.ndarray, neighbors: int) -> np.ndarray:
    """Returns the similarity (C,) float32 of classes to the seen classes.

    Args:
        class_embeddings: (C, d_a), of any length.
        seen: (S, d_a), of length 1.
        neighbors: number of seen classes whose mean cosine is the similarity.
    """
    classes: np.ndarray = np.asarray(class_embeddings, np.float32)
    if not len(seen):
        return np.zeros(len(classes), np.float32)
    norms = np.linalg.norm(classes, axis=1, keepdims=True)
    classes = classes / np.where(norms > 0, norms, 1)
    count = min(neighbors, len(seen))
    similarity = np.empty(len(classes), np.float32)
    for start in range(0, len(classes), _ROWS_AT_A_TIME):
        rows = slice(start, start + _ROWS_AT_A_TIME)
        cosines = classes[rows] @ seen.T
        similarity[rows] = np.partition(cosines, -count, axis=1)[:, -count:].mean(axis=1)
    return similarity


def rows_of(names: Sequence[str], listed: Sequence[str]) -> list[int | None]:
    """Returns the row of each name among the listed ones; None: it is not listed."""
    index = NameIndex(listed)
    return [look_up(name, None, index).row for name in names]


def calibrate_classes(
    rows: Sequence[int | None],
    listed: ClassCalibration,
    rule: NewClassRule,
    class_embeddings: np.ndarray,
    seen: np.ndarray,
) -> ClassCalibration:
    """Returns the calibration of C classes.

    Args:
        rows: the row of each class in `listed`; None: it is not listed.
        listed: of the listed classes.
        rule: of the others.
        class_embeddings: (C, d_a).
        seen: (S, d_a), embeddings of the seen classes, of length 1.
    """
    new = np.array([row is None for row in rows], bool)
    similarity = np.full(len(rows), rule.similarity[0])
    if new.any() and not rule.is_constant:
        similarity[new] = similarity_to(np.asarray(class_embeddings)[new], seen, rule.neighbors)
    found = rule(similarity)
    own = np.array([row for row in rows if row is not None], np.intp)
    for name in ("slopes", "offsets", "cuts"):
        getattr(found, name)[~new] = getattr(listed, name)[own]
    return found
