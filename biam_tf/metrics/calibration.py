"""Scores to probabilities: the most likely sigmoid, one for all classes or one for each."""

import dataclasses

import numpy as np

# Scores that tell nothing would give a slope of 0 or less, which no cut could be read from.
_LEAST_SLOPE = 1e-3
_NEWTON_STEPS = 50


@dataclasses.dataclass(frozen=True, eq=False)
class Calibration:
    """Scores to logits of probabilities.

    Attributes:
        slope: of all classes, positive.
        offsets: (C,) of each class.
    """

    slope: float
    offsets: np.ndarray

    def logits(self, scores: np.ndarray) -> np.ndarray:
        """Returns the logits (N, C) of scores (N, C)."""
        return self.slope * scores + self.offsets


def fit_global(scores: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Returns Platt's fit: slope and offset that make the labels of all classes most likely.

    Args:
        scores: (N, C) float64.
        labels: (N, C) of +1, -1, 0 (left out); some are not 0.
    """
    labeled = labels != 0
    fitted = _newton(scores[labeled], labels[labeled] > 0, None, 0)
    return fitted.slope, float(fitted.offsets)


def fit_classes(scores: np.ndarray, labels: np.ndarray) -> Calibration:
    """Returns the slope and the classes' offsets that are most probable together.

    An offset is one number for all classes and the class's own move from it, whose prior is normal
    with mean 0 and standard deviation 1.

    Args:
        scores: (N, C) float64.
        labels: (N, C) of +1, -1, 0 (left out); some are not 0.
    """
    rows, classes = np.nonzero(labels)
    return _newton(scores[rows, classes], labels[rows, classes] > 0, classes, scores.shape[1])


def _newton(scores, present, classes: np.ndarray | None, count: int) -> Calibration:
    """Newton's method for the fits above.

    Args:
        scores: (M,) of the labels.
        present: (M,) bool, the labels.
        classes: (M,) which class each label is of; None: no class moves its offset.
        count: number of classes.
    """
    mean, spread = scores.mean(), scores.std() or 1.0
    x = np.stack([(scores - mean) / spread, np.ones(len(scores))])  # slope and offset
    positives = int(present.sum())
    negatives = len(present) - positives
    target = np.where(present, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    shared = np.array([0.0, np.log((positives + 1) / (negatives + 1))])
    moves = np.zeros(count)
    for _ in range(_NEWTON_STEPS):
        logits = shared @ x if classes is None else shared @ x + moves[classes]
        p = sigmoid(logits)
        residual, weight = target - p, p * (1 - p)
        gradient, hessian = x @ residual, (x * weight) @ x.T
        if classes is not None:
            # Each move meets only the two shared numbers: eliminated, they leave two equations.
            own_gradient = np.bincount(classes, residual, count) - moves
            own = np.bincount(classes, weight, count) + 1
            cross = np.stack([np.bincount(classes, weight * row, count) for row in x])
            gradient = gradient - cross @ (own_gradient / own)
            hessian = hessian - (cross / own) @ cross.T
        hessian += 1e-9 * np.trace(hessian) * np.eye(2)  # all scores may be the same
        # Bounded: where the sigmoid is flat, the quadratic model is not to be trusted far out.
        step = np.clip(np.linalg.solve(hessian, gradient), -2, 2)
        change = np.abs(step).max()
        shared = shared + step
        if classes is not None:
            own_step = np.clip((own_gradient - step @ cross) / own, -2, 2)
            moves = moves + own_step
            change = max(change, np.abs(own_step).max())
        if change < 1e-9:
            break
    slope = max(shared[0], _LEAST_SLOPE)
    offset = shared[1] - slope * mean / spread
    return Calibration(float(slope / spread), offset + moves if count else offset)


def sigmoid(x) -> np.ndarray:
    """Returns 1 / (1 + exp(-x)), without overflow."""
    return 0.5 * (1 + np.tanh(0.5 * np.asarray(x)))
