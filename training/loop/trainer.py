"""The training loop, from top to bottom: step, epoch, validation, checkpoint, resume."""

import contextlib
import dataclasses
import json
import math
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from biam_tf.errors import UserError
from biam_tf.files import append_line, write_text
from biam_tf.progress import progress
from biam_tf.sparse_labels import Labels
from training.config import RunConfig, TrainingConfig
from training.data.input.shares import distributed_batches
from training.loop.checkpoints import Checkpoints, variable_names
from training.loop.devices import device_to_prefetch_to
from training.loop.objective import Objective
from training.loop.step_results import Observer, StepResult, StepValues, TimedIterator, fetch
from training.loop.stopping import StopRequest, stopping_between_steps
from training.loop.train_step import TrainStep
from training.loop.workers import Workers
from training.pipeline.run_folder import RunFolder, save_model
from training.scoring.validation import Validate, selected_figure

NOTABLE_WAIT = 0.05  # share of an epoch's time from which waiting for data is reported
REFRESH_SECONDS = 5.0  # between two fetches of the loss where steps are slow


@dataclasses.dataclass(frozen=True)
class TrainTarget:
    """The model that is trained.

    Attributes:
        model: inputs of the training batches to scores over the seen classes, or to the outputs
            that the objective takes by name.
        objective: the losses to minimize.
        saved: models to keep from the best epoch, by the path they are saved to.
        backbone: the part of `model` that `backbone.learning_rate_scale` applies to, if trained.
    """

    model: keras.Model
    objective: Objective
    saved: Mapping[pathlib.Path, keras.Model]
    backbone: keras.Model | None = None


class TrainingSource(Protocol):
    """Training examples, in an order that depends on the seed and the epoch alone."""

    def __len__(self) -> int:
        """Returns the number of examples of an epoch."""

    def training_batches(
        self,
        labels: Labels,
        batch_size: int,
        seed: int,
        epoch: int,
        skip_batches: int = 0,
    ) -> tf.data.Dataset:
        """Returns the batches (inputs by name, labels) of an epoch, from some batch on."""


class TrainState:
    """How far a training is; TensorFlow variables, which are saved in checkpoints.

    Attributes:
        epoch: complete epochs.
        step: steps done in the current epoch.
        loss_sum: sum of the losses of those steps.
        best_value: the best validation figure so far.
        best_epoch: its epoch, counted from 0; -1: none yet.
    """

    def __init__(self) -> None:
        self.epoch = tf.Variable(0, dtype=tf.int64)
        self.step = tf.Variable(0, dtype=tf.int64)
        self.loss_sum = tf.Variable(0.0, dtype=tf.float64)
        self.best_value = tf.Variable(-np.inf, dtype=tf.float64)
        self.best_epoch = tf.Variable(-1, dtype=tf.int64)

    @property
    def variables(self) -> dict[str, tf.Variable]:
        """The variables by name."""
        return {f"state/{name}": variable for name, variable in vars(self).items()}

    def has_ended(self, settings: TrainingConfig) -> bool:
        """Returns whether all epochs are done, or patience is exhausted."""
        epochs = int(self.epoch)
        without_improvement = epochs - 1 - int(self.best_epoch)
        return epochs >= settings.epochs or without_improvement >= (settings.patience or math.inf)


def train(
    config: RunConfig,
    folder: RunFolder,
    strategy: tf.distribute.Strategy,
    target: TrainTarget,
    source: TrainingSource,
    labels: Labels,
    validate: Validate | None,
    observers: Sequence[Observer] = (),
) -> None:
    """Trains to the last epoch, from where an earlier call with the same settings stopped.

    After every epoch, the best models so far and a checkpoint are in the run's folder; within a
    long epoch there are more checkpoints. Ctrl-C and SIGTERM finish the current step and write
    one. Where there are several processes, all of them call this; only the chief calls `validate`
    and `observers`, and reads and writes the folder, while the others wait.

    Args:
        config: settings of the run.
        folder: where checkpoints, models and the log are written.
        strategy: the devices; `target` was built in its scope.
        target: what is trained and what of it is saved.
        source: the training examples.
        labels: (N, S) int8 for the seen classes, +1, -1 or 0; every row has a positive.
        validate: returns the metrics of `evaluate_scores` on the validation split; without it
            the last epoch is kept.
        observers: are called after every step and epoch.

    Raises:
        UserError: there are fewer examples than one batch, the loss is no longer finite, or the
            folder cannot be written.
        KeyboardInterrupt: Ctrl-C.
        Terminated: SIGTERM, to this or another process of the run.
    """
    training = _Training(config, folder, strategy, target, source, labels, validate, observers)
    training.restore()
    with stopping_between_steps() as stop_request:
        training.run(stop_request)
    training.report_early_end()


