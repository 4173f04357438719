"""The two rankings of a test set: of the images of each class, and of the classes of each image.

Scores may lie in a file. They are read in blocks, on all CPUs, and no temporary is as large as they
are.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from biam_tf.metrics.rank_positions import best_columns, places
from biam_tf.metrics.slices import NUMBERS, column_blocks, in_threads, row_blocks
from biam_tf.metrics.stored_scores import Scores, by_class


@dataclasses.dataclass(frozen=True, eq=False)
class RankedClasses:
    """What average precision is made of.

    Attributes:
        precisions: (C,) the sum, over a class's positives, of the precision among the images
            ranked down to that positive.
        positives: (C,) how many images are labeled +1.
        labeled: (C,) how many are labeled +1 or -1.
    """

    precisions: np.ndarray
    positives: np.ndarray
    labeled: np.ndarray

    def average_precisions(self, without_positives: float) -> np.ndarray:
        """Returns the average precision of each class, (C,) float64."""
        result = np.full(len(self.positives), without_positives)
        return np.divide(self.precisions, self.positives, out=result, where=self.positives > 0)


def rank_classes(scores: Scores, labels: np.ndarray, numbers: int = NUMBERS) -> RankedClasses:
    """Ranks the images of each class, all classes in one pass over the scores.

    Args:
        scores: (N, C) floating scores without NaN.
        labels: (N, C) of +1, -1, 0; images labeled 0 are left out.
        numbers: how many scores are worked on at a time.
    """
    blocks = in_threads(
        lambda columns: _rank_block(scores[:, columns], labels[:, columns]),
        column_blocks(scores.shape, numbers),
    )
    nothing = np.zeros(0), np.zeros(0, np.int64), np.zeros(0, np.int64)
    return RankedClasses(*map(np.concatenate, zip(nothing, *blocks, strict=True)))


def _rank_block(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, ...]:
    """What `RankedClasses` holds of some classes; scores and labels are (N, c)."""
    # Classes as rows: each is sorted in contiguous memory.
    scores, labels = _floating(by_class(scores)), by_class(labels)
    classes, images = labels.shape
    hits = np.flatnonzero(labels > 0)
    positives, labeled = np.count_nonzero(labels > 0, axis=1), np.count_nonzero(labels, axis=1)
    sums = np.zeros(classes)
    if not len(hits):
        return sums, positives, labeled
    starts = hits - hits % images
    # Sorted, each class's positives follow one another from the best on.
    place = np.sort(starts + places(scores, hits))
    before = place - starts
    if labeled.min() < images:
        known = np.where(labels == 0, np.nan, scores)
        before = np.sort(starts + places(known, hits)) - starts
    first = np.cumsum(positives) - positives
    found = np.arange(1, len(hits) + 1) - np.repeat(first, positives)
    precisions = np.zeros(classes * images)
    precisions[place] = found / (before + 1)
    return precisions.reshape(classes, images).sum(axis=1), positives, labeled


def _floating(scores: np.ndarray) -> np.ndarray:
    """Scores as the smallest of float32 and float64 that holds each of them."""
    return scores.astype(np.result_type(scores, np.float32), copy=False)


@dataclasses.dataclass(frozen=True, eq=False)
class RightAmongBest:
    """Which of each image's K best classes are right.

    Attributes:
        right: (N, K) bool, the best class first.
        positives: (N,) how many are right of all classes that were ranked.
    """

    right: np.ndarray
    positives: np.ndarray


def right_among_best(
    scores: Scores,
    labels: np.ndarray,
    k: int,
    parts: Sequence[np.ndarray],
    numbers: int = NUMBERS,
) -> list[RightAmongBest]:
    """Ranks each image's classes, several choices of them in one pass over the scores.

    Args:
        scores: (N, C) floating scores without NaN.
        labels: (N, C) of +1, -1, 0.
        k: how many of the best are looked at; fewer where a part has fewer classes.
        parts: which columns are ranked with one another, ascending.
        numbers: how many scores are worked on at a time.
    """

    def rank(rows: slice) -> list[tuple[np.ndarray, np.ndarray]]:
        block, present, found = _floating(scores[rows]), labels[rows] > 0, []
        for columns in parts:
            whole = len(columns) == block.shape[1]
            own, own_present = (x if whole else x[:, columns] for x in (block, present))
            best = best_columns(own, min(k, own.shape[1]))
            right = np.take_along_axis(own_present, best, axis=1)
            found.append((right, np.count_nonzero(own_present, axis=1)))
        return found

    blocks = in_threads(rank, row_blocks(scores, numbers)) or [rank(slice(0, 0))]
    return [
        RightAmongBest(*(np.concatenate(pieces) for pieces in zip(*part, strict=True)))
        for part in zip(*blocks, strict=True)
    ]
