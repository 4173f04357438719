"""The charts of a report and the numbers they show."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup
from numpy.typing import ArrayLike

from biam_tf.metrics import labels_of_classes
from biam_tf.metrics.stacking import SeenUnseenCurve
from biam_tf.metrics.stored_scores import Scores
from biam_tf.sparse_labels import Labels
from biam_tf.thresholds import Thresholds
from training.loop.tensorboard import (
    EPOCH_LOSS,
    LEARNING_RATE,
    LOSS,
    SPEED,
    VALIDATION,
    curves_of_epoch,
)
from training.tables.svg_charts import Chart, Key, padded

PARTS = {"seen": "seen", "zsl": "unseen", "gzsl": "all"}  # CSS classes by part of the validation
CURVES_PER_GROUP = 3
# Of 25 tags, the share right has a standard error of up to 10 points.
FEWEST_OF_BIN = 25


@dataclasses.dataclass(frozen=True)
class Figure:
    """A chart with a title above, its legend and a note below it.

    Attributes:
        title: above the chart.
        chart: inline SVG.
        note: below the chart; may be empty.
        legend: what is drawn in it.
        tags: of the curves in TensorBoard that it shows.
    """

    title: str
    chart: Markup
    note: str = ""
    legend: tuple[Key, ...] = ()
    tags: tuple[str, ...] = ()


def learning_curves(
    records: Sequence[Mapping],
    losses: tuple[np.ndarray, np.ndarray],
    rates: tuple[np.ndarray, np.ndarray],
) -> list[Figure]:
    """Returns charts of the curves that TensorBoard shows, over the epochs.

    Args:
        records: lines of the run's log.
        losses: steps and losses of single steps; if empty, only the means of epochs are drawn.
        rates: steps and learning rates, likewise.
    """
    epochs = np.array([record["epoch"] for record in records], float)
    steps_per_epoch = records[0]["step"] / records[0]["epoch"]
    own = [curves_of_epoch(record) for record in records]
    curves = {tag: np.array([values[tag] for values in own]) for tag in own[-1]}
    figures = [
        _loss_figure(epochs, curves[EPOCH_LOSS], losses[0] / steps_per_epoch, losses[1]),
        _rate_figure(epochs, records, rates[0] / steps_per_epoch, rates[1]),
    ]
    for figure in VALIDATION.values():
        values = {part: curves.get(f"validation/{part}_{figure}") for part in PARTS}
        shown = {part: value for part, value in values.items() if value is not None}
        if shown:
            best = records[-1]["best_epoch"]
            figures.append(_validation_figure(epochs, shown, figure, best))
    return [*figures, _speed_figure(epochs, curves[SPEED])]


def _loss_figure(
    epochs: np.ndarray, means: np.ndarray, at: np.ndarray, losses: np.ndarray
) -> Figure:
    # The first few losses may be so large that they would flatten the rest.
    top = np.quantile(losses, 0.99) if len(losses) else np.inf
    singles = np.minimum(losses, top)
    span = (0.0, float(epochs[-1]))
    limits = padded([singles, means])
    chart = Chart("Training loss by epoch", "epoch", "", span, limits, whole_x=True)
    if len(singles):
        chart.line(at, singles, "quiet", name="steps")
    # The mean of an epoch is drawn at its middle.
    chart.line(epochs - 0.5, means, "all", name="means of epochs")
    for epoch, mean in zip(epochs, means, strict=True):
        chart.dot(epoch - 0.5, mean, "all", f"epoch {epoch:g}: {mean:.4g}", 3)
    note = f"Losses of steps above {top:.3g} are drawn there." * bool((losses > top).any())
    tags = (LOSS, EPOCH_LOSS) if len(singles) else (EPOCH_LOSS,)
    return Figure("Loss", chart.markup(), note, chart.legend, tags)


def _rate_figure(
    epochs: np.ndarray, records: Sequence[Mapping], at: np.ndarray, rates: np.ndarray
) -> Figure:
    note = "At every step."
    if not len(rates):
        at, rates = epochs, np.array([record["learning_rate"] for record in records])
        note = "At the end of each epoch."
    span = (0.0, float(epochs[-1]))
    limits = padded([[0], rates])
    chart = Chart("Learning rate by epoch", "epoch", "", span, limits, whole_x=True)
    chart.line(at, rates, "all")
    return Figure("Learning rate", chart.markup(), note, tags=(LEARNING_RATE,))


def _validation_figure(
    epochs: np.ndarray, values: Mapping[str, np.ndarray], figure: str, best: int
) -> Figure:
    title = f"Validation {figure.replace('_', ' ')}"
    limits = (0, padded(list(values.values()))[1])
    span = (0.0, float(epochs[-1]))
    axis = f"{figure.replace('_', ' ')}, per cent"
    chart = Chart(f"{title} by epoch", "epoch", axis, span, limits, "y", whole_x=True)
    for part, own in values.items():
        chart.line(epochs, own, PARTS[part], name=f"{PARTS[part]} classes")
        for epoch, value in zip(epochs, own, strict=True):
            tip = f"epoch {epoch:g}, {PARTS[part]} classes: {100 * value:.1f}"
            chart.dot(epoch, value, PARTS[part], tip, 3)
    note = f"Best: epoch {best}."
    if {"seen", "gzsl"} <= values.keys() and np.allclose(values["seen"], values["gzsl"]):
        note += " No validation photo shows an unseen class: both lines are one."
    tags = tuple(f"validation/{part}_{figure}" for part in values)
    return Figure(title, chart.markup(), note, chart.legend, tags)


def _speed_figure(epochs: np.ndarray, speeds: np.ndarray) -> Figure:
    limits = padded([[0], speeds])
    span = (0.0, float(epochs[-1]))
    chart = Chart("Photos per second by epoch", "epoch", "", span, limits, whole_x=True)
    chart.line(epochs, speeds, "all")
    for epoch, speed in zip(epochs, speeds, strict=True):
        chart.dot(epoch, speed, "all", f"epoch {epoch:g}: {speed:.0f} photos per second", 3)
    return Figure("Photos per second", chart.markup(), "Of each epoch.", tags=(SPEED,))


def precision_recall(scores: ArrayLike, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns recall and precision of a class down to each of its positives, best scores first.

    Args:
        scores: (N,) of the class.
        labels: (N,) of +1, -1, 0 (left out).
    """
    labeled = np.flatnonzero(labels)
    order = labeled[np.argsort(-np.asarray(scores, np.float64)[labeled], kind="stable")]
    hits = np.flatnonzero(labels[order] > 0)
    found = np.arange(1, len(hits) + 1)
    return found / max(1, len(hits)), found / (hits + 1)


