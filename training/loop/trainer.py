"""The training loop, from top to bottom: step, epoch, validation, checkpoint, resume."""

import contextlib
import dataclasses
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from biam_tf.errors import UserError
from biam_tf.files import append_line, write_text
from biam_tf.progress import progress
from training.config import RunConfig, TrainingConfig
from training.loop.checkpoints import Checkpoints
from training.loop.objective import Objective
from training.loop.stopping import stopping_between_steps
from training.loop.train_step import TrainStep
from training.loop.workers import Workers
from training.pipeline.run_folder import RunFolder, save_model

NOTABLE_WAIT = 0.05  # of an epoch's time: more than this, waiting for data is worth a word


@dataclasses.dataclass(frozen=True)
class Trainee:
    """What is trained.

    Attributes:
        model: inputs of the training batches to scores over the seen classes, or to what the
            objective takes by name.
        objective: what is made small.
        saved: models to keep from the best epoch, by the path they are kept under.
        backbone: the part of `model` that `backbone.learning_rate_scale` is for, if trained.
    """

    model: keras.Model
    objective: Objective
    saved: dict
    backbone: keras.Model | None = None


class Observer(Protocol):
    """Is told how a training goes, after the fact; it changes nothing."""

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """Is told the loss and the learning rate of a step, counted from 1 over the whole run."""

    def epoch(self, record: Mapping[str, Any]) -> None:
        """Is told the line that goes into the run's log after an epoch."""


class Position:
    """How far a run has come; TensorFlow variables, so that a checkpoint carries them."""

    def __init__(self):
        self.epoch = tf.Variable(0, dtype=tf.int64)  # epochs that are complete
        self.step = tf.Variable(0, dtype=tf.int64)  # steps done in the epoch under way
        self.loss_sum = tf.Variable(0.0, dtype=tf.float64)  # over those steps
        self.best_value = tf.Variable(-np.inf, dtype=tf.float64)
        self.best_epoch = tf.Variable(-1, dtype=tf.int64)

    def variables(self) -> list[tf.Variable]:
        """Returns the variables, always in the same order."""
        return list(vars(self).values())


