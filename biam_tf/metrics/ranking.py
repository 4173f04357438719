"""Rankings of a test set: of the images of each class, and of the classes of each image.

A ranking goes by descending score; equal scores keep the order of what is ranked, as in a stable
argsort of the negated scores. Only the ranks that are needed are found, exactly.

Scores may be in a file. They are read in blocks, on all CPUs, and no temporary is as large as they
are.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from biam_tf.metrics.slices import column_blocks, in_threads, row_blocks
from biam_tf.metrics.stored_scores import Scores, by_class
from biam_tf.sparse_labels import Labels

# Comparing an entry with its whole row takes 1/70 of the time of sorting a row of 20,000
# numbers, 1/150 of 125,000; in short rows, what a call takes by itself counts more.
_COMPARED_PER_NUMBER, _COMPARED_AT_MOST = 1 / 300, 128
# Columns of which at first only the largest is considered.
_GROUP = 64


@dataclasses.dataclass(frozen=True, eq=False)
class RankedClasses:
    """The terms of average precision.

    Attributes:
        precisions: (C,) float64, the sum over a class's positives of the precision among the images
            ranked down to that positive.
        positives: (C,) int64, number of images labeled +1.
        labeled: (C,) int64, number of images labeled +1 or -1.
    """

    precisions: np.ndarray
    positives: np.ndarray
    labeled: np.ndarray

    def average_precisions(self, without_positives: float) -> np.ndarray:
        """Returns the average precision of each class, (C,) float64."""
        result = np.full(len(self.positives), without_positives)
        return np.divide(self.precisions, self.positives, out=result, where=self.positives > 0)


def rank_classes(scores: Scores, labels: Labels) -> RankedClasses:
    """Ranks the images of each class, all classes in one pass over the scores.

    Args:
        scores: (N, C) floating scores without NaN.
        labels: (N, C) of +1, -1, 0; images labeled 0 are left out.
    """
    blocks = in_threads(
        lambda columns: _rank_block(scores[:, columns], labels[:, columns]),
        column_blocks(scores.shape),
    )
    nothing = np.zeros(0), np.zeros(0, np.int64), np.zeros(0, np.int64)
    return RankedClasses(*map(np.concatenate, zip(nothing, *blocks, strict=True)))


def _rank_block(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, ...]:
    """The arrays of `RankedClasses` for some classes; scores and labels are (N, c)."""
    # Classes become rows, so that each is sorted in contiguous memory.
    scores, labels = _floating(by_class(scores)), by_class(labels)
    classes, images = labels.shape
    hits = np.flatnonzero(labels > 0)
    positives, labeled = np.count_nonzero(labels > 0, axis=1), np.count_nonzero(labels, axis=1)
    sums = np.zeros(classes)
    if not len(hits):
        return sums, positives, labeled
    starts = hits - hits % images
    # Sorted, each class's positives follow one another, the best first.
    position = np.sort(starts + ranks(scores, hits))
    before = position - starts
    if labeled.min() < images:
        known = np.where(labels == 0, np.nan, scores)
        before = np.sort(starts + ranks(known, hits)) - starts
    first = np.cumsum(positives) - positives
    found = np.arange(1, len(hits) + 1) - np.repeat(first, positives)
    precisions = np.zeros(classes * images)
    precisions[position] = found / (before + 1)
    return precisions.reshape(classes, images).sum(axis=1), positives, labeled


def _floating(scores: np.ndarray) -> np.ndarray:
    """Scores as float32 or, where that would round them, float64."""
    return scores.astype(np.result_type(scores, np.float32), copy=False)


@dataclasses.dataclass(frozen=True, eq=False)
class RightAmongBest:
    """Which of each image's K best classes are present.

    Attributes:
        right: (N, K) bool, the best class first.
        positives: (N,) int64, number of present classes among all that were ranked.
    """

    right: np.ndarray
    positives: np.ndarray


def right_among_best(
    scores: Scores,
    labels: Labels,
    k: int,
    parts: Sequence[np.ndarray],
) -> list[RightAmongBest]:
    """Ranks each image's classes, for several parts in one pass over the scores.

    Args:
        scores: (N, C) floating scores without NaN.
        labels: (N, C) of +1, -1, 0.
        k: number of best classes; all of them in a part that has fewer.
        parts: for each part the columns that are ranked together, ascending.
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

    blocks = in_threads(rank, row_blocks(scores)) or [rank(slice(0, 0))]
    return [
        RightAmongBest(*(np.concatenate(pieces) for pieces in zip(*part, strict=True)))
        for part in zip(*blocks, strict=True)
    ]


