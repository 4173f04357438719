"""Calibrated probabilities and a threshold for each class, fitted on validation photos.

The scores of a ranking model only rank. Two things are fitted to the scores of validation photos:

*Calibration.* The probability that seen class c is in a photo with score s is
sigmoid(a s + b + d_c), the most probable fit to the labels of all seen classes together, with a
normal prior of mean 0 and standard deviation 1 on the d: many labels shift a class far, few hardly
at all. An unseen class has no labels to fit to, and its scores may be lower or higher than others:
they are standardized by their own mean and standard deviation over the validation photos, and the
probability is sigmoid(a z + b), fitted to the seen classes' standardized scores (Platt scaling).
A class that is added later has no scores yet: sigmoid(a s + b), fitted to the seen classes' raw
scores. Labels enter as Platt's smoothed targets.

*Thresholds.* A class is a tag if its score reaches its threshold. Photos are split into folds; each
fold in turn is left out and thresholds ("cuts") are chosen on the others. "global": the
probability with the best F1 over all labels of seen classes together. "own": for each seen class
with at least `OWN_POSITIVES` photos, the score with the best F1 of this class. Both are evaluated
on the fold left out. A class keeps its own cut, the mean over the folds, only if it has the better
F1 on the photos left out; all other seen classes take the global one, the mean over the folds,
through their own calibration. "standardized": unseen classes take the standardized score with the
best F1 over the seen classes' standardized scores, the mean over the folds.

**No label of an unseen class is used**, though validation photos may have them; of unseen classes
only the scores are used.

One further number does come from labels of unseen classes, if validation photos have any: the
constant of calibrated stacking (`biam_tf.metrics.stacking`), which tells how far apart the scores
of the two groups are. Nothing else depends on it.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from biam_tf.class_calibration import (
    ClassCalibration,
    NewClassRule,
    calibrate_classes,
    number_or_null,
    rows_of,
)
from biam_tf.errors import UserError
from biam_tf.metrics.calibration import fit_classes, fit_global, sigmoid
from biam_tf.metrics.slices import column_blocks, in_threads, row_blocks
from biam_tf.metrics.stacking import seen_unseen_curve
from biam_tf.metrics.stored_scores import Scores, as_scores
from biam_tf.vocabulary import Vocabulary

FOLDS = 5
# A cut chosen on fewer photos is mostly chance.
OWN_POSITIVES = 8
FORMAT = 1
OWN, GLOBAL, STANDARDIZED = "own", "global", "standardized"


@dataclasses.dataclass(frozen=True, eq=False)
class Thresholds:
    """Calibration and thresholds of a vocabulary.

    Attributes:
        names: C class names.
        cuts: (C,) float64; a class is a tag if its score is at least this.
        slopes: (C,) float64, of each class's calibration, positive.
        offsets: (C,) float64, of each class's calibration.
        sources: (C,) "own", "global" or "standardized": how the cut was chosen.
        global_slope: calibration of classes that are not among the names.
        global_offset: likewise.
        global_logit: the global cut, as the logit of a probability.
        fitted_on: facts about the fit, ready for JSON.
        stacking: `{"constant", "k", "labels_of_unseen_classes"}`; None: the validation photos show
            no unseen class.
        new_classes: calibration of classes that are not among the names, by their likeness to the
            seen ones; None: the global one, whatever they are like.
    """

    names: tuple[str, ...]
    cuts: np.ndarray
    slopes: np.ndarray
    offsets: np.ndarray
    sources: tuple[str, ...]
    global_slope: float
    global_offset: float
    global_logit: float
    fitted_on: dict
    stacking: dict | None = None
    new_classes: NewClassRule | None = None

    @property
    def global_cut(self) -> float:
        """The cut of classes that are not among the names."""
        return (self.global_logit - self.global_offset) / self.global_slope

    @property
    def global_probability(self) -> float:
        """The global cut as a calibrated probability."""
        return float(sigmoid(self.global_logit))

    @property
    def own(self) -> ClassCalibration:
        """The calibration of the names, in their order."""
        return ClassCalibration(self.slopes, self.offsets, self.cuts)

    @property
    def rule(self) -> NewClassRule:
        """The calibration of classes that are not among the names."""
        if self.new_classes is not None:
            return self.new_classes
        return NewClassRule.constant(self.global_slope, self.global_offset, self.global_cut)

    def for_classes(
        self, names: Sequence[str] | None, class_embeddings: np.ndarray, own: Vocabulary
    ) -> ClassCalibration:
        """Returns the calibration of any classes, by the rule of `biam_tf.class_calibration`.

        Args:
            names: of C classes; None: they have none, and all are new to the model.
            class_embeddings: (C, d_a).
            own: the vocabulary of the model, with its seen classes.
        """
        rows: list[int | None] = [None] * len(class_embeddings)
        rows = rows if names is None else rows_of(names, self.names)
        seen = own.embeddings[np.array(own.groups, dtype=object) == "seen"]
        return calibrate_classes(rows, self.own, self.rule, class_embeddings, seen)

    def for_names(self, names: Sequence[str]) -> "Thresholds":
        """Returns the thresholds of other names; new classes take the global ones."""
        rows = rows_of(names, self.names)
        # All new classes take the entry that is appended to those of the known ones.
        indices = [len(self.names) if row is None else row for row in rows]
        return dataclasses.replace(
            self,
            names=tuple(names),
            cuts=np.append(self.cuts, self.global_cut)[indices],
            slopes=np.append(self.slopes, self.global_slope)[indices],
            offsets=np.append(self.offsets, self.global_offset)[indices],
            sources=tuple((*self.sources, GLOBAL)[i] for i in indices),
        )

    def decide(self, scores: ArrayLike) -> np.ndarray:
        """Returns which classes are tags, (..., C) bool, for scores (..., C)."""
        return self.own.decide(scores)

    def probabilities(self, scores: ArrayLike) -> np.ndarray:
        """Returns the probability of each class, (..., C) float64, for scores (..., C)."""
        return self.own.probabilities(scores)

    def to_json(self) -> str:
        """Returns the text of a `thresholds.json`, which `load` reads."""
        classes = [
            {
                "name": name,
                "threshold": number_or_null(self.cuts[i]),
                "slope": number_or_null(self.slopes[i]),
                "offset": number_or_null(self.offsets[i]),
                "from": self.sources[i],
            }
            for i, name in enumerate(self.names)
        ]
        value = {
            "format": FORMAT,
            "about": "A class is a tag where score >= threshold; its probability is "
            "1 / (1 + exp(-(slope * score + offset))). Others: new_classes, if null global.",
            "global": {
                "threshold": self.global_cut,
                "slope": self.global_slope,
                "offset": self.global_offset,
                "probability": self.global_probability,
                "logit": self.global_logit,
            },
            "fitted_on": self.fitted_on,
            "stacking": self.stacking,
            "new_classes": None if self.new_classes is None else self.new_classes.to_json(),
            "classes": classes,
        }
        return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Thresholds":
        """Reads a `thresholds.json`.

        Raises:
            UserError: the file has another format.
        """
        try:
            value = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
            if value["format"] != FORMAT:
                raise ValueError(f"format {value['format']}, this version reads {FORMAT}")
            classes, rule = value["classes"], value.get("new_classes")
            return cls(
                names=tuple(entry["name"] for entry in classes),
                cuts=np.array([entry["threshold"] for entry in classes], np.float64),
                slopes=np.array([entry["slope"] for entry in classes], np.float64),
                offsets=np.array([entry["offset"] for entry in classes], np.float64),
                sources=tuple(entry["from"] for entry in classes),
                global_slope=float(value["global"]["slope"]),
                global_offset=float(value["global"]["offset"]),
                global_logit=float(value["global"]["logit"]),
                fitted_on=value["fitted_on"],
                stacking=value["stacking"],
                new_classes=None if rule is None else NewClassRule.from_json(rule),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            reason = "nested too deeply" if isinstance(error, RecursionError) else error
            raise UserError(
                f"{path}: not a file of thresholds ({reason}); bring it back from a copy, or "
                "delete it to go on without thresholds"
            ) from error


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


def fit_thresholds(
    scores: Scores | ArrayLike,
    labels: ArrayLike,
    names: Sequence[str],
    groups: Sequence[str],
    folds: int = FOLDS,
    seed: int = 0,
    k: int = 3,
    own_positives: int = OWN_POSITIVES,
) -> Thresholds:
    """Fits calibration and thresholds to the scores of validation photos (see the module).

    Args:
        scores: (N, C) floating scores.
        labels: (N, C) of +1, -1, 0; only those of seen classes are used.
        names: C class names.
        groups: "seen" or "unseen" for each class.
        folds: number of parts that the photos are split into; at most one per photo.
        seed: of the split.
        k: number of classes a photo is given to find the constant of stacking.
        own_positives: number of photos that must show a class for a cut of its own.

    Raises:
        UserError: for a `reason_not_to_fit`.
    """
    scores, labels = as_scores(scores), np.asarray(labels)
    seen = np.flatnonzero(np.asarray(groups, dtype=object) == "seen")
    reason = reason_not_to_fit(labels, groups)
    if reason:
        raise UserError(f"thresholds: {reason}")
    scale = _standard_scale(scores)
    labeled = (labels[:, seen] != 0).any(axis=1)
    own_scores = np.concatenate(
        [scores[rows][labeled[rows]][:, seen].astype(np.float64) for rows in row_blocks(scores)]
    )
    own_labels = labels[labeled][:, seen]
    standardized = (own_scores - scale.mean[seen]) / scale.deviation[seen]
    folds = min(folds, len(own_scores))
    fold_of = np.random.default_rng(seed).permutation(np.arange(len(own_scores)) % folds)
    chosen = _choose_cuts(own_scores, standardized, own_labels, fold_of, own_positives)

    # The values of unseen classes; those of seen ones are then replaced.
    slope, offset = fit_global(standardized, own_labels)
    slopes = slope / scale.deviation
    offsets = offset - slopes * scale.mean
    cuts = scale.mean + scale.deviation * chosen.standardized
    calibration = fit_classes(own_scores, own_labels)
    slopes[seen], offsets[seen] = calibration.slope, calibration.offsets
    has_own = ~np.isnan(chosen.own)
    cuts[seen] = np.where(
        has_own, chosen.own, (chosen.logit - calibration.offsets) / calibration.slope
    )
    sources = np.full(len(groups), STANDARDIZED, dtype=object)
    sources[seen] = np.where(has_own, OWN, GLOBAL)
    global_slope, global_offset = fit_global(own_scores, own_labels)
    return Thresholds(
        names=tuple(names),
        cuts=cuts,
        slopes=slopes,
        offsets=offsets,
        sources=tuple(sources),
        global_slope=global_slope,
        global_offset=global_offset,
        global_logit=chosen.logit,
        fitted_on={
            "images": len(own_scores),
            "folds": folds,
            "seed": seed,
            "seen_classes": len(seen),
            "seen_classes_without_positives": int((~(own_labels > 0).any(axis=0)).sum()),
            "own_thresholds": int(has_own.sum()),
            "labels_of_unseen_classes": "not used",
        },
        stacking=_best_stacking(scores, labels, groups, k),
    )


def _best_stacking(
    scores: Scores, labels: np.ndarray, groups: Sequence[str], k: int
) -> dict | None:
    unseen = (labels[:, np.asarray(groups, dtype=object) == "unseen"] > 0).sum()
    if not unseen or k > len(groups):
        return None
    constant = seen_unseen_curve(scores, labels, groups, k).best_constant()
    return {"constant": constant, "k": k, "labels_of_unseen_classes": int(unseen)}


def best_cut(scores: ArrayLike, labels: ArrayLike) -> float:
    """Returns the cut with the best F1: tags are the entries whose score is at least the cut.

    It lies halfway between two neighboring scores (or is the lowest score, if all are tags); of
    equally good cuts it is the highest. NaN without a positive.

    Args:
        scores: floating scores of any shape.
        labels: +1, -1, 0 (left out), of the same shape.
    """
    scores, labels = np.asarray(scores, np.float64).ravel(), np.asarray(labels).ravel()
    labeled = np.flatnonzero(labels)
    order = labeled[np.argsort(-scores[labeled], kind="stable")]
    ranked, hits = scores[order], np.cumsum(labels[order] > 0)
    if not len(hits) or not hits[-1]:
        return np.nan
    ends = np.append(ranked[:-1] != ranked[1:], True)  # no cut separates equal scores
    f1 = np.where(ends, 2 * hits / (np.arange(1, len(hits) + 1) + hits[-1]), -1.0)
    last = int(np.argmax(f1))
    following = ranked[min(last + 1, len(ranked) - 1)]
    return float((ranked[last] + following) / 2)


@dataclasses.dataclass(frozen=True, eq=False)
class _Cuts:
    """Means over the folds; `own` is (S,), NaN if the global cut is as good or better."""

    own: np.ndarray
    logit: float
    standardized: float


def _choose_cuts(
    scores: np.ndarray,
    standardized: np.ndarray,
    labels: np.ndarray,
    fold_of: np.ndarray,
    own_positives: int,
) -> _Cuts:
    """Chooses cuts on all folds but one and evaluates them on that one, for each fold."""
    folds = fold_of.max() + 1
    own = np.full((folds, scores.shape[1]), np.nan)
    logits, standard = np.full(folds, np.nan), np.full(folds, np.nan)
    own_tags, global_tags = np.zeros(labels.shape, bool), np.zeros(labels.shape, bool)
    for fold in range(folds):
        out, rest = fold_of == fold, fold_of != fold
        fitted = fit_classes(scores[rest], labels[rest])
        logits[fold] = best_cut(fitted.logits(scores[rest]), labels[rest])
        standard[fold] = best_cut(standardized[rest], labels[rest])
        for c in np.flatnonzero((labels > 0).sum(axis=0) >= own_positives):
            own[fold, c] = best_cut(scores[rest, c], labels[rest, c])
        # Without a cut (NaN), no tags.
        global_tags[out] = fitted.logits(scores[out]) >= logits[fold]
        own_tags[out] = scores[out] >= own[fold]
    better = _f1(own_tags, labels) > _f1(global_tags, labels)
    kept = np.full(scores.shape[1], np.nan)
    kept[better] = np.nanmean(own[:, better], axis=0)
    return _Cuts(kept, float(np.nanmean(logits)), float(np.nanmean(standard)))


@dataclasses.dataclass(frozen=True, eq=False)
class _Scale:
    """Mean and standard deviation of each class's scores, (C,)."""

    mean: np.ndarray
    deviation: np.ndarray


def _standard_scale(scores: Scores) -> _Scale:
    def of_classes(columns: slice) -> tuple[np.ndarray, np.ndarray]:
        own = np.ascontiguousarray(scores[:, columns])
        return own.mean(axis=0, dtype=np.float64), own.std(axis=0, dtype=np.float64)

    blocks = in_threads(of_classes, column_blocks(scores.shape))
    mean, deviation = (np.concatenate(own) for own in zip(*blocks, strict=True))
    return _Scale(mean, np.where(deviation > 0, deviation, 1.0))


def _f1(tags: np.ndarray, labels: np.ndarray) -> np.ndarray:
    present = labels > 0
    right = (tags & present).sum(axis=0)
    total = (tags & (labels != 0)).sum(axis=0) + present.sum(axis=0)
    return np.divide(2.0 * right, total, out=np.zeros(len(total)), where=total > 0)
