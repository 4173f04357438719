"""Calibrated stacking: the trade-off between seen and unseen classes in a joint ranking.

A model trained on seen classes gives them higher scores than unseen ones. Chao et al. (An Empirical
Study and Analysis of Generalized Zero-Shot Learning, ECCV 2016) subtract a constant g from the
scores of seen classes before all classes are ranked together, plot the accuracy on seen classes
against that on unseen classes for all g, and report the area under this curve (AUSUC).

Here a photo has many labels, and a class's average precision does not depend on g, which shifts
the scores of all photos equally. What depends on it is which classes are a photo's K best. So the
two accuracies are recalls: the share of all seen (unseen) labels that are among the K best of their
photo's ranking of all classes. From g = -inf to +inf the unseen recall rises from about 0 to the
ZSL recall at K, and the seen recall falls from its own recall at K to about 0.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from biam_tf.metrics import labels_of_classes
from biam_tf.metrics.ranking import best_columns
from biam_tf.metrics.slices import in_threads, row_blocks
from biam_tf.metrics.stored_scores import Scores, as_scores
from biam_tf.sparse_labels import Labels, as_labels


@dataclasses.dataclass(frozen=True, eq=False)
class SeenUnseenCurve:
    """Recall of seen and unseen labels for every constant, as an exact step function.

    Attributes:
        constants: (P,) ascending, at which a label enters or leaves its photo's K best.
        seen: (P + 1,) seen recall before the first constant, between each two, after the last.
        unseen: (P + 1,) unseen recall, likewise.
        k: number of classes a photo is given.
    """

    constants: np.ndarray
    seen: np.ndarray
    unseen: np.ndarray
    k: int

    @property
    def area(self) -> float:
        """Area under the curve of seen recall over unseen recall, by trapezoids."""
        return float(np.sum(np.diff(self.unseen) * (self.seen[1:] + self.seen[:-1]) / 2))

    def at(self, constant: float) -> tuple[float, float]:
        """Returns (seen recall, unseen recall) with `constant` subtracted from seen scores."""
        step = np.searchsorted(self.constants, constant)
        return float(self.seen[step]), float(self.unseen[step])

    def best_constant(self) -> float:
        """Returns the constant with the largest harmonic mean of the two recalls.

        It is the middle of the best step; of equally good ones, the one nearest to 0.
        """
        if not len(self.constants):
            return 0.0
        means = harmonic_mean(self.seen, self.unseen)
        inner = np.diff(self.constants) / 2
        middles = np.concatenate(
            [self.constants[:1] - 1, self.constants[:-1] + inner, self.constants[-1:] + 1]
        )
        best = np.flatnonzero(means >= means.max() - 1e-12)
        return float(middles[best[np.argmin(np.abs(middles[best]))]])


def harmonic_mean(a: ArrayLike, b: ArrayLike) -> np.ndarray:
    """Returns 2ab / (a + b), and 0 where both are 0."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    total = a + b
    return np.divide(2 * a * b, total, out=np.zeros(total.shape), where=total > 0)


def seen_unseen_curve(
    scores: Scores | ArrayLike, labels: Labels | ArrayLike, groups: Sequence[str], k: int = 3
) -> SeenUnseenCurve:
    """Returns both recalls for all constants.

    A seen label with r seen classes ranked above it in its photo is among the K best as long as
    at most K - 1 - r unseen classes are ranked above it: up to the constant at which one more is.
    For an unseen label it is the other way round. So each label has one constant, and sorting them
    gives the whole curve.

    Args:
        scores: (N, C) floating scores.
        labels: (N, C) of +1, -1, 0; only +1 counts.
        groups: "seen" or "unseen" for each class.
        k: number of classes a photo is given.

    Raises:
        ValueError: for shapes that do not match, no label of a seen or of an unseen class, or
            fewer than K classes.
    """
    scores, labels = as_scores(scores), as_labels(labels)
    group_of = np.asarray(groups, dtype=object)
    if scores.shape != labels.shape or scores.shape[1:] != group_of.shape:
        raise ValueError(
            f"scores {scores.shape}, labels {labels.shape} and {len(groups)} groups do not match"
        )
    if not 1 <= k <= len(groups):
        raise ValueError(f"K = {k} of {len(groups)} classes")
    columns = {group: np.flatnonzero(group_of == group) for group in ("seen", "unseen")}
    _, of_classes = labels_of_classes(labels)
    positives = {group: int(of_classes[own].sum()) for group, own in columns.items()}
    for group, count in positives.items():
        if not count:
            raise ValueError(f"no photo shows a class of group {group!r}")

    # As g passes its constant, a seen label leaves the K best, an unseen one enters them.
    leaving, entering = _critical(scores, labels, columns["seen"], columns["unseen"], k)
    entering = -entering
    always_seen, always_unseen = np.sum(leaving == np.inf), np.sum(entering == -np.inf)
    leaving, entering = leaving[np.isfinite(leaving)], entering[np.isfinite(entering)]
    constants = np.unique(np.concatenate([leaving, entering]))
    left = np.searchsorted(np.sort(leaving), constants, side="right")
    entered = np.searchsorted(np.sort(entering), constants, side="right")
    seen = len(leaving) + always_seen - np.concatenate([[0], left])
    unseen = always_unseen + np.concatenate([[0], entered])
    return SeenUnseenCurve(constants, seen / positives["seen"], unseen / positives["unseen"], k)


def _critical(
    scores: Scores, labels: Labels, seen: np.ndarray, unseen: np.ndarray, k: int
) -> list[np.ndarray]:
    """The largest constants with which seen labels are among the K best; for unseen ones, negated.

    They are infinite for labels that always are. Labels that never are have none.
    """

    def margins(rows: slice) -> list[np.ndarray]:
        best = [_Best.of(scores[rows], labels[rows], own, k) for own in (seen, unseen)]
        return [best[0].margins_against(best[1], k), best[1].margins_against(best[0], k)]

    blocks = in_threads(margins, row_blocks(scores))
    return [np.concatenate(own) for own in zip(*blocks, strict=True)]


@dataclasses.dataclass(frozen=True, eq=False)
class _Best:
    """Each photo's K best classes of a group (all, if it has fewer), the best first.

    Attributes:
        scores: (n, min(K, classes of the group)).
        right: bool of the same shape, whether the photo shows the class.
    """

    scores: np.ndarray
    right: np.ndarray

    @classmethod
    def of(cls, scores: np.ndarray, labels: np.ndarray, group: np.ndarray, k: int) -> "_Best":
        own = scores[:, group]
        best = best_columns(own, min(k, len(group)))
        return cls(
            np.take_along_axis(own, best, axis=1),
            np.take_along_axis(labels[:, group], best, axis=1) > 0,
        )

    def margins_against(self, others: "_Best", k: int) -> np.ndarray:
        rows, ranks = np.nonzero(self.right)
        free = k - 1 - ranks
        margin = np.full(len(rows), np.inf)
        beaten = free < others.scores.shape[1]
        lost_to = others.scores[rows[beaten], free[beaten]]
        margin[beaten] = self.scores[rows[beaten], ranks[beaten]] - lost_to
        return margin
