"""Trainings that are compared: several settings, each with several seeds."""

import dataclasses
import pathlib
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from biam_tf.errors import UserError
from biam_tf.metrics.figures_by_part import counted_classes, of_one_convention
from training.config import RunConfig, load_config
from training.experiments.grid import Trial
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
class Outcome:
    """The result of a trial with one seed.

    Attributes:
        trial: the settings.
        seed: of the training.
        test: figures on the test split by the names of `FIGURES`, per cent; NaN if undefined.
        validation: mAP of the best epoch on the validation split, per cent, by "seen", "zsl" and
            "gzsl"; empty without such a split, and without the parts where it is undefined.
        error: why there are no figures; None: there are.
        classes: numbers of classes that count in mAP, and of all, by split and part, such as
            `("test", "zsl")`.
    """

    trial: Trial
    seed: int
    test: Mapping[str, float] = dataclasses.field(default_factory=dict)
    validation: Mapping[str, float] = dataclasses.field(default_factory=dict)
    error: str | None = None
    classes: Mapping[tuple[str, str], tuple[int, int]] = dataclasses.field(default_factory=dict)


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
        # Further trainings, for probabilities alone, unless the settings ask for them.
        folds = "thresholds.held_out_folds=0"
        return load_config(self.config, [folds, *self.settings, *trial.settings, *own])


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
    outcomes: list[Outcome] = []
    metrics: list[dict[str, Any]] = []
    for number, trial in enumerate(trials, start=1):
        for seed in comparison.seed_numbers():
            print(f"=== {number}/{len(trials)} {trial.name}, seed {seed}", flush=True)
            try:
                config = comparison.config_of(trial, seed)
                of_run = run(config)
                assert of_run is not None, "only further workers get no metrics"
                outcomes.append(_outcome(trial, seed, config))
                metrics.append(of_run)
            except UserError as error:
                if not continue_after_errors:
                    raise
                print(f"failed: {error}", flush=True)
                outcomes.append(Outcome(trial, seed, error=str(error)))
            finally:
                keras.backend.clear_session()
    return _with_test_figures(outcomes, metrics)


def _outcome(trial: Trial, seed: int, config: RunConfig) -> Outcome:
    """The outcome of a run without its test figures."""
    folder = RunFolder(pathlib.Path(config.output))
    counts = validation_classes(folder)
    classes = {("validation", part): own for part, own in counts.items()}
    return Outcome(trial, seed, {}, best_validation(folder), classes=classes)


def _with_test_figures(
    outcomes: Sequence[Outcome], metrics: Sequence[dict[str, Any]]
) -> list[Outcome]:
    """Adds the test figures; runs that were complete may be of an early version, with another mAP.

    Args:
        outcomes: of all runs.
        metrics: of those that did not fail.
    """
    whole = [outcome for outcome in outcomes if not outcome.error]
    counts = [
        {part: own for (split, part), own in outcome.classes.items() if split == "validation"}
        for outcome in whole
    ]
    validations = of_one_kind([outcome.validation for outcome in whole], counts)
    added = iter(zip(of_one_convention(metrics), validations, strict=True))
    result = []
    for outcome in outcomes:
        if outcome.error:
            result.append(outcome)
            continue
        own, validation = next(added)
        classes = {("test", part): counted_classes(own, part) for part in ("zsl", "gzsl")}
        result.append(
            dataclasses.replace(
                outcome,
                test=_test_figures(own),
                validation=validation,
                classes={**outcome.classes, **classes},
            )
        )
    return result


def _test_figures(metrics: Mapping[str, Any]) -> dict[str, float]:
    figures = {}
    for name, keys in FIGURES.items():
        value: Any = metrics
        for key in keys:
            value = None if value is None else value[key]
        figures[name] = float("nan") if value is None else 100 * value
    return figures


def of_one_kind(
    figures: Sequence[Mapping[str, float]], counts: Sequence[Mapping[str, tuple[int, int]]]
) -> list[dict[str, float]]:
    """Returns validation figures that can be compared, those of early versions included.

    Early versions count a class without a photo as 0 in mAP, and do not log how many classes
    there are. Beside later runs on the same photos, their figures are those of the others' classes
    after multiplication by the share of these. Where the others have different numbers of
    classes, the early figures are left out.

    Args:
        figures: mAP by part, for each run.
        counts: numbers of classes that count, and of all, by part; empty for early versions.
    """
    known: dict[str, set[tuple[int, int]]] = {}
    for own in counts:
        for part, count in own.items():
            known.setdefault(part, set()).add(count)
    result = []
    for values, own in zip(figures, counts, strict=True):
        kept = {}
        for part, value in values.items():
            others = known.get(part, set())
            if part in own or not others:
                kept[part] = value
            elif len(others) == 1:
                ((counted, classes),) = others
                kept[part] = value * classes / counted
        result.append(kept)
    return result


def best_validation(folder: RunFolder) -> dict[str, float]:
    """Returns the validation mAP of a run's best epoch, per cent, by part."""
    return {part: 100 * v for part, v in _best_epoch(folder).get("validation", {}).items()}


def validation_classes(folder: RunFolder) -> dict[str, tuple[int, int]]:
    """Returns how many classes count in validation mAP, and of how many, by part.

    Empty for runs of early versions, which did not log it.
    """
    if not folder.log.exists():
        return {}
    counts = _best_epoch(folder).get("validation_classes", {})
    return {part: (counted, classes) for part, (counted, classes) in counts.items()}


def _best_epoch(folder: RunFolder) -> dict[str, Any]:
    records = folder.read_log()
    epochs = {record["epoch"]: record for record in records if "best_epoch" in record}
    return epochs[records[-1]["best_epoch"]]


def as_options(settings: Sequence[str]) -> str:
    """Returns overrides as `--set` options, quoted for a shell if necessary."""
    return " ".join(f"--set {shlex.quote(setting)}" for setting in settings)
