"""Trainings that are compared: several settings, each with several seeds."""

import dataclasses
import json
import pathlib
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from biam_tf.errors import UserError
from training.config import RunConfig, load_config
from training.pipeline.run_folder import RunFolder
from training.pipeline.whole_run import run

# Figures by their name in tables, with their keys in metrics.json.
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
        name: in tables.
        folder: prefix of its runs' folders.
        settings: the `key=value` overrides in which it differs from the others.
    """

    name: str
    folder: str
    settings: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The result of a trial with one seed.

    Attributes:
        trial: the settings.
        seed: of the training.
        test: figures on the test split by the names of `FIGURES`, per cent; NaN if undefined.
        validation: mAP of the best epoch on the validation split, per cent, by "seen", "zsl" and
            "gzsl"; empty without such a split.
        error: why there are no figures; None: there are.
    """

    trial: Trial
    seed: int
    test: Mapping[str, float] = dataclasses.field(default_factory=dict)
    validation: Mapping[str, float] = dataclasses.field(default_factory=dict)
    error: str | None = None


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What all trials have in common.

    Attributes:
        config: YAML file; None: the quickstart's settings.
        settings: `key=value` overrides.
        output: each run gets a folder below it.
        seeds: number of trainings per trial.
    """

    config: str | None
    settings: tuple[str, ...]
    output: pathlib.Path
    seeds: int

    def seed_numbers(self) -> range:
        """Returns the seeds: the configured one and the next ones."""
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
    trials: Sequence[Trial], comparison: Comparison, continue_after_errors: bool = False
) -> list[Outcome]:
    """Trains and evaluates each trial with each seed, or reads the run if it is complete.

    Args:
        trials: the settings to compare.
        comparison: what they have in common.
        continue_after_errors: puts the `UserError` of a run into its outcome and continues.

    Raises:
        UserError: a setting or the data cannot be used, unless `continue_after_errors`.
    """
    outcomes = []
    for number, trial in enumerate(trials, start=1):
        for seed in comparison.seed_numbers():
            print(f"=== {number}/{len(trials)} {trial.name}, seed {seed}", flush=True)
            try:
                outcomes.append(_outcome(trial, seed, comparison.config_of(trial, seed)))
            except UserError as error:
                if not continue_after_errors:
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
        value: Any = metrics
        for key in keys:
            value = None if value is None else value[key]
        figures[name] = float("nan") if value is None else 100 * value
    return Outcome(trial, seed, figures, best_validation(RunFolder(pathlib.Path(config.output))))


def best_validation(folder: RunFolder) -> dict[str, float]:
    """Returns the validation mAP of a run's best epoch, per cent, by part."""
    records = [json.loads(line) for line in folder.log.read_text(encoding="utf-8").splitlines()]
    epochs = {record["epoch"]: record for record in records if "best_epoch" in record}
    best = epochs[records[-1]["best_epoch"]]
    return {part: 100 * value for part, value in best.get("validation", {}).items()}


def as_options(settings: Sequence[str]) -> str:
    """Returns overrides as `--set` options, quoted for a shell if necessary."""
    return " ".join(f"--set {shlex.quote(setting)}" for setting in settings)
