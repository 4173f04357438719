"""Trainings on one footing: settings times seeds, and their figures side by side."""

import dataclasses
import json
import pathlib
import shlex
from collections.abc import Iterable, Mapping, Sequence

import keras
import numpy as np

from biam_tf.errors import UserError
from training.config import RunConfig, load_config
from training.pipeline.run_folder import RunFolder
from training.pipeline.whole_run import run
from training.tables.csv_files import write_rows

# What a table calls a figure, and where metrics.json has it.
FIGURES = {
    "ZSL mAP": ("zsl", "mAP"),
    "ZSL F1@3": ("zsl", "F1@3", "f1"),
    "ZSL F1@5": ("zsl", "F1@5", "f1"),
    "GZSL mAP": ("gzsl", "mAP"),
    "GZSL F1@3": ("gzsl", "F1@3", "f1"),
    "GZSL F1@5": ("gzsl", "F1@5", "f1"),
}


@dataclasses.dataclass(frozen=True)
class Trial:
    """One of the settings that are compared.

    Attributes:
        name: what tables call it.
        folder: what the names of its runs' folders begin with.
        settings: the `key=value` overrides that set it apart.
    """

    name: str
    folder: str
    settings: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a trial came to with one seed.

    Attributes:
        trial: the settings.
        seed: of the training.
        test: figures on the test split by the names of `FIGURES`, per cent; NaN where undefined.
        validation: mAP of the kept epoch on the validation split, per cent, by `"seen"`,
            `"zsl"` and `"gzsl"`; without such a split empty.
        error: why there are no figures.
    """

    trial: Trial
    seed: int
    test: Mapping[str, float] = dataclasses.field(default_factory=dict)
    validation: Mapping[str, float] = dataclasses.field(default_factory=dict)
    error: str | None = None


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What all trials share.

    Attributes:
        config: YAML file, or `None`.
        settings: `key=value` overrides.
        output: each run gets a folder below it.
        seeds: trainings of each trial.
    """

    config: str | None
    settings: tuple[str, ...]
    output: pathlib.Path
    seeds: int

    def seed_numbers(self) -> range:
        """Returns the seeds: the configured one and those after it."""
        first = load_config(self.config, self.settings).training.seed
        return range(first, first + self.seeds)

    def config_of(self, trial: Trial, seed: int) -> RunConfig:
        """Returns the settings of one run.

        Raises:
            UserError: a setting cannot be used.
        """
        own = (f"training.seed={seed}", f"output={self.output / f'{trial.folder}-{seed}'}")
        return load_config(self.config, [*self.settings, *trial.settings, *own])


def run_trials(
    trials: Sequence[Trial], comparison: Comparison, go_on_after_errors: bool = False
) -> list[Outcome]:
    """Trains and evaluates each trial with each seed, or reads what is done.

    Args:
        trials: the settings to compare.
        comparison: what they share.
        go_on_after_errors: a `UserError` of one run goes into its outcome and the others are
            still made.

    Raises:
        UserError: a setting or the data cannot be used, unless `go_on_after_errors`.
    """
    outcomes = []
    for number, trial in enumerate(trials, start=1):
        for seed in comparison.seed_numbers():
            print(f"=== {number}/{len(trials)} {trial.name}, seed {seed}", flush=True)
            try:
                outcomes.append(_outcome(trial, seed, comparison.config_of(trial, seed)))
            except UserError as error:
                if not go_on_after_errors:
                    raise
                print(f"failed: {error}", flush=True)
                outcomes.append(Outcome(trial, seed, error=str(error)))
            finally:
                keras.backend.clear_session()
    return outcomes


def _outcome(trial: Trial, seed: int, config: RunConfig) -> Outcome:
    metrics = run(config)
    figures = {}
    for name, keys in FIGURES.items():
        figure = metrics
        for key in keys:
            figure = None if figure is None else figure[key]
        figures[name] = float("nan") if figure is None else 100 * figure
    return Outcome(trial, seed, figures, best_validation(RunFolder(pathlib.Path(config.output))))


def best_validation(folder: RunFolder) -> dict[str, float]:
    """Returns the validation mAP of the epoch that a run kept, per cent, by part."""
    records = [json.loads(line) for line in folder.log.read_text().splitlines()]
    epochs = {record["epoch"]: record for record in records if "best_epoch" in record}
    best = epochs[records[-1]["best_epoch"]]
    return {part: 100 * value for part, value in best.get("validation", {}).items()}


def mean_and_spread(values: Sequence[float]) -> str:
    """Returns `mean ± standard deviation` (n - 1) with one decimal; one value has no spread."""
    spread = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{np.mean(values):.1f}{spread}"


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a Markdown table; a `|` in a cell is escaped."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |\n"

    return line(header) + "|" + "---|" * len(header) + "\n" + "".join(map(line, rows))


def write_csv(path: pathlib.Path, header: Sequence[str], rows: Iterable[Sequence]) -> None:
    """Writes a CSV file whole or not at all; numbers with three decimals, NaN as nothing."""

    def cell(value):
        if not isinstance(value, float):
            return value
        return "" if np.isnan(value) else f"{value:.3f}"

    path.parent.mkdir(parents=True, exist_ok=True)
    write_rows(path, header, ([cell(value) for value in row] for row in rows))


def as_options(settings: Sequence[str]) -> str:
    """Returns overrides as the text of `--set` options, quoted for a shell where needed."""
    return " ".join(f"--set {shlex.quote(setting)}" for setting in settings)
