"""Chooses the cuts of seen classes on photos that are left out of the choice."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from biam_tf.metrics.calibration import fit_classes
from biam_tf.metrics.cuts import Target
from biam_tf.metrics.slices import column_blocks, in_threads
from biam_tf.metrics.stored_scores import Scores


def reason_not_to_fit(labels: ArrayLike, groups: Sequence[str]) -> str | None:
    """Returns why thresholds cannot be fitted to labels (N, C); None if they can."""
    own_labels = np.asarray(labels)[:, np.asarray(groups, dtype=object) == "seen"]
    labeled = int((own_labels != 0).any(axis=1).sum())
    if labeled < 2:
        return f"{labeled} validation photos have labels of seen classes; at least 2 are needed"
    if not (own_labels > 0).any() or not (own_labels < 0).any():
        if not (own_labels > 0).any():
            return "no validation photo shows a seen class"
        return (
            "no validation photo is known not to show a seen class (labels name only what is "
            "present), or every one shows all of them"
        )
    return None


@dataclasses.dataclass(frozen=True, eq=False)
class Cuts:
    """Means over the folds; `own` is (S,), NaN if the global cut is as good or better.

    `logits` (N, S) are those of each photo by the calibration that did not see it.
    """

    own: np.ndarray
    logit: float
    standardized: float
    logits: np.ndarray


def choose_cuts(
    scores: np.ndarray,
    standardized: np.ndarray,
    labels: np.ndarray,
    fold_of: np.ndarray,
    own_positives: int,
    target: Target,
) -> Cuts:
    """Chooses cuts on all folds but one and evaluates them on that one, for each fold."""
    folds = fold_of.max() + 1
    own = np.full((folds, scores.shape[1]), np.nan)
    logits, standard = np.full(folds, np.nan), np.full(folds, np.nan)
    own_tags, global_tags = np.zeros(labels.shape, bool), np.zeros(labels.shape, bool)
    left_out = np.zeros(labels.shape)
    for fold in range(folds):
        out, rest = fold_of == fold, fold_of != fold
        fitted = fit_classes(scores[rest], labels[rest])
        logits[fold] = target.cut(fitted.logits(scores[rest]), labels[rest])
        standard[fold] = target.cut(standardized[rest], labels[rest])
        for c in np.flatnonzero((labels > 0).sum(axis=0) >= own_positives):
            own[fold, c] = target.cut(scores[rest, c], labels[rest, c])
        # Without a cut (NaN), no tags.
        left_out[out] = fitted.logits(scores[out])
        global_tags[out] = left_out[out] >= logits[fold]
        own_tags[out] = scores[out] >= own[fold]
    better = target.is_better(own_tags, global_tags, labels)
    kept = np.full(scores.shape[1], np.nan)
    kept[better] = np.nanmean(own[:, better], axis=0)
    return Cuts(kept, float(np.nanmean(logits)), float(np.nanmean(standard)), left_out)


@dataclasses.dataclass(frozen=True, eq=False)
class Scale:
    """Mean and standard deviation of each class's scores, (C,)."""

    mean: np.ndarray
    deviation: np.ndarray


def standard_scale(scores: Scores) -> Scale:
    """Returns the scale of scores (N, C); the deviation of equal scores is 1."""

    def of_classes(columns: slice) -> tuple[np.ndarray, np.ndarray]:
        own = np.ascontiguousarray(scores[:, columns])
        return own.mean(axis=0, dtype=np.float64), own.std(axis=0, dtype=np.float64)

    blocks = in_threads(of_classes, column_blocks(scores.shape))
    mean, deviation = (np.concatenate(own) for own in zip(*blocks, strict=True))
    return Scale(mean, np.where(deviation > 0, deviation, 1.0))
