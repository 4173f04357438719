"""Training without epochs: of systems with a closed form, and of those with nothing to train."""

import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from biam_tf.errors import UserError
from biam_tf.files import append_line
from biam_tf.models.systems import SYSTEMS
from biam_tf.progress import progress
from biam_tf.sparse_labels import Labels
from training.config import RunConfig, TrainingConfig
from training.data.input.sources import FeatureSource, PhotoSource
from training.pipeline.run_folder import RunFolder, save_model
from training.scoring.validation import Validate, selected_figure

_OF_STEPS = (
    "epochs",
    "accumulation_steps",
    "optimizer",
    "schedule",
    "clip_norm",
    "ema_momentum",
    "select_on",
    "patience",
    "checkpoint_minutes",
)


def require_epochs(config: RunConfig, command: str) -> None:
    """Raises a UserError if the system is trained without steps, for a command that needs them."""
    system = SYSTEMS[config.head.system]
    if not system.trained:
        raise UserError(
            f"head.system: {config.head.system} has nothing to train, so that {command} does not "
            "apply to it. Run `python -m training.run`"
        )
    if system.fit is not None:
        raise UserError(
            f"head.system: {config.head.system} has a closed form: it is solved within seconds, "
            f"without steps or a learning rate, so that {command} does not apply to it. Run "
            "`python -m training.run`"
        )


def fit_head(
    config: RunConfig,
    folder: RunFolder,
    head: keras.Model,
    source: FeatureSource | PhotoSource,
    labels: Labels,
    seen_embeddings: np.ndarray,
    validate: Validate | None,
) -> None:
    """Solves for the head's weights and saves the head in the run's folder.

    Args:
        config: settings of the run; its system has a `fit`.
        folder: where the model and the log are written.
        head: of the system, as built.
        source: the training examples, features.
        labels: (N, S) int8 for the seen classes, +1, -1 or 0.
        seen_embeddings: (S, d_a).
        validate: returns the metrics of `evaluate_scores` on the validation split; None: there
            is no such split.

    Raises:
        UserError: there are several processes, or the folder cannot be written.
    """
    if folder.model.exists() and folder.log.exists():  # it was stopped during evaluation
        return
    system = config.head.system
    fit = SYSTEMS[system].fit
    if fit is None:
        raise ValueError(f"{system} has no closed form")
    if config.strategy == "multi_worker":
        raise UserError(f"strategy: multi_worker: head.system: {system} is solved in one process")
    ignored = _ignored(config)
    if ignored:
        print(f"{system} has a closed form: {', '.join(ignored)} have no effect", flush=True)
    started = time.perf_counter()
    with progress(len(source), f"solving {system}", "photo") as bar:
        batches = _batches(source, labels, config.training.batch_size, bar.update)
        fit(head, config.head.settings, batches, seen_embeddings)
    seconds = _validate_and_save(config, folder, head, validate, started)
    print(f"{system}: solved in {seconds:.1f} s", flush=True)


def save_as_built(
    config: RunConfig,
    folder: RunFolder,
    head: keras.Model,
    validate: Validate | None,
    others: Callable[[Any], tuple[keras.Model, Validate | None]],
) -> None:
    """Validates a head that has nothing to train, and saves it in the run's folder.

    Of several settings that the system offers (`System.candidates`), those are taken that have the
    best figure of `training.select_on`, of equal ones the first.

    Args:
        config: settings of the run; its system is not `trained`.
        folder: where the model and the log are written.
        head: of the system, as built.
        validate: as for `fit_head`.
        others: function of the settings of a head to such a head and its validation.

    Raises:
        UserError: there are several processes, or the folder cannot be written.
    """
    if folder.model.exists() and folder.log.exists():  # it was stopped during evaluation
        return
    if config.strategy == "multi_worker":
        raise UserError(
            f"strategy: multi_worker: head.system: {config.head.system} has nothing to train"
        )
    started = time.perf_counter()
    chosen: dict[str, Any] = {}
    if validate is not None:
        head, validate, chosen = _best_of(config, head, validate, others)
    _validate_and_save(config, folder, head, validate, started, chosen)
    print(f"{config.head.system}: nothing to train", flush=True)


def _best_of(
    config: RunConfig,
    head: keras.Model,
    validate: Validate,
    others: Callable[[Any], tuple[keras.Model, Validate | None]],
) -> tuple[keras.Model, Validate, dict[str, Any]]:
    """Returns the best head of a system's candidates, its validation, and what was chosen."""
    settings, find = config.head.settings, SYSTEMS[config.head.system].candidates
    candidates = [settings] if find is None else find(settings)
    if candidates == [settings]:
        return head, validate, {}
    figures, best = [], None
    with progress(len(candidates), "choosing settings on validation photos", "setting") as bar:
        for candidate in candidates:
            bar.update()
            try:
                made, of_made = others(candidate)
            except UserError:  # the grid has fewer regions than are to be averaged
                continue
            if of_made is None:
                return head, validate, {}
            figure = selected_figure(of_made(), config.training)[0]
            if best is None or figure > max(figures):
                best = (made, of_made, candidate)
            figures.append(figure)
    if best is None:
        return head, validate, {}
    made, of_made, candidate = best
    before, after = dataclasses.asdict(settings), dataclasses.asdict(candidate)
    chosen = {name: value for name, value in after.items() if value != before[name]}
    listed = ", ".join(f"{name} {value}" for name, value in chosen.items())
    print(
        f"{config.head.system}: {listed}, the best of {len(figures)} settings on the validation "
        f"photos: {config.training.select_on} {100 * max(figures):.1f}, the worst "
        f"{100 * min(figures):.1f}",
        flush=True,
    )
    return made, of_made, {"chosen": chosen}


def _validate_and_save(
    config: RunConfig,
    folder: RunFolder,
    head: keras.Model,
    validate: Validate | None,
    started: float,
    chosen: Mapping[str, Any] = MappingProxyType({}),
) -> float:
    """Writes the head and a line of the log; returns the seconds since `started`."""
    record: dict[str, Any] = {"epoch": 1, "best_epoch": 1, **chosen}
    if validate is not None:
        record |= selected_figure(validate(), config.training)[1]
    record["seconds"] = round(time.perf_counter() - started, 2)
    save_model(folder.model, head)
    append_line(folder.log, json.dumps(record))
    return record["seconds"]


def _ignored(config: RunConfig) -> list[str]:
    """The settings of gradient descent that are not at their defaults, by their keys."""
    return [
        f"training.{field.name}"
        for field in dataclasses.fields(TrainingConfig)
        if field.name in _OF_STEPS
        and getattr(config.training, field.name) != getattr(TrainingConfig, field.name)
    ]


def _batches(
    source: FeatureSource | PhotoSource,
    labels: Labels,
    batch_size: int,
    report: Callable[[int], Any],
) -> Iterator[tuple[dict[str, tf.Tensor], tf.Tensor]]:
    begin = 0
    for inputs in source.evaluation_batches(batch_size):
        count = len(inputs["scene_feature"])
        yield inputs, tf.constant(labels[begin : begin + count])
        begin += count
        report(count)
