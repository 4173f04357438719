"""Cuts: an entry is a tag if its score is at least the cut."""

import dataclasses

import numpy as np
from numpy.typing import ArrayLike


@dataclasses.dataclass(frozen=True)
class Target:
    """What a cut aims at.

    Attributes:
        precision: the share of tags that shall be right, with as many tags as this allows; None:
            the best F1.
    """

    precision: float | None = None

    def cut(self, scores: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None) -> float:
        """Returns the best cut for this target.

        It lies halfway between two neighboring scores, or is the lowest score if all are tags. For
        a precision that no cut reaches, it is a little above the highest score. NaN without a
        positive.

        Args:
            scores: any shape, floating.
            labels: the same shape, of +1, -1, 0 (left out).
            weights: the same shape, of the labels; None: all count alike.
        """
        scores = np.asarray(scores, np.float64).ravel()
        labels = np.asarray(labels).ravel()
        labeled = np.flatnonzero(labels)
        order = labeled[np.argsort(-scores[labeled], kind="stable")]
        ranked, hits = scores[order], np.cumsum(labels[order] > 0)
        tags: np.ndarray = np.arange(1, len(hits) + 1)
        if weights is not None:
            ordered = np.asarray(weights, np.float64).ravel()[order]
            hits, tags = np.cumsum(ordered * (labels[order] > 0)), np.cumsum(ordered)
        if not len(hits) or not hits[-1]:
            return np.nan
        ends = np.append(ranked[:-1] != ranked[1:], True)  # no cut separates equal scores
        if self.precision is None:
            last = int(np.argmax(np.where(ends, 2 * hits / (tags + hits[-1]), -1.0)))
        else:
            # The tolerance is for rounding: 4 of 5 are 0.8.
            reached = np.flatnonzero(ends & (hits >= self.precision * tags - 1e-9))
            if not len(reached):
                return float(np.nextafter(ranked[0], np.inf))
            last = int(reached[-1])
        following = ranked[min(last + 1, len(ranked) - 1)]
        return float((ranked[last] + following) / 2)

    def __str__(self) -> str:
        return "f1" if self.precision is None else f"precision {self.precision:g}"

    def is_better(self, one: np.ndarray, other: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Returns for each class whether tags `one` serve the target better than tags `other`.

        Better is the higher F1; for a precision, more right tags among tags that reach it, or the
        higher precision if only one of the two reaches it or neither does.

        Args:
            one: (N, C) bool.
            other: (N, C) bool.
            labels: (N, C) of +1, -1, 0 (left out).
        """
        if self.precision is None:
            return class_f1(one, labels) > class_f1(other, labels)
        precision, right = zip(*(_precision(tags, labels) for tags in (one, other)), strict=True)
        reached = [own >= self.precision for own in precision]
        both = reached[0] & reached[1]
        return np.where(both, right[0] > right[1], precision[0] > precision[1])


F1 = Target()


def parse_target(text: str) -> Target:
    """Returns the target that a text names: `f1`, or `precision P` with P between 0 and 1.

    Raises:
        ValueError: it names none.
    """
    words = text.split()
    if words == ["f1"]:
        return F1
    if len(words) == 2 and words[0] == "precision":
        try:
            precision = float(words[1])
        except ValueError:
            precision = np.nan
        if 0 < precision < 1:
            return Target(precision)
    raise ValueError(
        f"expected f1, or precision with a share above 0 and below 1, such as "
        f"'precision 0.8'; got {text!r}"
    )


def best_cut(scores: ArrayLike, labels: ArrayLike) -> float:
    """Returns the cut with the best F1: tags are the entries whose score is at least the cut.

    It lies halfway between two neighboring scores (or is the lowest score, if all are tags); of
    equally good cuts it is the highest. NaN without a positive.

    Args:
        scores: any shape, floating.
        labels: the same shape, of +1, -1, 0 (left out).
    """
    return F1.cut(scores, labels)


def class_f1(tags: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the F1 (C,) of each class's tags (N, C), 0 without tags and positives."""
    present = labels > 0
    right = (tags & present).sum(axis=0)
    total = (tags & (labels != 0)).sum(axis=0) + present.sum(axis=0)
    return np.divide(2.0 * right, total, out=np.zeros(len(total)), where=total > 0)


def _precision(tags: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    right = (tags & (labels > 0)).sum(axis=0)
    given = (tags & (labels != 0)).sum(axis=0)
    return np.divide(right, given, out=np.zeros(len(given)), where=given > 0), right
