"""The results of a table in the paper's layout: Markdown, CSV and plot, and their significance."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from biam_tf.csv_files import write_rows
from biam_tf.metrics.bootstrap import Difference, bootstrap_differences, number_of_resamples
from biam_tf.metrics.figures_by_part import (
    class_convention,
    counted_classes,
    format_count,
    notes_on_classes,
)
from training.experiments.trials import as_options
from training.reproduction import published
from training.reproduction.entries import TrainedEntry, open_run, scores_of_run
from training.reproduction.paper_tables import PaperTable
from training.tables.plots import COLORS, means_and_deviations, new_figure, save_figure
from training.tables.table import Table, mean_and_spread, signed_difference

TASKS = {"ZSL": "zsl", "GZSL": "gzsl"}
ALL_SEEN = {"all classes": "seen"}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Differences of the other rows from one of them.

    Attributes:
        reference: key of that row.
        resamples: draws of the bootstrap.
        differences: by row, part ("zsl", "gzsl", "seen") and figure ("mAP", "F1@K"), fractions.
    """

    reference: str
    resamples: int
    differences: Mapping[str, Mapping[str, Mapping[str, Difference]]]


def compare(trained: Mapping[str, TrainedEntry], reference: str, k: int, seed: int) -> Comparison:
    """Compares every row with the reference, by a paired bootstrap over the test photos.

    In every draw, the figures of a row are the means over its seeds. The intervals are due to the
    choice of the photos, not of the seeds, whose spread is in the table.

    Args:
        trained: the rows; failed ones are left out.
        reference: key of a row that did not fail.
        k: of F1@K.
        seed: of the draws.
    """
    whole = {key: row for key, row in trained.items() if not row.error}
    others = [key for key in whole if key != reference]
    opened = open_run(whole[reference].folders[0])
    labels, groups = opened.split.labels, opened.dataset.groups
    resamples = number_of_resamples(labels)
    if not others:
        return Comparison(reference, resamples, {})
    scores = [
        np.stack([scores_of_run(folder) for folder in whole[key].folders])
        for key in (reference, *others)
    ]
    conventions = [class_convention(own) for own in whole[reference].metrics]
    differences = bootstrap_differences(
        scores,
        labels,
        groups,
        k=k,
        seed=seed,
        resamples=resamples,
        classes_without_positives=conventions[0] if conventions else "zero",
    )
    return Comparison(reference, resamples, dict(zip(others, differences, strict=True)))


def tasks_of(table: PaperTable) -> Mapping[str, str]:
    """Returns the tasks of a table: parts of the metrics by their title."""
    return ALL_SEEN if table.standard else TASKS


def figure_of(metrics: Mapping, part: str, figure: str) -> float:
    """Returns a figure of `metrics.json` in per cent, NaN if it is undefined.

    Args:
        metrics: of a run.
        part: "zsl", "gzsl" or "seen".
        figure: "mAP" (the kind that papers on the data set report) or "F1@K".
    """
    own = metrics[part]
    value = None if own is None else own.get(metrics["headline"] if figure == "mAP" else figure)
    if value is None:
        return float("nan")
    return 100 * (value if figure == "mAP" else value["f1"])


def format_rows(
    table: PaperTable,
    trained: Mapping[str, TrainedEntry],
    comparison: Comparison,
    data_name: str,
    ks: Sequence[int],
) -> str:
    """Returns the table as Markdown: one row per system and task, with the paper's figures.

    Args:
        table: the paper's.
        trained: its rows.
        comparison: their differences from one of them.
        data_name: `data.name` of the runs.
        ks: the two Ks of F1@K.
    """
    tasks = tasks_of(table)
    figures = ["mAP", *(f"F1@{k}" for k in ks)]
    beside = published.TITLES[table.published_on]
    if data_name != table.published_on:
        beside += ", another data set"
    header = ["Method", "Task", *figures]
    header += [f"paper ({beside}): {figures[0]}", *figures[1:]]
    header += [f"mAP against {trained[comparison.reference].entry.title}, 95 %"]
    rows = []
    for key, row in trained.items():
        paper = table.published.get(key)
        for number, (task, part) in enumerate(tasks.items()):
            cells = [row.entry.title if number == 0 else "", task]
            if row.error:
                cells += ["failed", *[""] * (len(figures) - 1)]
            else:
                cells += [
                    mean_and_spread([figure_of(m, part, figure) for m in row.metrics])
                    for figure in figures
                ]
            own = paper if table.standard else paper and paper[number]
            cells += ["-" if value is None else f"{value:.1f}" for value in own or [None] * 3]
            cells.append(_difference(comparison, key, part))
            rows.append(cells)
    return Table("", header, rows).markdown()