def train(
    config: RunConfig,
    folder: RunFolder,
    strategy: tf.distribute.Strategy,
    trainee: Trainee,
    source,
    labels: np.ndarray,
    validate: Callable[[], dict] | None,
    observers: Sequence[Observer] = (),
) -> None:
    """Trains to the last epoch, from wherever an earlier call with the same settings stopped.

    After every epoch the best models so far and a checkpoint lie in the run's folder; within a
    long epoch there are more checkpoints. Ctrl-C and SIGTERM finish the step under way and write
    one. Where there are several processes, all of them call this; `validate` and `observers` are
    called by the chief alone, which alone reads and writes the folder, while the others wait.

    Args:
        config: settings of the run.
        folder: where checkpoints, models and the log go.
        strategy: devices; `trainee` was built in its scope.
        trainee: what is trained and what of it is kept.
        source: a `FeatureSource` or `PhotoSource` of the training examples.
        labels: (N, S) int8 for the seen classes, +1, -1 or 0; every row has a positive.
        validate: returns the metrics of `evaluate_scores` on the validation split; without it
            the last epoch is kept.
        observers: are told of every step and epoch.

    Raises:
        UserError: there are fewer examples than one batch, the loss is no longer finite, or the
            folder cannot be written.
        KeyboardInterrupt: Ctrl-C.
        Terminated: SIGTERM, to this or another process of the run.
    """
    settings = config.training
    workers = Workers(strategy)
    steps_per_epoch = len(source) // settings.batch_size
    if not steps_per_epoch:
        raise UserError(
            f"training.batch_size: {settings.batch_size}, but there are only {len(source)} photos "
            "to train on; give a smaller one"
        )
    slowed = trainee.backbone.trainable_variables if trainee.backbone else ()
    train_step = TrainStep(
        settings,
        strategy,
        trainee.model,
        trainee.objective,
        steps_per_epoch,
        slowed,
        config.backbone.learning_rate_scale,
    )
    position = Position()
    variables = [v.value for v in trainee.model.variables]  # with those of the random generators
    variables += [*train_step.variables, *position.variables()]
    checkpoints = Checkpoints(folder.checkpoints, variables, list(trainee.saved))
    if workers.is_chief and checkpoints.restore():
        _resume(folder, position)
    workers.copy_from_chief(variables)
    observers = observers if workers.is_chief else ()

    with stopping_between_steps() as stop_request:
        saved_at = time.monotonic()
        while not _has_ended(position, settings):
            epoch, first_step = int(position.epoch), int(position.step)
            started = time.perf_counter()
            parts = _parts_of_batches(source, labels, settings, strategy, epoch, first_step)
            bar = progress if workers.is_chief else _no_progress
            with bar(
                steps_per_epoch, f"epoch {epoch + 1}/{settings.epochs}", "step", first_step
            ) as bar:
                for step in range(first_step + 1, steps_per_epoch + 1):
                    result = train_step(parts, bool(stop_request))
                    _check_finite(result.loss, settings, epoch, step)
                    position.step.assign(step)
                    position.loss_sum.assign_add(result.loss)
                    values = {"loss": result.loss, "learning_rate": result.learning_rate}
                    for observer in observers:
                        observer.step(epoch * steps_per_epoch + step, values)
                    speed = settings.batch_size * (step - first_step)
                    speed /= time.perf_counter() - started
                    bar.set_postfix_str(
                        f"loss {result.loss:.4g}, lr {result.learning_rate:.2e}, "
                        f"{speed:.0f} images/s",
                        refresh=False,
                    )
                    bar.update(1)
                    # Of several processes, all learn of a request within the same step.
                    stop = result.stop if workers.are_many else bool(stop_request)
                    minutes = (time.monotonic() - saved_at) / 60
                    if stop or minutes >= (settings.checkpoint_minutes or math.inf):
                        if workers.is_chief:
                            checkpoints.save()
                        saved_at = time.monotonic()
                    if stop:
                        workers.wait_for_chief()
                        raise stop_request.error()
            record = {
                "epoch": epoch + 1,
                "step": (epoch + 1) * steps_per_epoch,
                "loss": float(position.loss_sum) / steps_per_epoch,
                "learning_rate": float(train_step.optimizer.learning_rate),
                **_speed(steps_per_epoch - first_step, settings, started, parts),
            }
            record |= _keep_if_best(settings, workers, trainee, train_step, position, validate)
            position.epoch.assign_add(1)
            position.step.assign(0)
            position.loss_sum.assign(0.0)
            record["seconds"] = round(time.perf_counter() - started, 2)
            if workers.is_chief:
                append_line(folder.log, json.dumps(record))
                for observer in observers:
                    observer.epoch(record)
                checkpoints.save()
                print(_line(record, settings), flush=True)
            saved_at = time.monotonic()
            if stop_request and not workers.are_many:
                raise stop_request.error()
        if stop_request:
            raise stop_request.error()
    if int(position.epoch) < settings.epochs:
        print(
            f"no better {settings.select_on} in {settings.patience} epochs (training.patience): "
            f"training ends after epoch {int(position.epoch)}",
            flush=True,
        )


def _has_ended(position: Position, settings: TrainingConfig) -> bool:
    epochs = int(position.epoch)
    without_improvement = epochs - 1 - int(position.best_epoch)
    return epochs >= settings.epochs or without_improvement >= (settings.patience or math.inf)


class _Parts:
    """The parts of an epoch's batches, and how long training waited for them."""

    def __init__(self, distributed):
        self._iterator = iter(distributed)
        self.seconds_waited = 0.0

    def __iter__(self):
        return self

    def __next__(self):
        started = time.perf_counter()
        part = next(self._iterator)
        self.seconds_waited += time.perf_counter() - started
        return part


