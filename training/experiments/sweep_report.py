"""The results of a sweep, ranked by validation, as table, CSV and plot."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from biam_tf.csv_files import write_rows
from biam_tf.files import write_text
from biam_tf.metrics.figures_by_part import format_count
from training.experiments.grid import GridKey
from training.experiments.trials import (
    FIGURES,
    Outcome,
    Trial,
    as_options,
)
from training.tables.plots import (
    COLORS,
    draw_line_with_spread,
    means_and_deviations,
    new_figure,
    save_figure,
    tick_positions,
)
from training.tables.table import Table, mean_and_spread

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PARTS = {"seen": "seen mAP", "gzsl": "GZSL mAP", "zsl": "ZSL mAP"}
# Splits and parts whose number of classes in mAP is in the CSV file.
COUNTS = [*(("validation", part) for part in PARTS), ("test", "zsl"), ("test", "gzsl")]
BARS_SHOWN = 30
# Length of the axis of a line, and the letters of its labels that have room side by side.
LINE_INCHES, MOST_LETTERS = 6.0, 60
LETTERS_PER_COLUMN = 10  # of a heat map, an inch wide


@dataclasses.dataclass(frozen=True)
class Setting:
    """One trial with the outcomes of its seeds, and the errors of those that failed."""

    trial: Trial
    outcomes: tuple[Outcome, ...]
    errors: tuple[str, ...]

    def validation(self, part: str) -> list[float]:
        """Returns the validation mAP of each seed, per cent."""
        return [o.validation[part] for o in self.outcomes if part in o.validation]

    def test(self, figure: str) -> list[float]:
        """Returns a test figure of each seed, per cent."""
        return [outcome.test[figure] for outcome in self.outcomes]


def ranked(outcomes: Sequence[Outcome], part: str) -> list[Setting]:
    """Returns the settings sorted by mean validation mAP of `part`, best first.

    Test figures are not considered. Settings without that figure come last, in the grid's order.
    """
    settings = []
    for trial in dict.fromkeys(outcome.trial for outcome in outcomes):
        own = [outcome for outcome in outcomes if outcome.trial == trial]
        whole = tuple(outcome for outcome in own if outcome.error is None)
        errors = tuple(dict.fromkeys(outcome.error for outcome in own if outcome.error))
        settings.append(Setting(trial, whole, errors))

    def key(setting: Setting) -> tuple[bool, float]:
        values = setting.validation(part)
        return (not values, -float(np.mean(values)) if values else 0.0)

    return sorted(settings, key=key)


def table(settings: Sequence[Setting], axes: Sequence[GridKey], part: str) -> str:
    """Returns the Markdown table, with notes on its order and on failed runs."""
    parts = [p for p in PARTS if any(setting.validation(p) for setting in settings)]
    header = [axis.label for axis in axes]
    header += ["seeds", *(f"validation {PARTS[p]}" for p in parts)]
    header += [f"test {figure}" for figure in FIGURES]
    rows = []
    for setting in settings:
        cells = [*_values(setting.trial), str(len(setting.outcomes))]
        if not setting.outcomes:
            cells += ["failed", *[""] * (len(header) - len(cells) - 1)]
        else:
            cells += [mean_and_spread(setting.validation(p)) for p in parts]
            cells += [mean_and_spread(setting.test(figure)) for figure in FIGURES]
        rows.append(cells)
    lines = [Table("", header, rows).markdown()]
    if part in parts:
        lines.append(
            "Per cent, mean ± standard deviation over the seeds. Sorted by validation "
            f"{PARTS[part]} alone; test figures are shown but must not be used to choose."
        )
    else:
        reason = "without photos of split val"
        if parts:
            reason = f"{PARTS[part]} is undefined on the validation photos, and by it"
        lines.append(
            "Per cent, mean ± standard deviation over the seeds, in the grid's order: "
            f"{reason} nothing can be chosen; test figures must not be used to choose."
        )
    lines += _notes_on_classes(settings)
    lines += [
        f"Failed: {setting.trial.name}: {error}" for setting in settings for error in setting.errors
    ]
    return "\n".join(lines) + "\n"


def _notes_on_classes(settings: Sequence[Setting]) -> list[str]:
    """A sentence with the numbers of classes that count in mAP, if there are such numbers."""
    counts: dict[str, set[str]] = {}
    for setting in settings:
        for outcome in setting.outcomes:
            for (split, part), own in outcome.classes.items():
                if own[1]:
                    name = f"{split} {PARTS[part].removesuffix(' mAP')}"
                    counts.setdefault(name, set()).add(format_count(*own))
    shown = ", ".join(f"{name} {' or '.join(sorted(own))}" for name, own in sorted(counts.items()))
    return [f"Classes that count in mAP: {shown}; a figure without any is -."] if shown else []


def best_line(settings: Sequence[Setting], part: str) -> str | None:
    """Returns the best setting as options for `training.run`; None without validation."""
    if not settings[0].validation(part):
        return None
    return f"Best on validation: {as_options(settings[0].trial.settings)}"


def write_files(
    output: pathlib.Path,
    settings: Sequence[Setting],
    axes: Sequence[GridKey],
    part: str,
) -> str:
    """Writes sweep.md and sweep.csv (every seed); returns the text of sweep.md."""
    output.mkdir(parents=True, exist_ok=True)
    text = table(settings, axes, part)
    write_text(output / "sweep.md", text)
    rows = []
    for setting in settings:
        for outcome in setting.outcomes:
            validation = [outcome.validation.get(p, float("nan")) for p in PARTS]
            figures = [*validation, *(outcome.test[figure] for figure in FIGURES)]
            counts = [outcome.classes.get(own, (None, None))[0] for own in COUNTS]
            rows.append([*_values(setting.trial), outcome.seed, *figures, *counts, ""])
        blank = [""] * (len(PARTS) + len(FIGURES) + len(COUNTS))
        rows += [[*_values(setting.trial), "", *blank, error] for error in setting.errors]
    header = [axis.key for axis in axes] + ["seed"]
    header += [f"validation {name}" for name in PARTS.values()]
    header += [f"test {figure}" for figure in FIGURES]
    header += [f"classes in {split} {PARTS[p]}" for split, p in COUNTS] + ["error"]
    write_rows(output / "sweep.csv", header, rows)
    return text


def draw_plot(
    path: pathlib.Path, settings: Sequence[Setting], axes: Sequence[GridKey], part: str
) -> bool:
    """Draws the sweep: a line for one key of numbers, a heat map for two keys, else a ranking.

    Returns:
        Whether there was anything to draw.
    """
    shown = [setting for setting in settings if setting.validation(part)]
    if not shown:
        return False
    numbers = _numbers(axes[0]) if len(axes) == 1 else None
    if numbers is not None:
        figure = _line(shown, axes[0], numbers, part)
    elif len(axes) == 2:
        figure = _heat_map(shown, axes, part)
    else:
        figure = _ranking(shown, part)
    save_figure(figure, path)
    return True


def _line(
    settings: Sequence[Setting], axis: GridKey, numbers: Sequence[float], part: str
) -> "Figure":
    figure, plot = new_figure()
    number_of = dict(zip(axis.values, numbers, strict=True))
    points = sorted(settings, key=lambda setting: number_of[_values(setting.trial)[0]])
    labels = [_values(setting.trial)[0] for setting in points]
    x, scale = tick_positions([number_of[label] for label in labels], labels, LINE_INCHES)
    test = {"seen": "GZSL mAP"}.get(part, PARTS[part])
    curves = {
        f"validation {PARTS[part]}": [setting.validation(part) for setting in points],
        f"test {test}": [setting.test(test) for setting in points],
    }
    for (label, values), color in zip(curves.items(), COLORS, strict=False):
        draw_line_with_spread(plot, x, values, label, color)
    plot.set_xscale(scale)
    plot.set_xticks(x, labels)
    plot.minorticks_off()
    is_slanted = max(map(len, labels)) * len(labels) > MOST_LETTERS
    plot.tick_params("x", rotation=90 if is_slanted else 0)
    plot.set_xlabel(axis.key)
    plot.set_ylabel("mAP, per cent")
    plot.legend(frameon=False)
    return figure


def _heat_map(settings: Sequence[Setting], axes: Sequence[GridKey], part: str) -> "Figure":
    down, across = axes
    figure, plot = new_figure(2.5 + 1.0 * len(across.values), 1.8 + 0.6 * max(2, len(down.values)))
    plot.grid(False)
    means = np.full((len(down.values), len(across.values)), np.nan)
    for setting in settings:
        row, column = _values(setting.trial)
        y, x = down.values.index(row), across.values.index(column)
        means[y, x] = np.mean(setting.validation(part))
        text = mean_and_spread(setting.validation(part)).replace(" ± ", "\n± ")
        plot.text(x, y, text, ha="center", va="center", fontsize=9)
    image = plot.imshow(means, cmap="Blues", aspect="auto", alpha=0.6)
    plot.set_xticks(range(len(across.values)), across.values)
    if max(map(len, across.values)) > LETTERS_PER_COLUMN:
        plot.tick_params("x", rotation=90)
    plot.set_yticks(range(len(down.values)), down.values)
    plot.set_xlabel(across.key)
    plot.set_ylabel(down.key)
    figure.colorbar(image, label=f"validation {PARTS[part]}, per cent")
    return figure


def _ranking(settings: Sequence[Setting], part: str) -> "Figure":
    shown = settings[:BARS_SHOWN]
    figure, plot = new_figure(8.0, 1.2 + 0.28 * len(shown))
    means, deviations = means_and_deviations([setting.validation(part) for setting in shown])
    plot.errorbar(means, range(len(shown)), xerr=deviations, fmt="o", color=COLORS[0])
    plot.set_yticks(range(len(shown)), [setting.trial.name for setting in shown])
    plot.invert_yaxis()
    plot.set_xlabel(f"validation {PARTS[part]}, per cent")
    return figure


def _values(trial: Trial) -> list[str]:
    return [setting.partition("=")[2] for setting in trial.settings]


def _numbers(axis: GridKey) -> list[int] | list[float] | None:
    for kind in (int, float):
        try:
            return [kind(value) for value in axis.values]
        except ValueError:
            continue
    return None
