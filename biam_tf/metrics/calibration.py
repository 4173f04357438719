"""Calibration of scores to probabilities by maximum likelihood sigmoids."""

import dataclasses
import functools
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from biam_tf.metrics.labeled_scores import Entries, LabeledScores

# Uninformative scores would give a slope of 0 or less, from which no threshold could be computed.
MIN_SLOPE = 1e-3
_NEWTON_STEPS = 50


@dataclasses.dataclass(frozen=True, eq=False)
class Calibration:
    """A map of scores to logits of probabilities.

    Attributes:
        slope: positive, shared by all classes.
        offsets: (C,), one per class.
    """

    slope: float
    offsets: np.ndarray

    def logits(self, scores: np.ndarray) -> np.ndarray:
        """Returns the logits (N, C) of scores (N, C)."""
        return self.slope * scores + self.offsets

    def of_entries(self, entries: Entries) -> Entries:
        """Returns labels with their logits in place of their scores."""
        return entries.scored(self.slope * entries.scores + self.offsets[entries.classes])


def fit_global(
    scores: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None
) -> tuple[float, float]:
    """Returns the slope and offset of Platt scaling, fitted to the labels of all classes.

    Args:
        scores: float64, any shape.
        labels: the same shape, of +1, -1, 0 (left out), not all 0.
        weights: the same shape, of the labels; None: all count alike.
    """
    return fit_global_to(LabeledScores.of_arrays(scores, labels, weights))


def fit_global_to(labeled: LabeledScores) -> tuple[float, float]:
    """Returns `fit_global` of labels that are read in blocks."""
    fitted = _newton(labeled, 0)
    return fitted.slope, float(fitted.offsets)


def fit_classes(scores: np.ndarray, labels: np.ndarray) -> Calibration:
    """Returns the most probable slope and offsets of all classes together.

    An offset is the sum of a shared offset and the class's own shift, whose prior is normal with
    mean 0 and standard deviation 1.

    Args:
        scores: (N, C) float64.
        labels: (N, C) of +1, -1, 0 (left out), not all 0.
    """
    return fit_classes_to(LabeledScores.of_arrays(scores, labels), scores.shape[1])


def fit_classes_to(labeled: LabeledScores, classes: int) -> Calibration:
    """Returns `fit_classes` of labels of some classes that are read in blocks."""
    return _newton(labeled, classes)


def _newton(labeled: LabeledScores, count: int) -> Calibration:
    """Newton's method for the fits above; each step is one pass over the labels.

    Args:
        labeled: the labels.
        count: number of classes; 0: classes have no shifts.
    """

    def total(function: Callable[[Entries], tuple[Any, ...]]) -> list[Any]:
        return [
            functools.reduce(operator.add, own) for own in zip(*labeled.each(function), strict=True)
        ]

    number, positives, summed = total(
        lambda own: (len(own.scores), int(own.present.sum()), own.scores.sum())
    )
    mean = summed / number
    (squares,) = total(lambda own: (((own.scores - mean) ** 2).sum(),))
    spread = np.sqrt(squares / number) or 1.0
    negatives = number - positives
    of_present, of_absent = (positives + 1) / (positives + 2), 1 / (negatives + 2)
    shared = np.array([0.0, np.log((positives + 1) / (negatives + 1))])
    shifts = np.zeros(count)

    def terms(own: Entries) -> tuple[np.ndarray, ...]:
        x = np.stack([(own.scores - mean) / spread, np.ones(len(own.scores))])  # slope and offset
        logits = shared @ x + shifts[own.classes] if count else shared @ x
        p = sigmoid(logits)
        residual, weight = np.where(own.present, of_present, of_absent) - p, p * (1 - p)
        if own.weights is not None:
            residual, weight = own.weights * residual, own.weights * weight
        gradient, hessian = x @ residual, (x * weight) @ x.T
        if not count:
            return gradient, hessian
        by_class = [np.bincount(own.classes, values, count) for values in (residual, weight)]
        cross = np.stack([np.bincount(own.classes, weight * row, count) for row in x])
        return gradient, hessian, *by_class, cross

    for _ in range(_NEWTON_STEPS):
        gradient, hessian, *of_classes = total(terms)
        if count:
            # A shift interacts only with slope and shared offset: eliminating the shifts leaves
            # two equations.
            own_residual, own_weight, cross = of_classes
            own_gradient, own = own_residual - shifts, own_weight + 1
            gradient = gradient - cross @ (own_gradient / own)
            hessian = hessian - (cross / own) @ cross.T
        hessian += 1e-9 * np.trace(hessian) * np.eye(2)  # all scores may be equal
        # Bounded, because the quadratic model is poor where the sigmoid is flat.
        step = np.clip(np.linalg.solve(hessian, gradient), -2, 2)
        change = np.abs(step).max()
        shared = shared + step
        if count:
            own_step = np.clip((own_gradient - step @ cross) / own, -2, 2)
            shifts = shifts + own_step
            change = max(change, np.abs(own_step).max())
        if change < 1e-9:
            break
    slope = max(shared[0], MIN_SLOPE)
    offset = shared[1] - slope * mean / spread
    return Calibration(float(slope / spread), offset + shifts if count else offset)


def sigmoid(x: ArrayLike) -> np.ndarray:
    """Returns 1 / (1 + exp(-x)), without overflow."""
    return 0.5 * (1 + np.tanh(0.5 * np.asarray(x)))