def _parts_of_batches(source, labels, settings, strategy, epoch, first_step) -> _Parts:
    # A part is a smaller batch of the same order; `accumulation_steps` of them are one batch.
    return _Parts(
        strategy.experimental_distribute_dataset(
            source.training_batches(
                labels,
                settings.batch_size // settings.accumulation_steps,
                settings.seed,
                epoch,
                skip_batches=first_step * settings.accumulation_steps,
            )
        )
    )


def _check_finite(loss: float, settings: TrainingConfig, epoch: int, step: int) -> None:
    if not np.isfinite(loss):
        raise UserError(
            f"the loss is {loss} at step {step} of epoch {epoch + 1}; try a lower "
            f"training.optimizer.learning_rate (now {settings.optimizer.learning_rate:g})"
        )


def _speed(steps: int, settings: TrainingConfig, started: float, parts: _Parts) -> dict:
    """Of the steps that this process did of the epoch, which are fewer if it resumed."""
    seconds = time.perf_counter() - started
    return {
        "images_per_second": round(steps * settings.batch_size / seconds, 1),
        "data_wait_share": round(parts.seconds_waited / seconds, 4),
    }


def _keep_if_best(settings, workers, trainee, train_step, position, validate) -> dict:
    """Saves the models where they are the best so far; returns what the log should say."""
    record, value = {}, float(position.epoch)
    averages = train_step.averages
    with averages.in_place() if averages else contextlib.nullcontext():
        if validate is not None:
            # The others only wait: sharing out validation would save their time alone, at the
            # price of gathering all scores, and figures that differ in the last digits between
            # two kinds of machines would end training on some and not on others.
            if workers.is_chief:
                value, record = validated(validate(), settings)
            value = workers.from_chief(value)
        if value > position.best_value:
            if workers.is_chief:
                for path, model in trainee.saved.items():
                    save_model(path, model)
            position.best_value.assign(value)
            position.best_epoch.assign(position.epoch)
    return record | {"best_epoch": int(position.best_epoch) + 1}


def validated(metrics: dict, settings: TrainingConfig) -> tuple[float, dict]:
    """Returns the figure that decides, and what the log should say."""
    parts = [
        key
        for key in ("zsl", "gzsl", "seen")
        if metrics[key] and metrics[key]["classes_without_positives"] < metrics[key]["classes"]
    ]
    part, figure = settings.select_on.split("_", 1)
    record = {"validation": {key: metrics[key]["mAP"] for key in parts}}
    if figure == "weighted_mAP":
        record["validation_weighted"] = {key: metrics[key][figure] for key in parts}
    return metrics[part][figure], record


def _resume(folder: RunFolder, position: Position) -> None:
    epoch, step = int(position.epoch), int(position.step)
    print(f"resuming {folder.path} after {epoch} epochs and {step} steps", flush=True)
    # A kill between the log and the checkpoint leaves a line too many.
    if folder.log.exists():
        lines = folder.log.read_text(encoding="utf-8").splitlines()
        write_text(folder.log, "".join(f"{line}\n" for line in lines[:epoch]))


def _no_progress(*arguments) -> tqdm:
    """The bar of a worker that is not the chief."""
    return tqdm(disable=True)


def _line(record: dict, settings: TrainingConfig) -> str:
    validation = "  ".join(
        f"{part} {kind}mAP {100 * value:.1f}"
        for key, kind in (("validation", ""), ("validation_weighted", "weighted "))
        for part, value in record.get(key, {}).items()
    )
    waits = record["data_wait_share"] >= NOTABLE_WAIT
    best = " *" if record["best_epoch"] == record["epoch"] else ""
    return (
        f"epoch {record['epoch']:3d}/{settings.epochs}  loss {record['loss']:.4g}  "
        f"lr {record['learning_rate']:.2e}  {record['images_per_second']:.0f} images/s"
        + (f" ({record['data_wait_share']:.0%} waiting for data)" if waits else "")
        + (f"  validation: {validation}" if validation else "")
        + best
    )
