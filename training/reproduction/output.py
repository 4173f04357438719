"""A table in the paper's layout: Markdown, CSV with every seed, and a picture."""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from training.experiments.trials import as_options, markdown_table, mean_and_spread, write_csv
from training.reproduction import published
from training.reproduction.experiments import TrainedEntry
from training.reproduction.significance import Comparison
from training.reproduction.tables import Table
from training.tables.plots import COLORS, new_figure, save_figure

TASKS = {"ZSL": "zsl", "GZSL": "gzsl"}
ALL_SEEN = {"all classes": "seen"}


def tasks_of(table: Table) -> Mapping[str, str]:
    """Returns the tasks of a table: the parts of the metrics by what they are called."""
    return ALL_SEEN if table.standard else TASKS


def figure_of(metrics: Mapping, part: str, figure: str) -> float:
    """Returns a figure of `metrics.json` in per cent, NaN where it is not defined.

    Args:
        metrics: of a run.
        part: "zsl", "gzsl" or "seen".
        figure: "mAP" (the one that papers on the data set report) or "F1@K".
    """
    own = metrics[part]
    if own is None or own.get(figure) is None:
        return float("nan")
    return 100 * (own[metrics["headline"]] if figure == "mAP" else own[figure]["f1"])


def format_rows(
    table: Table,
    trained: Mapping[str, TrainedEntry],
    comparison: Comparison,
    data_name: str,
    ks: Sequence[int],
) -> str:
    """Returns the table as Markdown: a row a system and task, the paper's figures beside.

    Args:
        table: the paper's.
        trained: its rows.
        comparison: their differences to the last of them.
        data_name: `data.name` of the runs.
        ks: the two Ks of F1@K.
    """
    tasks = tasks_of(table)
    figures = ["mAP", *(f"F1@{k}" for k in ks)]
    beside = published.CALLED[table.published_on]
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
    return markdown_table(header, rows)


def notes(trained: Mapping[str, TrainedEntry], budget: int, seeds: int, resamples: int) -> str:
    """Returns what a reader of the table must know: the spread, what was tried and chosen."""
    tried = max(len(row.tried) for row in trained.values())
    lines = [
        f"Per cent, test photos; mean ± standard deviation over {seeds} "
        f"{'seeds' if seeds > 1 else 'seed'}. Differences: paired bootstrap over the test photos, "
        f"{resamples} draws, of the means over the seeds; * leaves out 0."
    ]
    if tried:
        lines += [
            "",
            f"Budget: at most {budget} settings a system, each trained with one seed; taken are "
            "those with the best mean of ZSL and GZSL mAP on validation photos (with the best mAP, "
            "where all classes are seen):",
            "",
        ]
        for row in trained.values():
            if row.tried:
                best = as_options(row.chosen) or "as configured"
                values = ", ".join(f"{value:.1f}" for value in row.tried.values())
                lines.append(f"- {row.entry.title}: {best} (validation {values})")
    else:
        lines += ["", "Every system as configured: nothing was tuned."]
    failed = [f"- {row.entry.title}: {row.error}" for row in trained.values() if row.error]
    if failed:
        lines += ["", "Failed:", "", *failed]
    return "\n".join(lines) + "\n"


def write_seeds(
    path: pathlib.Path,
    trained: Mapping[str, TrainedEntry],
    ks: Sequence[int],
    tasks: Mapping[str, str] = TASKS,
) -> None:
    """Writes a CSV row for every system, task and seed.

    Args:
        path: of the file.
        trained: rows of a table or figure; those that failed have none here.
        ks: the Ks of F1@K.
        tasks: parts of the metrics by what they are called.
    """
    figures = ["mAP", *(f"F1@{k}" for k in ks)]
    rows = [
        [row.entry.title, task, str(folder), *(figure_of(metrics, part, f) for f in figures)]
        for row in trained.values()
        for folder, metrics in zip(row.folders, row.metrics, strict=True)
        for task, part in tasks.items()
    ]
    write_csv(path, ["method", "task", "run", *figures], rows)


def draw_rows(path: pathlib.Path, table: Table, trained: Mapping[str, TrainedEntry]) -> None:
    """Draws the mAP of every system: a point for its mean, a line for its seeds' spread."""
    tasks = tasks_of(table)
    shown = [row for row in trained.values() if not row.error]
    figure, axes = new_figure(8.0, 1.6 + 0.42 * len(shown))
    places = np.arange(len(shown))
    for number, (task, part) in enumerate(tasks.items()):
        values = [[figure_of(m, part, "mAP") for m in row.metrics] for row in shown]
        means = np.array([np.mean(own) for own in values])
        spread = [np.std(own, ddof=1) if len(own) > 1 else 0.0 for own in values]
        y = places + 0.16 * (number - (len(tasks) - 1) / 2)
        axes.errorbar(means, y, xerr=spread, fmt="o", color=COLORS[number], label=task, ms=5)
        for x, place in zip(means, y, strict=True):
            axes.annotate(
                f"{x:.1f}", (x, place), (0, 3), textcoords="offset points", ha="center", fontsize=8
            )
    axes.set_yticks(places, [row.entry.title for row in shown])
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
    estimate, low, high = (100 * value for value in (own.estimate, own.low, own.high))
    sure = " *" if low > 0 or high < 0 else ""
    return f"{estimate:+.1f} ({low:+.1f} to {high:+.1f}){sure}"
