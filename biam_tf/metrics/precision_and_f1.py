"""Average precision and F1@K as the paper and the released code compute them, in NumPy.

Labels are +1 present, -1 absent, 0 unknown; scores and labels are (images, classes).
Everything is deterministic, ties included, and nothing loops over images or classes.

A class whose labels are all +1 has an average precision of 1 whatever its scores are.
`evaluate_scores` leaves it out, as it says nothing about them.

There are two conventions, each with two choices:

- a *class* without a positive has no average precision: it counts as 0 in the mean ("zero",
  as in the released code) or not at all ("left_out");
- an *image* without a positive among the scored classes can only be wrong in its top K:
  it is "counted" (as in the released code) or "left_out".

Scores may be in a file (`biam_tf.metrics.stored_scores`). In either case they are read in blocks,
which take about `biam_tf.metrics.slices.WORKING_MEMORY` beyond scores and labels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from biam_tf.metrics.ranking import (
    RightAmongBest,
    rank_classes,
    right_among_best,
)
from biam_tf.metrics.slices import column_blocks, in_threads, row_blocks
from biam_tf.metrics.stored_scores import Scores, StoredScores, as_scores
from biam_tf.sparse_labels import Labels, SparseLabels, as_labels

CLASS_CONVENTIONS = ("zero", "left_out")
IMAGE_CONVENTIONS = ("counted", "left_out")


class F1AtK(NamedTuple):
    """F1 and the precision and recall it is the harmonic mean of, fractions 0-1."""

    f1: float
    precision: float
    recall: float


def average_precision(
    scores: Scores | ArrayLike, labels: Labels | ArrayLike, without_positives: float = 0.0
) -> np.ndarray:
    """Returns the average precision of each class over the images where it is labeled +1 or -1.

    It is the mean, over a class's positives, of the precision among the images ranked down to that
    positive. Images are ranked by descending score; equal scores keep the images' order.

    Args:
        scores: (N, C) floating scores.
        labels: (N, C) of +1, -1, 0; entries labeled 0 are left out of the ranking.
        without_positives: value for classes that have no positive; 0 in the released code.

    Returns:
        (C,) float64.

    Raises:
        ValueError: for shapes that do not match, other labels, or scores that are NaN.
    """
    return rank_classes(*checked(scores, labels)).average_precisions(float(without_positives))


def mean_average_precision(
    average_precisions: ArrayLike,
    labels: Labels | ArrayLike,
    weighted: bool = False,
    without_positives: str = "zero",
) -> float:
    """Returns the mean of `average_precisions` over classes, plain or weighted by frequency.

    Args:
        average_precisions: (C,), as returned by `average_precision`.
        labels: (N, C), the labels they were computed from.
        weighted: weights each class by its number of positives, as the paper's Open Images
            figures do; classes without a positive then have weight 0.
        without_positives: "zero" counts classes without a positive as 0 (the released code),
            "left_out" takes the plain mean over the others.

    Returns:
        A fraction 0-1; NaN if there is no class to average.

    Raises:
        ValueError: for another convention, or shapes that do not match.
    """
    check_choice("without_positives", without_positives, CLASS_CONVENTIONS)
    values, labels = np.asarray(average_precisions, np.float64), as_labels(labels)
    if labels.ndim != 2 or values.shape != labels.shape[1:]:
        raise ValueError(
            f"average precisions {values.shape} and labels {labels.shape} do not match: expected "
            "(classes,) and (images, classes)"
        )
    return mean_over_classes(values, labels_of_classes(labels)[1], weighted, without_positives)


def f1_at_k(
    scores: Scores | ArrayLike,
    labels: Labels | ArrayLike,
    k: int,
    images_without_positives: str = "counted",
) -> F1AtK:
    """Returns the overall F1 of every image's `k` best classes, as the released code computes it.

    Precision = TP / (N·k), recall = TP / number of positives, over all images together. All
    classes of a row are ranked, including those labeled 0, and only +1 is right. Of classes with
    equal scores the first ones are taken. What is undefined (no image, no positive) is 0.

    Args:
        scores: (N, C) floating scores.
        labels: (N, C) of +1, -1, 0.
        k: number of classes an image is given, 1 to C.
        images_without_positives: "counted", or "left_out" of N and of TP.

    Returns:
        `F1AtK(f1, precision, recall)`.

    Raises:
        ValueError: for another k or convention, shapes that do not match, other labels, or scores
            that are NaN.
    """
    check_choice("images_without_positives", images_without_positives, IMAGE_CONVENTIONS)
    checked_scores, checked_labels = checked(scores, labels)
    classes = checked_labels.shape[1]
    if not 1 <= k <= classes:
        raise ValueError(f"F1@{k}: expected K from 1 to the number of classes, which is {classes}")
    (best,) = right_among_best(checked_scores, checked_labels, k, [np.arange(classes)])
    return f1_of_best(best, k, images_without_positives)


def f1_of_best(best: RightAmongBest, k: int, images_without_positives: str) -> F1AtK:
    """Returns `f1_at_k` of classes that have been ranked, with at least `k` best ones."""
    left_out = images_without_positives == "left_out"
    images = np.count_nonzero(best.positives) if left_out else len(best.positives)
    true_positives = int(np.count_nonzero(best.right[:, :k]))
    positives = int(best.positives.sum())
    precision = true_positives / (images * k) if images else 0.0
    recall = true_positives / positives if positives else 0.0
    f1 = 2 * precision * recall / (precision + recall) if true_positives else 0.0
    return F1AtK(f1, precision, recall)


def chance_average_precision(labels: Labels | ArrayLike) -> np.ndarray:
    """Returns each class's expected average precision under a random order of the images.

    With n labeled images, p of them positive, and H_n the n-th harmonic number, it is exactly
    (H_n + (n - H_n)(p - 1)/(n - 1)) / n, a little above the class's prevalence p/n; 0 for classes
    without a positive.

    Args:
        labels: (N, C) of +1, -1, 0.

    Returns:
        (C,) float64.
    """
    labels = as_labels(labels)
    return expected_average_precision(*labels_of_classes(labels), len(labels))


def expected_average_precision(n: np.ndarray, p: np.ndarray, images: int) -> np.ndarray:
    """Returns `chance_average_precision` of classes with n labels, p of them +1, on some images."""
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, images + 1))])[n]
    others = np.divide(p - 1, n - 1, out=np.zeros(n.shape), where=n > 1)
    expected = np.divide(harmonic + (n - harmonic) * others, n, out=np.zeros(n.shape), where=n > 0)
    return np.where(p > 0, expected, 0.0)


def labels_of_classes(labels: Labels | ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Returns each class's number of labels that are not 0, and that are +1, (C,) int64 each."""
    labels = as_labels(labels)
    if isinstance(labels, SparseLabels):
        return len(labels) - labels.count(0, axis=0), labels.count(1, axis=0)
    counts = in_threads(
        lambda block: [
            np.count_nonzero(own, axis=0) for own in (labels[:, block], labels[:, block] > 0)
        ],
        column_blocks(labels.shape),
    )
    labeled, positives = np.concatenate([np.zeros((2, 0), np.int64), *counts], axis=1)
    return labeled, positives


