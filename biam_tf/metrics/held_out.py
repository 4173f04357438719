"""What scores of untrained classes mean, learnt from trainings that left out some seen classes.

Scores of two trainings are not on one scale, so both are first expressed as the logit that the
calibration of the *trained* classes gives them: l = a s + b, fitted to these classes' labels by
`fit_global_to`. Of a fold's held-out classes, the labels then tell how far such a logit is to be
believed where the class was not trained:

    P(class is present) = sigmoid(slope l + offset)

fitted to all held-out classes of all folds together. The rule is applied to the run's own a and b.
It depends on no property of a class, so that it holds for one that a request names as well.

Where the validation photos are known to show no unseen class, photos to be tagged differ from them
in two ways. First, objects of unseen classes look like those of seen classes, which nothing among
the validation photos does. In a fold, the objects of held-out classes do: the same two numbers are
fitted for the trained classes, on photos weighted so that held-out classes have the share of labels
that unseen classes have of all classes. Second, labels spread over more classes, each of which is
rarer by the same factor; its logarithm is added to the offsets.
"""

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from biam_tf.arrays import open_npz
from biam_tf.errors import UserError
from biam_tf.files import replacing
from biam_tf.metrics.calibration import MIN_SLOPE, fit_global_to, sigmoid
from biam_tf.metrics.cuts import Target
from biam_tf.metrics.labeled_scores import Entries, LabeledScores
from biam_tf.sparse_labels import Labels, SparseLabels, as_sparse

# Nearly all labels have lower probabilities, which are not shown to anybody but would decide the
# slope.
LEAST_SHOWN = 0.05
# With fewer tags of a probability of at least 0.5 there is nothing to be more exact about, and too
# little to learn it from.
FEWEST_TAGS = 100

Logits = TypeVar("Logits", float, np.ndarray)


@dataclasses.dataclass(frozen=True, eq=False)
class HeldOutFold:
    """Scores of validation photos by a model that was trained without some of the seen classes.

    Attributes:
        rows: (N,) positions of the photos in the validation split.
        columns: (S,) positions of the seen classes in the vocabulary.
        held_out: (S,) bool, the classes that were left out.
        scores: (N, S) float32.
    """

    rows: np.ndarray
    columns: np.ndarray
    held_out: np.ndarray
    scores: np.ndarray

    def save(self, path: str | os.PathLike) -> None:
        """Writes the scores as a compressed `.npz`."""
        with replacing(path) as partial, partial.open("wb") as file:
            np.savez_compressed(file, **dataclasses.asdict(self))

    @classmethod
    def load(cls, path: str | os.PathLike) -> "HeldOutFold":
        """Reads what `save` has written.

        Raises:
            UserError: the file is damaged.
        """
        try:
            with open_npz(path) as stored:
                return cls(**{field.name: stored[field.name] for field in dataclasses.fields(cls)})
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise UserError(
                f"{path}: damaged ({error}); delete it, and train the fold again with the command "
                "of the run"
            ) from error
        except Exception as error:  # zipfile's and zlib's errors have no common base
            raise UserError(f"{path}: damaged ({error}); delete it") from error


def fold_file(folder: pathlib.Path, number: int) -> pathlib.Path:
    """Returns the file of a fold's scores; folds are numbered from 1 on."""
    return folder / f"fold_{number}.npz"


def read_folds(folder: pathlib.Path, count: int) -> list[HeldOutFold]:
    """Returns the scores of `count` folds; empty if one of them is missing.

    Raises:
        UserError: a file is damaged.
    """
    paths = [fold_file(folder, number + 1) for number in range(count)]
    return [HeldOutFold.load(path) for path in paths] if all(p.exists() for p in paths) else []


@dataclasses.dataclass(frozen=True)
class LogitRule:
    """Turns logits that hold for trained classes on validation photos into others.

    Attributes:
        slope: positive.
        offset: added.
    """

    slope: float
    offset: float

    def of(self, logits: Logits) -> Logits:
        """Returns the logits that the rule makes of logits of any shape."""
        return self.slope * logits + self.offset


@dataclasses.dataclass(frozen=True, eq=False)
class HeldOutFit:
    """What the folds tell.

    Attributes:
        untrained: the rule of classes that were not trained.
        trained: the rule of trained classes; None: validation photos are like others.
        cut: the logit, of `untrained`, from which on an untrained class is a tag.
        trained_cut: likewise of trained classes; NaN without `trained`.
        classes: number of classes that were held out, each counted once.
        positives: number of their labels of photos that show them.
        is_reached: whether some held-out label reaches the cut; a precision may be out of reach.
    """

    untrained: LogitRule
    trained: LogitRule | None
    cut: float
    trained_cut: float
    classes: int
    positives: int
    is_reached: bool


