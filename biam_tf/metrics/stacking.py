"""The trade between seen and unseen classes in a joint ranking: calibrated stacking.

A model trained on seen classes scores them higher than unseen ones. Chao et al. (An Empirical
Study and Analysis of Generalized Zero-Shot Learning, ECCV 2016) subtract a constant g from every
seen class's score before all classes are ranked together, follow the accuracy on seen and on
unseen classes as g runs over all numbers, and take the area under that curve (AUSUC).

Here a photo has many labels, and a class's average precision does not change with g (the
constant moves all photos alike). What changes is which classes are a photo's K best. So the two
accuracies are recalls: the share of all seen (unseen) labels that are among the K best of their
photo's ranking of all classes. From g = -inf to +inf the unseen recall rises from about 0 to the
ZSL recall at K, the seen recall falls from its own recall at K to about 0.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from biam_tf.metrics import labels_of_classes
from biam_tf.metrics.rank_positions import best_columns
from biam_tf.metrics.slices import NUMBERS, in_threads, row_blocks
from biam_tf.metrics.stored_scores import as_scores


@dataclasses.dataclass(frozen=True, eq=False)
class SeenUnseenCurve:
    """Recall of seen and unseen labels at every constant; a step function, exact.

    Attributes:
        constants: (P,) ascending, where a label enters or leaves its photo's K best.
        seen: (P + 1,) seen recall: before the first constant, between each two, after the last.
        unseen: (P + 1,) unseen recall, likewise.
        k: how many classes a photo is given.
    """

    constants: np.ndarray
    seen: np.ndarray
    unseen: np.ndarray
    k: int

    @property
    def area(self) -> float:
        """Area under the curve of seen recall over unseen recall, by trapezoids."""
        return float(np.trapezoid(self.seen, self.unseen))

    def at(self, constant: float) -> tuple[float, float]:
        """Returns (seen recall, unseen recall) with `constant` subtracted from seen scores."""
        place = np.searchsorted(self.constants, constant)
        return float(self.seen[place]), float(self.unseen[place])

    def best_constant(self) -> float:
        """Returns the constant with the largest harmonic mean of the two recalls.

        The middle of the best step; of equally good ones, the one nearest to 0.
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


def harmonic_mean(a, b) -> np.ndarray:
    """Returns 2ab / (a + b), 0 where both are 0."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    total = a + b
    return np.divide(2 * a * b, total, out=np.zeros(total.shape), where=total > 0)


def seen_unseen_curve(scores, labels, groups: Sequence[str], k: int = 3) -> SeenUnseenCurve:
    """Follows both recalls over all constants.

    A seen label with r seen classes ranked above it in its photo is among the K best as long as
    at most K - 1 - r unseen classes are: up to the constant at which one more overtakes it.
    An unseen label, the other way round. So each label has one constant, and sorting them
    gives the whole curve.

    Args:
        scores: (N, C) floating scores.
        labels: (N, C) of +1, -1, 0; only +1 counts.
        groups: "seen" or "unseen" for each class.
        k: how many classes a photo is given.

    Raises:
        ValueError: there is no label of a seen or none of an unseen class, or fewer than K
            classes.
    """
    scores, labels = as_scores(scores), np.asarray(labels)
    groups = np.asarray(groups, dtype=object)
    if scores.shape != labels.shape or scores.shape[1:] != groups.shape:
        raise ValueError(
            f"scores {scores.shape}, labels {labels.shape} and {len(groups)} groups don't fit"
        )
    if not 1 <= k <= len(groups):
        raise ValueError(f"K = {k} of {len(groups)} classes")
    columns = {group: np.flatnonzero(groups == group) for group in ("seen", "unseen")}
    _, of_classes = labels_of_classes(labels)
    positives = {group: int(of_classes[own].sum()) for group, own in columns.items()}
    for group, count in positives.items():
        if not count:
            raise ValueError(f"no photo shows a class of group {group!r}")

    # Seen labels leave when g passes their constant, unseen ones enter.
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


def _critical(scores, labels, seen, unseen, k: int) -> list[np.ndarray]:
    """How much each label of seen classes can lose against unseen ones, at most; and vice versa.

    With more it is no longer among the K best; infinite where it stays whatever it loses. Labels
    that are never among them are left out.
    """

    def margins(rows: slice) -> list[np.ndarray]:
        best = [_Best.of(scores[rows], labels[rows], own, k) for own in (seen, unseen)]
        return [best[0].margins_against(best[1], k), best[1].margins_against(best[0], k)]

    blocks = in_threads(margins, row_blocks(scores, NUMBERS))
    return [np.concatenate(own) for own in zip(*blocks, strict=True)]


@dataclasses.dataclass(frozen=True, eq=False)
class _Best:
    """Each photo's K best classes of a group, or all where it has fewer, the best first.

    Attributes:
        scores: (n, min(K, group)).
        right: likewise, whether the photo shows the class.
    """

    scores: np.ndarray
    right: np.ndarray

    @classmethod
    def of(cls, scores, labels, group: np.ndarray, k: int) -> "_Best":
        own = scores[:, group]
        best = best_columns(own, min(k, len(group)))
        return cls(
            np.take_along_axis(own, best, axis=1),
            np.take_along_axis(labels[:, group], best, axis=1) > 0,
        )

    def margins_against(self, others: "_Best", k: int) -> np.ndarray:
        rows, places = np.nonzero(self.right)
        free = k - 1 - places
        margin = np.full(len(rows), np.inf)
        beaten = free < others.scores.shape[1]
        lost_to = others.scores[rows[beaten], free[beaten]]
        margin[beaten] = self.scores[rows[beaten], places[beaten]] - lost_to
        return margin