def mean_over_classes(
    values: np.ndarray, positives: np.ndarray, weighted: bool, without_positives: str
) -> float:
    """Returns `mean_average_precision` of classes with a number of positives each, (C,)."""
    has_positive = positives > 0
    if weighted:
        weights = positives.astype(np.float64)
    elif without_positives == "left_out":
        weights = has_positive.astype(np.float64)
    else:
        weights = np.ones(len(values))
    total = weights.sum()
    # The value of a class without a positive, which may be NaN, does not enter the mean.
    return float((weights * np.where(has_positive, values, 0.0)).sum() / total) if total else np.nan


def checked(scores: Scores | ArrayLike, labels: Labels | ArrayLike) -> tuple[Scores, Labels]:
    """Returns scores and labels as arrays (or scores in a file, and sparse labels).

    Raises:
        ValueError: for shapes that do not match, other labels, or scores that are NaN.
    """
    scores, labels = as_scores(scores), as_labels(labels)
    if scores.ndim != 2 or scores.shape != labels.shape:
        raise ValueError(
            f"scores {scores.shape} and labels {labels.shape} do not match: both must be "
            "(images, classes)"
        )
    nans = _nans(scores)
    if nans:
        raise ValueError(
            f"{nans:,} of {scores.size:,} scores are NaN and cannot be ranked. Look for NaNs in "
            "the features or a diverged training."
        )
    if isinstance(labels, SparseLabels):
        found = [_invalid(labels.unique())]
    else:
        found = in_threads(lambda rows: _invalid(labels[rows]), row_blocks(labels))
    invalid = np.unique(np.concatenate([np.zeros(0, labels.dtype), *found]))[:5]
    if len(invalid):
        raise ValueError(
            f"labels must be +1 (present), -1 (absent) or 0 (unknown), not {invalid.tolist()}"
        )
    return scores, labels


def _nans(scores: Scores) -> int:
    if isinstance(scores, StoredScores):
        return scores.nans
    return sum(
        in_threads(
            lambda rows: int(np.count_nonzero(np.isnan(scores[rows]))),
            row_blocks(scores),
        )
    )


def _invalid(labels: np.ndarray) -> np.ndarray:
    return np.unique(labels[(labels != 1) & (labels != -1) & (labels != 0)])


def check_choice(what: str, value: str, choices: Sequence[str]) -> None:
    """Raises a ValueError if `value` is not among the choices."""
    if value not in choices:
        raise ValueError(f"{what}: {value!r} is not {' or '.join(map(repr, choices))}")