def fit_held_out(
    folds: Sequence[HeldOutFold],
    labels: Labels,
    target: Target,
    share_of_unseen: float | None = None,
) -> HeldOutFit | None:
    """Fits the rules to the scores of folds (see the module).

    Args:
        folds: of one run.
        labels: (N, C) of the validation split, +1, -1 or 0; those of seen classes are used.
        target: of the cut.
        share_of_unseen: number of unseen classes over that of all, where the validation photos
            are known to show none; None: they show them as other photos do.

    Returns:
        The rules; None if held-out classes have no positive or no negative label, or if scores
        of the trained classes tell nothing.
    """
    untrained: list[tuple[np.ndarray, ...]] = []
    trained: list[tuple[np.ndarray, ...]] = []
    held_out: set[int] = set()
    for fold in folds:
        of_photos = as_sparse(labels).rows(fold.rows).columns(fold.columns)
        shows_held_out = of_photos.columns(fold.held_out).count(1, axis=1) > 0
        # The run's own calibration is fitted to photos without unseen classes, if they are such.
        like_run = np.ones(len(of_photos), bool) if share_of_unseen is None else ~shows_held_out
        kept, left_out = (
            LabeledScores(fold.scores, of_photos, np.flatnonzero(own))
            for own in (~fold.held_out, fold.held_out)
        )
        present = kept.of_photos(like_run).each(lambda own: (own.present.any(), own.present.all()))
        if not any(some for some, _ in present) or all(every for _, every in present):
            return None
        slope, offset = fit_global_to(kept.of_photos(like_run))
        if slope * fold.scores.std(dtype=np.float64) <= 2 * MIN_SLOPE:
            return None
        untrained.append(_flat(left_out, slope, offset, np.ones(len(of_photos))))
        if share_of_unseen is not None:
            weight = _weight_of_held_out(of_photos, fold.held_out, share_of_unseen)
            trained.append(_flat(kept, slope, offset, np.where(shows_held_out, weight, 1.0)))
        held_out.update(fold.columns[fold.held_out].tolist())
    logits, own_labels, _ = (np.concatenate(parts) for parts in zip(*untrained, strict=True))
    if not (own_labels > 0).any() or not (own_labels < 0).any():
        return None
    rule = fit_shown(logits, own_labels)
    cut = target.cut(rule.of(logits), own_labels)
    rarer = 0.0 if share_of_unseen is None else float(np.log(1 - share_of_unseen))
    rule_of_trained, trained_cut = None, np.nan
    if trained:
        kept_logits, kept_labels, weights = (
            np.concatenate(parts) for parts in zip(*trained, strict=True)
        )
        rule_of_trained = fit_shown(kept_logits, kept_labels, weights)
        trained_cut = target.cut(rule_of_trained.of(kept_logits), kept_labels, weights)
        rule_of_trained = dataclasses.replace(
            rule_of_trained, offset=rule_of_trained.offset + rarer
        )
    return HeldOutFit(
        untrained=dataclasses.replace(rule, offset=rule.offset + rarer),
        trained=rule_of_trained,
        cut=cut,
        trained_cut=trained_cut,
        classes=len(held_out),
        positives=int((own_labels > 0).sum()),
        is_reached=bool((rule.of(logits) >= cut).any()),
    )


def fit_shown(
    logits: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None
) -> LogitRule:
    """Fits a rule to the labels whose probability may be shown.

    It is fitted to all labels first. If `FEWEST_TAGS` of them then have a probability of at least
    0.5, it is fitted again to those with at least `LEAST_SHOWN`, if these are not all the same.

    Args:
        logits: (M,) float64.
        labels: (M,) of +1, -1; not all the same.
        weights: (M,) of the labels; None: 1.
    """
    return _fit_shown_to(LabeledScores.of_arrays(logits, labels, weights))


def _fit_shown_to(logits: LabeledScores) -> LogitRule:
    slope, offset = fit_global_to(logits)

    def probabilities(own: Entries) -> np.ndarray:
        return sigmoid(slope * own.scores + offset)

    shown = logits.changed(lambda own: own.kept(probabilities(own) >= LEAST_SHOWN))
    tags = sum(logits.each(lambda own: int((probabilities(own) >= 0.5).sum())))
    kinds = shown.each(lambda own: (int(own.present.sum()), int((~own.present).sum())))
    if tags >= FEWEST_TAGS and all(np.sum(kinds, axis=0)):
        slope, offset = fit_global_to(shown)
    return LogitRule(slope, offset)


def correcting(logits: LabeledScores) -> LogitRule:
    """Fits a rule as `fit_shown` does, to logits of photos that were left out of a calibration.

    With fewer than `FEWEST_TAGS` tags of a probability of at least 0.5, it changes nothing.
    """
    if sum(logits.each(lambda own: int((own.scores >= 0).sum()))) < FEWEST_TAGS:
        return LogitRule(1.0, 0.0)
    return _fit_shown_to(logits)


def _flat(
    labeled: LabeledScores, slope: float, offset: float, weights: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Returns the logits, labels and weights of what is labeled, each (M,); photos have weights."""
    own = labeled.joined()
    labels = np.where(own.present, np.int8(1), np.int8(-1))
    return slope * own.scores + offset, labels, weights[own.photos]


def _weight_of_held_out(labels: SparseLabels, held_out: np.ndarray, share: float) -> float:
    """Returns the weight of photos that show held-out classes, for these to have a share of labels.

    1 if no weight does it.
    """
    own = labels.columns(held_out).count(1, axis=1)
    every = labels.count(1, axis=1)
    shows = own > 0
    missing = own[shows].sum() - share * every[shows].sum()
    others = share * every[~shows].sum()
    return float(others / missing) if missing > 0 and others > 0 else 1.0