def ranks(values: np.ndarray, entries: np.ndarray) -> np.ndarray:
    """Returns the ranks of some entries in their rows, 0 for the best.

    Args:
        values: (R, N) floats, C-contiguous; NaN is not ranked.
        entries: (P,) flat indices of entries, ascending, none of them NaN.

    Returns:
        (P,) int64.
    """
    images = values.shape[1]
    result = np.empty(len(entries), np.int64)
    rows = entries // images
    few = np.bincount(rows, minlength=len(values)) <= _most_compared(images)
    compared, searched = np.flatnonzero(few[rows]), np.flatnonzero(~few[rows])
    result[compared] = _compared(values, entries[compared])
    if len(searched):
        sorted_rows = np.flatnonzero(~few)
        own = np.searchsorted(sorted_rows, rows[searched]) * images + entries[searched] % images
        result[searched] = _searched(values[sorted_rows], own)
    return result


def _most_compared(images: int) -> int:
    return min(_COMPARED_AT_MOST, int(_COMPARED_PER_NUMBER * images))


def _compared(values: np.ndarray, entries: np.ndarray) -> np.ndarray:
    """Ranks of a few entries, each compared with its row."""
    result = np.empty(len(entries), np.int64)
    rows, images = np.divmod(entries, values.shape[1])
    for entry, (row, image) in enumerate(zip(rows.tolist(), images.tolist(), strict=True)):
        own = values[row, image]
        earlier, later = values[row, :image], values[row, image:]
        result[entry] = np.count_nonzero(earlier >= own) + np.count_nonzero(later > own)
    return result


def _searched(values: np.ndarray, entries: np.ndarray) -> np.ndarray:
    """Ranks of many entries, searched in their sorted rows."""
    images = values.shape[1]
    rows, own = entries // images, values.ravel()[entries]
    ordered = np.sort(values, axis=1)  # NaN comes last
    ranked = images - np.count_nonzero(np.isnan(ordered), axis=1)[rows]
    starts = rows * images
    below = _count_below(ordered.ravel(), starts, images, own)
    result = ranked - 1 - below
    following = ordered.ravel()[starts + np.minimum(below + 1, images - 1)]
    tied = np.flatnonzero((following == own) & (below + 1 < ranked))
    if not len(tied):
        return result
    tied_rows = np.unique(rows[tied])
    if len(tied) <= _most_compared(images) * len(tied_rows):
        result[tied] = _compared(values, entries[tied])
    else:
        order = np.argsort(-values[tied_rows], axis=1, kind="stable")
        rank = np.empty_like(order)
        np.put_along_axis(rank, order, np.arange(images)[None], axis=1)
        result[tied] = rank[np.searchsorted(tied_rows, rows[tied]), entries[tied] % images]
    return result


def _count_below(ordered, starts, size: int, own) -> np.ndarray:
    """Number of values below each `own` in its ascending row, which begins at `starts`."""
    last = starts + size - 1
    index = starts - 1  # of a number below `own`, or before the row
    step = 1 << max(0, size.bit_length() - 1)
    while step:
        probe = index + step
        # Beyond the row, its last number is taken: it is not below `own`.
        index = np.where(ordered[np.minimum(probe, last)] < own, probe, index)
        step >>= 1
    return index + 1 - starts


def best_columns(scores: np.ndarray, k: int) -> np.ndarray:
    """Returns the columns of each row's `k` best scores, best first.

    Args:
        scores: (N, C) floats without NaN.
        k: at most C.

    Returns:
        (N, k) int64.
    """
    images, classes = scores.shape
    candidates = scores >= _among_the_best(scores, k)[:, None]
    counts = np.count_nonzero(candidates, axis=1)
    rows, columns = np.divmod(np.flatnonzero(candidates), classes)
    # Candidates of a row side by side, in the order of columns; the padding ranks last.
    width = int(counts.max(initial=k))
    position = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    negated = np.full((images, width), np.inf, scores.dtype)
    negated[rows, position] = -scores[rows, columns]
    column = np.zeros((images, width), np.int64)
    column[rows, position] = columns
    order = np.argsort(negated, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(column, order, axis=1)


def _among_the_best(scores: np.ndarray, k: int) -> np.ndarray:
    """A score of each row that at least `k` of its scores reach, but not many more."""
    images, classes = scores.shape
    groups = classes // _GROUP
    if groups < 4 * k:
        return np.partition(scores, -k, axis=1)[:, -k]
    # Each of the k best groups has a score that reaches the k-th best group's largest.
    largest = scores[:, : groups * _GROUP].reshape(images, groups, _GROUP).max(axis=2)
    return np.partition(largest, -k, axis=1)[:, -k]
