"""Calibration of scores to probabilities by maximum likelihood sigmoids."""

import dataclasses

import numpy as np
from numpy.typing import ArrayLike

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


def fit_global(
    scores: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None
) -> tuple[float, float]:
    """Returns the slope and offset of Platt scaling, fitted to the labels of all classes.

    Args:
        scores: float64, any shape.
        labels: the same shape, of +1, -1, 0 (left out), not all 0.
        weights: the same shape, of the labels; None: all count alike.
    """
    labeled = labels != 0
    own = None if weights is None else weights[labeled]
    fitted = _newton(scores[labeled], labels[labeled] > 0, None, 0, own)
    return fitted.slope, float(fitted.offsets)


def fit_classes(scores: np.ndarray, labels: np.ndarray) -> Calibration:
    """Returns the most probable slope and offsets of all classes together.

    An offset is the sum of a shared offset and the class's own shift, whose prior is normal with
    mean 0 and standard deviation 1.

    Args:
        scores: (N, C) float64.
        labels: (N, C) of +1, -1, 0 (left out), not all 0.
    """
    rows, classes = np.nonzero(labels)
    return _newton(scores[rows, classes], labels[rows, classes] > 0, classes, scores.shape[1])


def _newton(
    scores: np.ndarray,
    present: np.ndarray,
    classes: np.ndarray | None,
    count: int,
    weights: np.ndarray | None = None,
) -> Calibration:
    """Newton's method for the fits above.

    Args:
        scores: (M,) of the labels.
        present: (M,) bool, the labels.
        classes: (M,) the class of each label; None: classes have no shifts.
        count: number of classes.
        weights: (M,) of the labels; None: all count alike.
    """
    mean, spread = scores.mean(), scores.std() or 1.0
    x = np.stack([(scores - mean) / spread, np.ones(len(scores))])  # slope and offset
    positives = int(present.sum())
    negatives = len(present) - positives
    target = np.where(present, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    shared = np.array([0.0, np.log((positives + 1) / (negatives + 1))])
    shifts = np.zeros(count)
    for _ in range(_NEWTON_STEPS):
        logits = shared @ x if classes is None else shared @ x + shifts[classes]
        p = sigmoid(logits)
        residual, weight = target - p, p * (1 - p)
        if weights is not None:
            residual, weight = weights * residual, weights * weight
        gradient, hessian = x @ residual, (x * weight) @ x.T
        if classes is not None:
            # A shift interacts only with slope and shared offset: eliminating the shifts leaves
            # two equations.
            own_gradient = np.bincount(classes, residual, count) - shifts
            own = np.bincount(classes, weight, count) + 1
            cross = np.stack([np.bincount(classes, weight * row, count) for row in x])
            gradient = gradient - cross @ (own_gradient / own)
            hessian = hessian - (cross / own) @ cross.T
        hessian += 1e-9 * np.trace(hessian) * np.eye(2)  # all scores may be equal
        # Bounded, because the quadratic model is poor where the sigmoid is flat.
        step = np.clip(np.linalg.solve(hessian, gradient), -2, 2)
        change = np.abs(step).max()
        shared = shared + step
        if classes is not None:
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
