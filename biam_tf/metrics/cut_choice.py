"""Chooses the cuts of seen classes on photos that are left out of the choice."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from biam_tf.metrics.calibration import fit_classes_to
from biam_tf.metrics.cuts import TagCounts, Target
from biam_tf.metrics.labeled_scores import Entries, LabeledScores
from biam_tf.metrics.slices import column_blocks, in_threads
from biam_tf.metrics.stored_scores import Scores, by_class
from biam_tf.sparse_labels import Labels, as_sparse


def reason_not_to_fit(labels: Labels | ArrayLike, groups: Sequence[str]) -> str | None:
    """Returns why thresholds cannot be fitted to labels (N, C); None if they can."""
    seen = np.flatnonzero(np.asarray(groups, dtype=object) == "seen")
    own = as_sparse(labels).columns(seen)
    labeled = int(np.count_nonzero(own.count(0, axis=1) < len(seen)))
    if labeled < 2:
        return f"{labeled} validation photos have labels of seen classes; at least 2 are needed"
    if not own.count(1, axis=0).any():
        return "no validation photo shows a seen class"
    if not own.count(-1, axis=0).any():
        return (
            "no validation photo is known not to show a seen class (labels name only what is "
            "present), or every one shows all of them"
        )
    return None


@dataclasses.dataclass(frozen=True, eq=False)
class Cuts:
    """Means over the folds; `own` is (S,), NaN if the global cut is as good or better.

    The scores of `logits` are the logits of each photo by the calibration that did not see it.
    """

    own: np.ndarray
    logit: float
    standardized: float
    logits: LabeledScores


def choose_cuts(
    labeled: LabeledScores,
    columns_of: Callable[[slice], tuple[np.ndarray, np.ndarray]],
    scale: "Scale",
    fold_of: np.ndarray,
    positives: np.ndarray,
    own_positives: int,
    target: Target,
) -> Cuts:
    """Chooses cuts on all folds but one and evaluates them on that one, for each fold.

    Args:
        labeled: the known labels of S classes.
        columns_of: scores (N, s) and labels (N, s) of some of the S classes.
        scale: of the S classes.
        fold_of: (N,) the fold of each photo; -1 for photos without a label.
        positives: (S,) the number of photos that show each class.
        own_positives: the number that a class needs for a cut of its own.
        target: of the cuts.
    """
    folds, classes = fold_of.max() + 1, len(positives)
    logits, standard = np.full(folds, np.nan), np.full(folds, np.nan)
    slopes, offsets = np.empty(folds), np.empty((folds, classes))
    for fold in range(folds):
        rest = labeled.of_photos(fold_of != fold)
        fitted = fit_classes_to(rest, classes)
        slopes[fold], offsets[fold] = fitted.slope, fitted.offsets
        logits[fold] = target.cut_of(rest.changed(fitted.of_entries))
        standard[fold] = target.cut_of(
            rest.changed(lambda own: own.scored(scale.standardized(own.scores, own.classes)))
        )
    own = _own_cuts(
        columns_of, fold_of, np.flatnonzero(positives >= own_positives), classes, target
    )

    def left_out(entries: Entries) -> Entries:
        fold = fold_of[entries.photos]
        return entries.scored(slopes[fold] * entries.scores + offsets[fold, entries.classes])

    def count(entries: Entries) -> np.ndarray:
        fold = fold_of[entries.photos]
        # Without a cut (NaN), no tags.
        tags = (
            entries.scores >= own[fold, entries.classes],
            left_out(entries).scores >= logits[fold],
            np.ones(len(fold), bool),
        )
        kinds = [kind for given in tags for kind in (given, given & entries.present)]
        return np.stack([np.bincount(entries.classes[k], minlength=classes) for k in kinds])

    counts = np.sum(labeled.each(count), axis=0)
    better = target.is_better(
        TagCounts(counts[0], counts[1], counts[5]), TagCounts(counts[2], counts[3], counts[5])
    )
    kept = np.full(classes, np.nan)
    kept[better] = np.nanmean(own[:, better], axis=0)
    return Cuts(
        kept, float(np.nanmean(logits)), float(np.nanmean(standard)), labeled.changed(left_out)
    )


def _own_cuts(
    columns_of: Callable[[slice], tuple[np.ndarray, np.ndarray]],
    fold_of: np.ndarray,
    chosen: np.ndarray,
    classes: int,
    target: Target,
) -> np.ndarray:
    """The cuts (folds, S) of some classes by the photos outside of each fold, NaN of the others."""
    own = np.full((fold_of.max() + 1, classes), np.nan)

    def of_classes(columns: slice) -> None:
        here = chosen[(chosen >= columns.start) & (chosen < columns.stop)]
        if not len(here):
            return
        scores, labels = (by_class(x) for x in columns_of(columns))
        for c in here.tolist():
            labeled = np.flatnonzero(labels[c - columns.start])
            values, truth = (x[c - columns.start][labeled] for x in (scores, labels))
            for fold in range(len(own)):
                rest = fold_of[labeled] != fold
                own[fold, c] = target.cut(values[rest], truth[rest])

    in_threads(of_classes, column_blocks((len(fold_of), classes)))
    return own


@dataclasses.dataclass(frozen=True, eq=False)
class Scale:
    """Mean and standard deviation of each class's scores, (C,)."""

    mean: np.ndarray
    deviation: np.ndarray

    def of(self, classes: np.ndarray) -> "Scale":
        """Returns the scale of some classes."""
        return Scale(self.mean[classes], self.deviation[classes])

    def standardized(self, scores: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """Returns scores (M,) of classes (M,) in deviations from the mean."""
        return (scores - self.mean[classes]) / self.deviation[classes]


def standard_scale(scores: Scores) -> Scale:
    """Returns the scale of scores (N, C); the deviation of equal scores is 1."""

    def of_classes(columns: slice) -> tuple[np.ndarray, np.ndarray]:
        own = np.ascontiguousarray(scores[:, columns])
        return own.mean(axis=0, dtype=np.float64), own.std(axis=0, dtype=np.float64)

    blocks = in_threads(of_classes, column_blocks(scores.shape))
    mean, deviation = (np.concatenate(own) for own in zip(*blocks, strict=True))
    return Scale(mean, np.where(deviation > 0, deviation, 1.0))