class _Training:
    """A training in progress; the arguments are those of `train`."""

    def __init__(
        self,
        config: RunConfig,
        folder: RunFolder,
        strategy: tf.distribute.Strategy,
        target: TrainTarget,
        source: TrainingSource,
        labels: Labels,
        validate: Validate | None,
        observers: Sequence[Observer],
    ):
        self._settings = config.training
        self._folder, self._strategy, self._target = folder, strategy, target
        self._source, self._labels, self._validate = source, labels, validate
        self._workers = Workers(strategy)
        self._observers = observers if self._workers.is_chief else ()
        self._steps_per_epoch = len(source) // self._settings.batch_size
        if not self._steps_per_epoch:
            raise UserError(
                f"training.batch_size: {self._settings.batch_size}, but there are only "
                f"{len(source)} photos to train on; give a smaller one"
            )
        self._train_step = TrainStep(
            self._settings,
            strategy,
            target.model,
            target.objective,
            self._steps_per_epoch,
            target.backbone.trainable_variables if target.backbone else (),
            config.backbone.learning_rate_scale,
        )
        self._state = TrainState()
        self._variables = self._all_variables()
        self._checkpoints = Checkpoints(folder.checkpoints, self._variables, list(target.saved))
        self._saved_at = time.monotonic()
        self._asked_to_stop = False

    def _all_variables(self) -> dict[str, tf.Variable]:
        """Returns everything that the next step depends on, random generators included."""
        model = self._target.model
        names = variable_names(model)
        variables = {f"model/{names[id(own)]}": own.value for own in model.variables}
        return variables | self._train_step.variables | self._state.variables

    def restore(self) -> None:
        """Continues from the newest checkpoint, if there is one."""
        if self._workers.is_chief and self._checkpoints.restore():
            epoch, step = int(self._state.epoch), int(self._state.step)
            print(f"resuming {self._folder.path} after {epoch} epochs and {step} steps", flush=True)
            # A kill between the log and the checkpoint leaves a line too many.
            if self._folder.log.exists():
                lines = self._folder.log.read_text("utf-8", errors="replace").splitlines()
                write_text(self._folder.log, "".join(f"{line}\n" for line in lines[:epoch]))
        self._workers.copy_from_chief(self._variables.values())

    def run(self, stop_request: StopRequest) -> None:
        """Trains the epochs that are left."""
        self._saved_at = time.monotonic()
        while not self._state.has_ended(self._settings):
            self._run_epoch(stop_request)
            if stop_request and not self._workers.are_many:
                raise stop_request.error()
        if stop_request:
            raise stop_request.error()

    def report_early_end(self) -> None:
        """Prints why training ended before the last epoch, if it did."""
        settings, epochs = self._settings, int(self._state.epoch)
        if epochs < settings.epochs:
            print(
                f"no better {settings.select_on} in {settings.patience} epochs "
                f"(training.patience): training ends after epoch {epochs}",
                flush=True,
            )

    def _run_epoch(self, stop_request: StopRequest) -> None:
        epoch, first_step = int(self._state.epoch), int(self._state.step)
        started = time.perf_counter()
        parts = self._parts_of_batches(epoch, first_step)
        self._run_steps(parts, epoch, first_step, started, stop_request)
        record: dict[str, Any] = {
            "epoch": epoch + 1,
            "step": (epoch + 1) * self._steps_per_epoch,
            "loss": float(self._state.loss_sum) / self._steps_per_epoch,
            "learning_rate": self._train_step.last_learning_rate,
            **self._speed(self._steps_per_epoch - first_step, started, parts),
        }
        record |= self._keep_if_best()
        self._end_epoch(record, started)

    def _parts_of_batches(self, epoch: int, first_step: int) -> TimedIterator:
        # A part is a smaller batch of the same order; `accumulation_steps` of them are one batch.
        settings = self._settings
        batches = distributed_batches(
            self._strategy,
            self._source,
            self._labels,
            settings.batch_size // settings.accumulation_steps,
            settings.seed,
            epoch,
            skip_batches=first_step * settings.accumulation_steps,
        )
        device = device_to_prefetch_to(self._strategy)
        if device is not None:  # the batches for one device are a plain data set
            batches = batches.apply(tf.data.experimental.prefetch_to_device(device, 2))
        return TimedIterator(batches)

    def _run_steps(
        self,
        parts: TimedIterator,
        epoch: int,
        first_step: int,
        started: float,
        stop_request: StopRequest,
    ) -> None:
        with self._progress_bar(epoch, first_step) as bar:
            step, pending = first_step, list[StepResult]()
            fetched_at = time.monotonic()
            while step < self._steps_per_epoch:
                results = self._next_steps(parts, self._steps_per_epoch - step, stop_request)
                before, step = step, step + len(results)
                pending += results
                bar.update(len(results))
                for number, result in enumerate(results, start=before + 1):
                    for observer in self._observers:
                        observer.step(epoch * self._steps_per_epoch + number, StepValues(result))
                # The same steps in all processes: they stop together.
                every = self._settings.fetch_every
                is_turn = step // every > before // every or step == self._steps_per_epoch
                is_late = time.monotonic() - fetched_at >= REFRESH_SECONDS
                asked = bool(stop_request) and not self._workers.are_many
                if not (is_turn or is_late or asked or self._must_save()):
                    continue
                self._record_steps(pending, epoch, step)
                examples = self._settings.batch_size * (step - first_step)
                speed = examples / (time.perf_counter() - started)
                last = pending[-1]
                bar.set_postfix_str(
                    f"loss {last.loss:.4g}, lr {last.learning_rate:.2e}, {speed:.0f} images/s",
                    refresh=False,
                )
                stops = bool(stop_request)
                if self._workers.are_many:
                    self._asked_to_stop |= any(result.stop for result in pending)
                    stops = self._asked_to_stop and is_turn
                self._save_or_stop(stops, stop_request)
                fetched_at = time.monotonic()
                pending = []

    def _next_steps(
        self, parts: TimedIterator, left: int, stop_request: StopRequest
    ) -> list[StepResult]:
        """Makes the steps of one call of TensorFlow; does not wait for the device."""
        count = self._train_step.steps_per_call
        if 1 < count <= left:
            return self._train_step.many(parts, count, bool(stop_request))
        return [self._train_step(parts, bool(stop_request))]

    def _progress_bar(self, epoch: int, first_step: int) -> tqdm:
        if not self._workers.is_chief:
            return tqdm(disable=True)
        label = f"epoch {epoch + 1}/{self._settings.epochs}"
        return progress(self._steps_per_epoch, label, "step", first_step, summed_up=True)

    def _record_steps(self, results: Sequence[StepResult], epoch: int, last: int) -> None:
        """Fetches the losses of the steps up to `last`, and adds them to those of the epoch."""
        fetch(results)
        for step, result in enumerate(results, start=last - len(results) + 1):
            if not np.isfinite(result.loss):
                rate = self._settings.optimizer.learning_rate
                raise UserError(
                    f"the loss is {result.loss} at step {step} of epoch {epoch + 1}; try a lower "
                    f"training.optimizer.learning_rate (now {rate:g})"
                )
            self._state.loss_sum.assign_add(result.loss)
        self._state.step.assign(last)

    def _must_save(self) -> bool:
        minutes = (time.monotonic() - self._saved_at) / 60
        return minutes >= (self._settings.checkpoint_minutes or math.inf)

    def _save_or_stop(self, stop: bool, stop_request: StopRequest) -> None:
        if stop or self._must_save():
            if self._workers.is_chief:
                self._checkpoints.save()
            self._saved_at = time.monotonic()
        if stop:
            self._workers.wait_for_chief()
            raise stop_request.error()

    def _speed(self, steps: int, started: float, parts: TimedIterator) -> dict[str, float]:
        """Returns the speed of the steps that this process made, which are fewer if it resumed."""
        seconds = time.perf_counter() - started
        return {
            "images_per_second": round(steps * self._settings.batch_size / seconds, 1),
            "data_wait_share": round(parts.seconds_waited / seconds, 4),
        }

    def _keep_if_best(self) -> dict[str, Any]:
        """Saves the models if they are the best so far; returns what to add to the log."""
        record: dict[str, Any] = {}
        value = float(self._state.epoch)
        averages = self._train_step.averages
        with averages.in_place() if averages else contextlib.nullcontext():
            if self._validate is not None:
                # The others only wait: sharing out validation would save their time alone, at
                # the price of gathering all scores, and figures that differ in the last digits
                # between two kinds of machines would end training on some and not on others.
                if self._workers.is_chief:
                    value, record = selected_figure(self._validate(), self._settings)
                value = self._workers.from_chief(value)
            if value > self._state.best_value:
                if self._workers.is_chief:
                    for path, model in self._target.saved.items():
                        save_model(path, model)
                self._state.best_value.assign(value)
                self._state.best_epoch.assign(self._state.epoch)
        return record | {"best_epoch": int(self._state.best_epoch) + 1}

    def _end_epoch(self, record: dict[str, Any], started: float) -> None:
        self._state.epoch.assign_add(1)
        self._state.step.assign(0)
        self._state.loss_sum.assign(0.0)
        record["seconds"] = round(time.perf_counter() - started, 2)
        if self._workers.is_chief:
            append_line(self._folder.log, json.dumps(record))
            for observer in self._observers:
                observer.epoch(record)
            self._checkpoints.save()
            print(_format_epoch(record, self._settings), flush=True)
        self._saved_at = time.monotonic()


def _format_epoch(record: Mapping[str, Any], settings: TrainingConfig) -> str:
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