def _with_falls(recall: np.ndarray, precision: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The curve with the points between positives: there precision falls at constant recall."""
    ranks = np.round(np.arange(1, len(recall) + 1) / precision)  # of the positives, from 1
    lowest = np.arange(1, len(recall)) / (ranks[1:] - 1)  # just before the next positive
    xs, ys = np.repeat(recall, 2)[:-1], np.repeat(precision, 2)[:-1]
    ys[1::2] = lowest
    return np.r_[0, xs], np.r_[precision[:1], ys]


def chosen_classes(
    average_precisions: np.ndarray, positives: np.ndarray, groups: Sequence[str]
) -> list[int]:
    """Returns the best, the middle and the worst class of each group's more frequent half.

    The rarer half is left out because the curve of a class with few photos has large steps.

    Args:
        average_precisions: (C,).
        positives: (C,) number of photos that show each class.
        groups: (C,) "seen" or "unseen".
    """
    chosen: list[int] = []
    for group in ("unseen", "seen"):
        own = [c for c in np.flatnonzero(positives).tolist() if groups[c] == group]
        if not own:
            continue
        usual = np.median(positives[own])
        common = sorted(
            (c for c in own if positives[c] >= usual), key=lambda c: -average_precisions[c]
        )
        ranks = np.linspace(0, len(common) - 1, min(CURVES_PER_GROUP, len(common)))
        chosen.extend(int(common[round(rank)]) for rank in ranks)
    return chosen


def precision_recall_figures(
    scores: Scores,
    labels: Labels,
    names: Sequence[str],
    groups: Sequence[str],
    average_precisions: np.ndarray,
    thresholds: Thresholds | None,
) -> list[Figure]:
    """Returns the curve of each of the `chosen_classes`, with a ring at its threshold."""
    labeled, positives = labels_of_classes(labels)
    figures = []
    # A class that is absent from no photo has the precision 1 whatever its scores are.
    defined = np.where(labeled > positives, positives, 0)
    for c in chosen_classes(average_precisions, defined, groups):
        recall, precision = precision_recall(scores[:, c], labels[:, c])
        label = f"Precision over recall of class {names[c]}"
        chart = Chart(label, "recall, per cent", "precision, per cent", (0, 1), (0, 1), "xy")
        chart.line(*_with_falls(recall, precision), groups[c], area=True, name=f"{groups[c]} class")
        note = f"{groups[c]}, AP {100 * average_precisions[c]:.1f}, {_photos(positives[c])}"
        if thresholds is not None:
            given = (scores[:, c] >= thresholds.cuts[c]) & (labels[:, c] != 0)
            right = int((given & (labels[:, c] > 0)).sum())
            if given.any():
                at = right / positives[c], right / int(given.sum())
                tip = f"at its threshold: recall {100 * at[0]:.0f}, precision {100 * at[1]:.0f}"
                chart.dot(*at, "cut", tip, 5, name="at its threshold")
            else:
                note += "; no score reaches its threshold"
        figures.append(Figure(names[c], chart.markup(), note, chart.legend))
    return figures


def _photos(count: int) -> str:
    return f"{count} photo" + ("" if count == 1 else "s")


def stacking_figure(curve: SeenUnseenCurve, best_constant: float | None) -> Figure:
    """Returns seen over unseen recall, as a constant is subtracted from the seen scores."""
    across, up = ((0.0, max(0.05, padded([r])[1])) for r in (curve.unseen, curve.seen))
    label = "Recall of seen labels over recall of unseen labels"
    unseen_recall, seen_recall = (f"{g} recall@{curve.k}, per cent" for g in ("unseen", "seen"))
    chart = Chart(label, unseen_recall, seen_recall, across, up, "xy")
    chart.line(curve.unseen, curve.seen, "all", area=True)
    points = [("as scored", 0.0, "quiet")]
    if best_constant is not None:
        points.append((f"{best_constant:.2g} subtracted", best_constant, "cut"))
    for name, constant, css in points:
        seen, unseen = curve.at(constant)
        tip = f"{name}: seen {100 * seen:.1f}, unseen {100 * unseen:.1f}"
        chart.dot(unseen, seen, css, tip, 5, name)
    note = f"Area under the curve {curve.area:.3f}."
    return Figure("Seen against unseen", chart.markup(), note, chart.legend)


def reliability_figure(reliability: Mapping) -> Figure:
    """Returns the share of right tags over what is stated, among the tags shown, by group.

    Args:
        reliability: of `biam_tf.metrics.reliability.reliability_of_shown`.
    """
    label = "Share of right tags over the probability stated, of tags shown with 50 to 100 per cent"
    chart = Chart(label, "stated, per cent", "right, per cent", (0.5, 1), (0, 1), "xy")
    chart.line([0.5, 1], [0.5, 1], "guide", name="as many right as stated")
    for group in ("seen", "unseen"):
        bins = [own for own in (reliability[group] or {}).get("bins", ()) if own["tags"]]
        if not bins:
            continue
        stated, right = ([own[key] for own in bins] for key in ("stated", "right"))
        chart.line(stated, right, group, name=f"{group} classes")
        for own in bins:
            tip = (
                f"{group}: {own['tags']} tags with {100 * own['from']:.0f} to "
                f"{100 * own['to']:.0f} %: {100 * own['stated']:.1f} % stated, "
                f"{100 * own['right']:.1f} % right"
            )
            # Small dots stand for few tags, whose share is mostly chance.
            size = 3.5 if own["tags"] >= FEWEST_OF_BIN else 1.5
            chart.dot(own["stated"], own["right"], group, tip, size)
    note = f"Tags shown with 50 to 100 %. Small dots: fewer than {FEWEST_OF_BIN} tags."
    return Figure("Probabilities of the tags shown", chart.markup(), note, chart.legend)
