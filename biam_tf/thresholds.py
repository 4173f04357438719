"""Calibrated probabilities and a threshold for each class, fitted on validation photos.

The scores of a ranking model only rank. Two things are fitted to the scores of validation photos:

*Calibration.* The probability that seen class c is in a photo with score s is
sigmoid(a s + b + d_c), the most probable fit to the labels of all seen classes together, with a
normal prior of mean 0 and standard deviation 1 on the d: many labels shift a class far, few hardly
at all. Labels enter as Platt's smoothed targets. For a run, the logit is then corrected by a slope
and an offset, fitted to photos left out, where the probability is large enough to be shown. Classes
that were not trained, the unseen ones and those that a request names, have no labels to fit to:
their rule is learnt from trainings that leave out some of the seen classes
(`biam_tf.metrics.held_out`), and is a sigmoid of the score as well. Without such trainings they
have no probability (NaN).

*Thresholds.* A class is a tag if its score reaches its threshold. Photos are split into folds; each
fold in turn is left out and thresholds ("cuts") are chosen on the others, for the best F1 or for a
precision (`biam_tf.metrics.cuts.Target`). "global": the best probability over all labels of seen
classes together. "own": for each seen class with at least `OWN_POSITIVES` photos, the best score of
this class. Both are evaluated on the fold left out. A class keeps its own cut, the mean over the
folds, only if it was better on the photos left out; all other seen classes take the global one, the
mean over the folds, through their own calibration. "held_out": classes that were not trained take
the best cut of the classes left out of training. Without these, unseen classes take the
"standardized" one: scores are standardized by their mean and standard deviation over the validation
photos, and the cut is the best one over the seen classes' standardized scores.

**No label of an unseen class is used**, though validation photos may have them; of unseen classes
at most the scores are used.

One further number does come from labels of unseen classes, if validation photos have any: the
constant of calibrated stacking (`biam_tf.metrics.stacking`). Nothing else depends on it.
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
from biam_tf.metrics.calibration import fit_classes_to, fit_global_to, sigmoid
from biam_tf.metrics.cut_choice import Cuts, choose_cuts, reason_not_to_fit, standard_scale
from biam_tf.metrics.cuts import F1, Target, best_cut
from biam_tf.metrics.held_out import HeldOutFit, HeldOutFold, LogitRule, correcting, fit_held_out
from biam_tf.metrics.labeled_scores import LabeledScores
from biam_tf.metrics.stacking import seen_unseen_curve
from biam_tf.metrics.stored_scores import Scores, as_scores, columns_of
from biam_tf.sparse_labels import Labels, SparseLabels, as_sparse
from biam_tf.vocabulary import Vocabulary

FOLDS = 5
# A cut chosen on fewer photos is mostly chance.
OWN_POSITIVES = 8
FORMAT = 2
# As 1, in which all classes have a calibration, and new ones the global one.
READ_FORMATS = (1, FORMAT)
OWN, GLOBAL, STANDARDIZED, HELD_OUT = "own", "global", "standardized", "held_out"

__all__ = ["Thresholds", "best_cut", "fit_thresholds", "reason_not_to_fit"]


@dataclasses.dataclass(frozen=True, eq=False)
class Thresholds:
    """Calibration and thresholds of a vocabulary.

    Attributes:
        names: C class names.
        cuts: (C,) float64; a class is a tag if its score is at least this.
        slopes: (C,) float64, of each class's calibration, positive; NaN: it has none.
        offsets: (C,) float64, of each class's calibration; NaN: it has none.
        sources: (C,) "own", "global", "held_out" or "standardized": how the cut was chosen.
        global_slope: calibration of the scores of all seen classes together.
        global_offset: likewise.
        global_logit: the global cut, as the logit of a probability.
        fitted_on: facts about the fit, ready for JSON.
        stacking: `{"constant", "k", "labels_of_unseen_classes"}`; None: the validation photos show
            no unseen class.
        new_classes: calibration of classes that are not among the names, by their similarity to the
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
        """The global cut as a score, by the calibration of all seen classes together."""
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
        """Returns the thresholds of other names; new classes take those of `rule`.

        If that depends on the similarity to seen classes, they count as the least alike.
        """
        rows = rows_of(names, self.names)
        # All new classes take the entry that is appended to those of the known ones.
        indices = [len(self.names) if row is None else row for row in rows]
        new = self.rule(self.rule.similarity[:1])
        source = self.fitted_on.get("new_classes", GLOBAL)
        return dataclasses.replace(
            self,
            names=tuple(names),
            cuts=np.append(self.cuts, new.cuts)[indices],
            slopes=np.append(self.slopes, new.slopes)[indices],
            offsets=np.append(self.offsets, new.offsets)[indices],
            sources=tuple((*self.sources, source)[i] for i in indices),
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
            "1 / (1 + exp(-(slope * score + offset))), and unknown where these are null. Classes "
            "that are not listed take new_classes; where that is null, global.",
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
            if value["format"] not in READ_FORMATS:
                raise ValueError(
                    f"format {value['format']}, this version reads formats up to {FORMAT}"
                )
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


@dataclasses.dataclass(frozen=True, eq=False)
class Fitting:
    """How a run's thresholds are fitted, beyond the defaults of `fit_thresholds`.

    Attributes:
        target: of the cuts.
        held_out: scores of the validation photos by trainings without some of the seen classes;
            empty: there are none, and untrained classes get no probability.
        share_of_unseen: number of unseen classes over that of all, where the validation photos are
            known to show none; None: they show them as other photos do.
        is_trained: whether the system was trained; where not, labels of seen classes tell as much
            about all others.
        is_corrected: whether the calibration of seen classes is corrected on photos left out.
        fewest_photos: with fewer labeled photos, no class gets a probability.
    """

    target: Target = F1
    held_out: Sequence[HeldOutFold] = ()
    share_of_unseen: float | None = None
    is_trained: bool = True
    is_corrected: bool = False
    fewest_photos: int = 0


def fit_thresholds(
    scores: Scores | ArrayLike,
    labels: Labels | ArrayLike,
    names: Sequence[str],
    groups: Sequence[str],
    folds: int = FOLDS,
    seed: int = 0,
    k: int = 3,
    own_positives: int = OWN_POSITIVES,
    fitting: Fitting | None = None,
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
        fitting: the target, and what is known of untrained classes; None: the defaults.

    Raises:
        UserError: for a `reason_not_to_fit`.
    """
    scores, labels, fitting = as_scores(scores), as_sparse(labels), fitting or Fitting()
    seen = np.flatnonzero(np.asarray(groups, dtype=object) == "seen")
    reason = reason_not_to_fit(labels, groups)
    if reason:
        raise UserError(f"thresholds: {reason}")
    scale = standard_scale(scores)
    own_labels = labels.columns(seen)
    known = len(seen) - own_labels.count(0, axis=1)
    own_scores = LabeledScores(scores, labels, seen).kept_if_few(int(known.sum()))
    photos, positives = np.flatnonzero(known), own_labels.count(1, axis=0)
    folds = min(folds, len(photos))
    fold_of = np.full(len(labels), -1)
    fold_of[photos] = np.random.default_rng(seed).permutation(np.arange(len(photos)) % folds)

    def of_classes(some: slice) -> tuple[np.ndarray, np.ndarray]:
        return columns_of(scores, seen[some]), own_labels[:, some]

    own = own_scores, of_classes, scale.of(seen), fold_of, positives, own_positives
    chosen = choose_cuts(*own, fitting.target)
    calibration = fit_classes_to(own_scores, len(seen))
    general = LogitRule(*fit_global_to(own_scores))
    correction = correcting(chosen.logits) if fitting.is_corrected else LogitRule(1.0, 0.0)
    has_own, logit = ~np.isnan(chosen.own), correction.of(chosen.logit)
    untrained = _fit_untrained(fitting, labels, general, chosen)
    if untrained.fit is not None and untrained.fit.trained is not None:
        # The photos to be tagged differ from those of validation, and so do their best cuts.
        correction, logit = untrained.fit.trained, untrained.fit.trained_cut
        has_own[:] = False

    # The values of unseen classes; those of seen ones are then replaced.
    cuts = np.full(len(groups), untrained.cut)
    if untrained.source == STANDARDIZED:
        cuts = scale.mean + scale.deviation * chosen.standardized
    slopes = np.full(len(groups), untrained.slope)
    offsets = np.full(len(groups), untrained.offset)
    slopes[seen] = correction.slope * calibration.slope
    offsets[seen] = correction.of(calibration.offsets)
    cuts[seen] = np.where(has_own, chosen.own, (logit - offsets[seen]) / slopes[seen])
    sources = np.full(len(groups), untrained.source, dtype=object)
    sources[seen] = np.where(has_own, OWN, GLOBAL)
    new_slope, new_offset = untrained.slope, untrained.offset
    if len(photos) < fitting.fewest_photos:
        slopes[:], offsets[:], new_slope, new_offset = (np.nan,) * 4
    return Thresholds(
        names=tuple(names),
        cuts=cuts,
        slopes=slopes,
        offsets=offsets,
        sources=tuple(sources),
        global_slope=correction.slope * general.slope,
        global_offset=correction.of(general.offset),
        global_logit=logit,
        fitted_on={
            "images": len(photos),
            "fewest_images": fitting.fewest_photos,
            "folds": folds,
            "seed": seed,
            "target": str(fitting.target),
            "seen_classes": len(seen),
            "seen_classes_without_positives": int((positives == 0).sum()),
            "own_thresholds": int(has_own.sum()),
            "labels_of_unseen_classes": "not used",
            "held_out": untrained.facts(len(fitting.held_out)),
            "new_classes": GLOBAL if untrained.source == STANDARDIZED else untrained.source,
        },
        stacking=_best_stacking(scores, labels, groups, k),
        new_classes=NewClassRule.constant(new_slope, new_offset, untrained.cut),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _Untrained:
    """Calibration and cut of classes that were not trained, as for `Thresholds`."""

    slope: float
    offset: float
    cut: float
    source: str
    fit: HeldOutFit | None = None

    def facts(self, folds: int) -> dict | None:
        if self.fit is None:
            return None
        return {
            "folds": folds,
            "classes": self.fit.classes,
            "positives": self.fit.positives,
            "slope": self.fit.untrained.slope,
            "offset": self.fit.untrained.offset,
            "target_is_reached": self.fit.is_reached,
        }


def _fit_untrained(
    fitting: Fitting, labels: SparseLabels, general: LogitRule, chosen: Cuts
) -> _Untrained:
    """Returns the rule of untrained classes; `general` is the calibration of all seen classes."""
    fit = None
    if fitting.held_out:
        fit = fit_held_out(fitting.held_out, labels, fitting.target, fitting.share_of_unseen)
    if fit is not None:
        slope, offset = fit.untrained.slope * general.slope, fit.untrained.of(general.offset)
        return _Untrained(slope, offset, (fit.cut - offset) / slope, HELD_OUT, fit)
    cut = (chosen.logit - general.offset) / general.slope
    if not fitting.is_trained:
        return _Untrained(general.slope, general.offset, cut, GLOBAL)
    return _Untrained(np.nan, np.nan, cut, STANDARDIZED)


def _best_stacking(
    scores: Scores, labels: SparseLabels, groups: Sequence[str], k: int
) -> dict | None:
    unseen = labels.count(1, axis=0)[np.asarray(groups, dtype=object) == "unseen"].sum()
    if not unseen or k > len(groups):
        return None
    constant = seen_unseen_curve(scores, labels, groups, k).best_constant()
    return {"constant": constant, "k": k, "labels_of_unseen_classes": int(unseen)}