def notes(trained: Mapping[str, TrainedEntry], budget: int, seeds: int, resamples: int) -> str:
    """Returns notes on the table: the spread, and the settings that were tried and chosen."""
    tried = max(len(row.tried) for row in trained.values())
    lines = [
        f"Per cent, test photos; mean ± standard deviation over {seeds} "
        f"{'seeds' if seeds > 1 else 'seed'}. Differences: paired bootstrap over the test photos, "
        f"{resamples} draws, of the means over the seeds; * excludes 0.",
        *notes_on_counts(trained),
    ]
    if tried:
        lines += [
            "",
            f"Budget: at most {budget} settings per system, each trained with one seed; the one "
            "with the best mean of ZSL and GZSL mAP on validation photos (the best mAP, if all "
            "classes are seen) was chosen:",
            "",
        ]
        for row in trained.values():
            if row.tried:
                best = as_options(row.chosen) or "as configured"
                values = ", ".join(mean_and_spread([value]) for value in row.tried.values())
                lines.append(f"- {row.entry.title}: {best} (validation {values})")
    else:
        lines += ["", "Every system as configured: nothing was tuned."]
    failed = [f"- {row.entry.title}: {row.error}" for row in trained.values() if row.error]
    if failed:
        lines += ["", "Failed:", "", *failed]
    return "\n".join(lines) + "\n"


def notes_on_counts(trained: Mapping[str, TrainedEntry]) -> list[str]:
    """Returns a sentence with the classes that count in mAP, and why others do not."""
    several = [metrics for row in trained.values() for metrics in row.metrics]
    counts = {
        title: {format_count(*counted_classes(own, part)): None for own in several if own[part]}
        for title, part in (("ZSL", "zsl"), ("GZSL", "gzsl"), ("seen", "seen"))
    }
    shown = ", ".join(f"{title} {' or '.join(own)}" for title, own in counts.items() if own)
    reasons = dict.fromkeys(note for own in several for note in notes_on_classes(own))
    return [f"Classes that count in mAP: {shown}.", *(f"{reason}." for reason in reasons)]


def write_seeds(
    path: pathlib.Path,
    trained: Mapping[str, TrainedEntry],
    ks: Sequence[int],
    tasks: Mapping[str, str] = TASKS,
) -> None:
    """Writes a CSV row for every system, task and seed.

    Args:
        path: of the file.
        trained: rows of a table or figure; failed ones are left out.
        ks: the Ks of F1@K.
        tasks: parts of the metrics by their title.
    """
    figures = ["mAP", *(f"F1@{k}" for k in ks)]
    rows = [
        [
            row.entry.title,
            task,
            str(folder),
            *(figure_of(metrics, part, f) for f in figures),
            *counted_classes(metrics, part),
        ]
        for row in trained.values()
        for folder, metrics in zip(row.folders, row.metrics, strict=True)
        for task, part in tasks.items()
    ]
    write_rows(path, ["method", "task", "run", *figures, "classes in mAP", "classes"], rows)


def draw_rows(path: pathlib.Path, table: PaperTable, trained: Mapping[str, TrainedEntry]) -> None:
    """Draws the mAP of every system: its mean as a point, its spread over the seeds as a line."""
    tasks = tasks_of(table)
    shown = [row for row in trained.values() if not row.error]
    figure, axes = new_figure(8.0, 1.6 + 0.5 * len(shown))
    positions = np.arange(len(shown))
    for number, (task, part) in enumerate(tasks.items()):
        values = [[figure_of(m, part, "mAP") for m in row.metrics] for row in shown]
        means, deviations = means_and_deviations(values)
        y = positions + 0.16 * (number - (len(tasks) - 1) / 2)
        axes.errorbar(means, y, xerr=deviations, fmt="o", color=COLORS[number], label=task, ms=5)
        # The first task's numbers stand above its points, the second one's below.
        place, side = ((0, 4), "bottom") if number == 0 else ((0, -4), "top")
        for x, position in zip(means, y, strict=True):
            if np.isnan(x):
                continue
            axes.annotate(
                f"{x:.1f}",
                (x, position),
                place,
                textcoords="offset points",
                ha="center",
                va=side,
                fontsize=8,
            )
    axes.set_yticks(positions, [row.entry.title for row in shown])
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_xlim(left=0)
    axes.margins(x=0.1)
    axes.set_xlabel("mAP, per cent")
    axes.set_title(table.title, fontsize=10, loc="left")
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=len(tasks))
    save_figure(figure, path)


def _difference(comparison: Comparison, key: str, part: str) -> str:
    own = comparison.differences.get(key, {}).get(part, {}).get("mAP")
    if own is None:
        return ""
    values = (100 * value for value in (own.estimate, own.low, own.high))
    estimate, interval = signed_difference(*values)
    if estimate == "-":
        return "-"
    within, star, _ = interval.partition(" *")
    return f"{estimate} ({within}){star}"
