"""Bootstrap intervals of mAP and F1@K, over the choice of the test photos.

A draw takes N of the N photos, with replacement. It is stored as a count for each photo, so that
each class is sorted once for all draws: a photo drawn w times is w neighbors in the ranking.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from biam_tf.metrics.figures_by_part import columns_of_parts
from biam_tf.metrics.precision_and_f1 import CLASS_CONVENTIONS, check_choice, labels_of_classes
from biam_tf.metrics.ranking import RightAmongBest, right_among_best
from biam_tf.metrics.slices import BLOCK_SIZE, column_blocks, in_threads
from biam_tf.metrics.stored_scores import Scores, as_scores, by_class
from biam_tf.sparse_labels import Labels, as_labels

RESAMPLES = 1000
MIN_RESAMPLES = 100
# With so many negatives, a draw has one of them for certain: it has none with probability e^-40.
_CERTAINLY_DRAWN = 40
# Limit of labels times draws: with more labels there are fewer draws. A thousand draws of Corel5k's
# 265,000 labels take two seconds.
_MAX_WORK = 2_000_000_000


@dataclasses.dataclass(frozen=True)
class Interval:
    """An interval about an estimate, fractions 0-1."""

    low: float
    high: float


def number_of_resamples(labels: Labels | ArrayLike) -> int:
    """Returns the number of draws for a test set: `RESAMPLES`, or fewer if it is very large."""
    labeled = int(labels_of_classes(labels)[0].sum())
    return int(np.clip(_MAX_WORK // max(1, labeled), MIN_RESAMPLES, RESAMPLES))


def draw_counts(images: int, resamples: int, seed: int) -> np.ndarray:
    """Returns the number of times each draw takes each photo, (images, resamples) int32."""
    rng = np.random.default_rng(seed)
    shares = np.full(images, 1 / images)
    counts = np.empty((images, resamples), np.int32)
    # A few draws at a time: they come in 8 bytes per number.
    at_once = max(1, BLOCK_SIZE // max(1, images))
    for first in range(0, resamples, at_once):
        own = counts[:, first : first + at_once]
        own[:] = rng.multinomial(images, shares, size=own.shape[1]).T
    return counts


def average_precision_of_draws(
    scores: Scores | ArrayLike, labels: Labels | ArrayLike, counts: np.ndarray
) -> np.ndarray:
    """Returns the average precision of each class in each draw, exactly.

    It is that of `biam_tf.metrics.average_precision` for the drawn photos in their order. For a
    positive drawn w times, with L labeled photos ranked before it and W of them negative, the
    precisions are (L - W + j) / (L + j) for j = 1..w; they sum to w - W (H(L + w) - H(L)), where
    H(n) is the n-th harmonic number.

    Args:
        scores: (N, C) floating scores.
        labels: (N, C) of +1, -1, 0.
        counts: (N, B), from `draw_counts`.

    Returns:
        (B, C) float64, NaN if a draw has no positive or no negative of a class.
    """
    return _average_precisions(as_scores(scores), as_labels(labels), [counts])[0]


def _average_precisions(
    scores: Scores, labels: Labels, draws: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """`average_precision_of_draws` for several `counts`; each class is sorted once for all."""
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, len(labels) + 1))])
    results = [np.full((counts.shape[1], labels.shape[1]), np.nan) for counts in draws]

    def of_class(c: int, own_scores: np.ndarray, own_labels: np.ndarray) -> None:
        labeled = np.flatnonzero(own_labels)
        ranked = labeled[np.argsort(-own_scores[labeled].astype(np.float64), kind="stable")]
        hits = np.flatnonzero(own_labels[ranked] > 0)
        for counts, result in zip(draws, results, strict=True):
            for some in column_blocks(counts.shape):
                drawn = counts[ranked, some]
                own = drawn[hits]  # (positives, draws)
                before = _drawn_before(drawn, hits)
                wrong = before - (np.cumsum(own, axis=0) - own)
                precisions = own - wrong * (harmonic[before + own] - harmonic[before])
                total, positives = precisions.sum(axis=0), own.sum(axis=0)
                is_defined = positives > 0
                if len(labeled) - len(hits) < _CERTAINLY_DRAWN:
                    is_defined &= drawn.sum(axis=0) > positives
                np.divide(total, positives, out=result[some, c], where=is_defined)

    def of_classes(columns: slice) -> None:
        own_scores, own_labels = by_class(scores[:, columns]), by_class(labels[:, columns])
        for i in np.flatnonzero((own_labels > 0).any(axis=1)):
            of_class(columns.start + i, own_scores[i], own_labels[i])

    in_threads(of_classes, column_blocks(labels.shape))
    return results


def bootstrap_intervals(
    scores: Scores | ArrayLike,
    labels: Labels | ArrayLike,
    groups: Sequence[str],
    k: int = 3,
    seed: int = 0,
    resamples: int | None = None,
    level: float = 0.95,
    classes_without_positives: str = "zero",
) -> dict[str, dict[str, Interval]]:
    """Returns intervals of the figures of `evaluate_scores`; F1@K leaves out photos as there.

    A draw's mAP is the mean over the classes it has a positive and a negative of, and if classes
    count as 0 in the whole test set, times the share of those that do not: a class whose few
    positives happen not to be drawn is left out. A draw in which a figure is undefined is left
    out as well. Repeated photos are neighbors in
    a ranking, which shifts average precision a little; the interval of the draws is therefore
    shifted so that its mean is the estimate.

    Args:
        scores: (N, C) floating scores.
        labels: (N, C) of +1, -1, 0.
        groups: "seen" or "unseen" for each class.
        k: of F1@K.
        seed: of the draws.
        resamples: number of draws; None: `number_of_resamples`.
        level: share of the draws within the interval.
        classes_without_positives: "zero" or "left_out" of mAP, as in `evaluate_scores`.

    Returns:
        `{"zsl": {"mAP": Interval, "F1@3": Interval}, "gzsl": ..., "seen": ...}`; a figure that is
        undefined is absent, and so is a part without a figure.
    """
    labels = as_labels(labels)
    counts = draw_counts(len(labels), resamples or number_of_resamples(labels), seed)
    return {
        part: {
            figure: _interval(values, estimate, level)
            for figure, (values, estimate) in figures.items()
        }
        for part, figures in _figures_of_draws(
            scores, labels, groups, k, counts, classes_without_positives
        ).items()
    }


@dataclasses.dataclass(frozen=True)
class Difference:
    """A second model's figure minus a first one's, fractions -1 to 1, with an interval."""

    estimate: float
    low: float
    high: float


def bootstrap_differences(
    scores: Sequence[Scores | ArrayLike],
    labels: Labels | ArrayLike,
    groups: Sequence[str],
    k: int = 3,
    seed: int = 0,
    resamples: int | None = None,
    level: float = 0.95,
    classes_without_positives: str = "zero",
) -> list[dict[str, dict[str, Difference]]]:
    """Returns intervals of the differences between models on the same photos.

    The models are compared draw by draw: photos that are hard for all of them do not widen the
    interval. A difference whose interval includes 0 may be due to the choice of the test photos.

    Args:
        scores: one array per model: (N, C), or (S, N, C) for S trainings of it, whose figures
            are averaged draw by draw.
        labels: (N, C) of +1, -1, 0.
        groups: "seen" or "unseen" for each class.
        k: of F1@K.
        seed: of the draws, which are the same for all models.
        resamples: number of draws; None: `number_of_resamples`.
        level: share of the draws within an interval.
        classes_without_positives: "zero" or "left_out" of mAP, as in `evaluate_scores`.

    Returns:
        For each model but the first, its differences from the first one, by part and figure as in
        `bootstrap_intervals`.
    """
    labels = as_labels(labels)
    counts = draw_counts(len(labels), resamples or number_of_resamples(labels), seed)
    first, *others = (
        _figures_of_draws(own, labels, groups, k, counts, classes_without_positives)
        for own in scores
    )
    result = []
    for other in others:
        differences: dict[str, dict[str, Difference]] = {}
        for part, figures in first.items():
            differences[part] = {}
            for figure, (draws, estimate) in figures.items():
                other_draws, other_estimate = other[part][figure]
                apart, gain = other_draws - draws, float(other_estimate - estimate)
                low, high = _quantiles(apart, gain, level)
                differences[part][figure] = Difference(gain, low, high)
        result.append(differences)
    return result


_FiguresOfDraws = dict[str, dict[str, tuple[np.ndarray, float]]]


def _figures_of_draws(
    scores: Scores | ArrayLike,
    labels: Labels,
    groups: Sequence[str],
    k: int,
    counts: np.ndarray,
    classes_without_positives: str,
) -> _FiguresOfDraws:
    """By part and figure, its value in each draw (B,) and in the whole test set.

    A value is NaN in a draw in which it is undefined.
    """
    check_choice("classes_without_positives", classes_without_positives, CLASS_CONVENTIONS)
    scores = as_scores(scores)
    if isinstance(scores, np.ndarray) and scores.ndim == 3:
        settings = labels, groups, k, counts, classes_without_positives
        return _mean_figures([_figures_of_draws(own, *settings) for own in scores])
    once = np.ones((len(labels), 1), np.int32)
    aps, whole = _average_precisions(scores, labels, [counts, once])
    has_positive = labels_of_classes(labels)[1] > 0
    parts = columns_of_parts(groups)
    ranked = [part for part, columns in parts.items() if k <= len(columns)]
    best_of_parts = right_among_best(scores, labels, k, [parts[part] for part in ranked])
    best = dict(zip(ranked, best_of_parts, strict=True))
    result: _FiguresOfDraws = {}
    for part, columns in parts.items():
        defined = columns[~np.isnan(whole[0, columns])]
        figures = {}
        if len(defined):
            share = 1.0
            if classes_without_positives == "zero":
                share = len(defined) / (len(defined) + np.sum(~has_positive[columns]))
            draws = share * _mean_of_drawn(aps[:, defined])
            figures["mAP"] = draws, share * whole[0, defined].mean()
        if part in best and has_positive[columns].any():
            estimate = _f1_of_draws(best[part], k, once)[0]
            figures[f"F1@{k}"] = _f1_of_draws(best[part], k, counts), estimate
        figures = {name: own for name, own in figures.items() if not np.isnan(own[0]).all()}
        if figures:
            result[part] = figures
    return result


def _mean_figures(trainings: Sequence[_FiguresOfDraws]) -> _FiguresOfDraws:
    """The means of the figures of several trainings."""
    result: _FiguresOfDraws = {}
    for part, figures in trainings[0].items():
        result[part] = {}
        for figure in figures:
            draws, estimates = zip(*(own[part][figure] for own in trainings), strict=True)
            result[part][figure] = np.mean(draws, axis=0), float(np.mean(estimates))
    return result


def _drawn_before(drawn: np.ndarray, hits: np.ndarray) -> np.ndarray:
    """Sums of the rows of `drawn` (n, B) before each of the ascending rows `hits`, (h, B)."""
    # Sums between neighboring hits, then partial sums of these: several times faster than partial
    # sums of all rows.
    starts = np.union1d(0, hits)
    through = np.cumsum(np.add.reduceat(drawn, starts, axis=0), axis=0)
    before = np.concatenate([np.zeros_like(through[:1]), through[:-1]])
    return before[len(starts) - len(hits) :]


def _mean_of_drawn(aps: np.ndarray) -> np.ndarray:
    drawn = ~np.isnan(aps)
    classes = drawn.sum(axis=1)
    total = np.where(drawn, aps, 0.0).sum(axis=1)
    return np.divide(total, classes, out=np.full(len(aps), np.nan), where=classes > 0)


def _f1_of_draws(best: RightAmongBest, k: int, counts: np.ndarray) -> np.ndarray:
    positives, right = best.positives, np.count_nonzero(best.right, axis=1)
    tagged = np.where(positives > 0, k, 0)  # photos that show none of the classes are left out
    # The harmonic mean of precision and recall is 2 TP / (tags + positives).
    given = ((tagged + positives) @ counts).astype(np.float64)
    undefined = np.full(len(given), np.nan)
    return np.divide(2.0 * (right @ counts), given, out=undefined, where=given > 0)


def _interval(draws: np.ndarray, estimate: float, level: float) -> Interval:
    low, high = _quantiles(draws, estimate, level)
    return Interval(float(np.clip(low, 0, 1)), float(np.clip(high, 0, 1)))


def _quantiles(draws: np.ndarray, estimate: float, level: float) -> tuple[float, float]:
    """The central `level` of the draws, shifted so that their mean is the estimate."""
    tail = (1 - level) / 2
    draws = draws[~np.isnan(draws)]
    low, high = np.quantile(draws, [tail, 1 - tail]) - draws.mean() + estimate
    return float(low), float(high)
