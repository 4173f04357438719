"""The training loop, from top to bottom: step, epoch, validation, checkpoint, resume."""

import contextlib
import dataclasses
import json
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from biam_tf.errors import UserError
from biam_tf.losses import pairwise_ranking_loss
from biam_tf.progress import progress
from training.config import RunConfig, TrainingConfig
from training.run_folder import RunFolder, save_model, write_text
from training.schedules import WarmupThenDecay

CHECKPOINTS_KEPT = 2


@dataclasses.dataclass(frozen=True)
class Trainee:
    """What is trained.

    Attributes:
        model: inputs of the training batches to scores over the seen classes.
        saved: models to keep from the best epoch, by the path they are kept under.
    """

    model: keras.Model
    saved: dict


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

    def variables(self) -> dict[str, tf.Variable]:
        """Returns the variables by name."""
        return dict(vars(self))


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

    After every epoch the best models so far and a checkpoint lie in the run's folder. Ctrl-C
    and SIGTERM finish the step under way, write a checkpoint and raise `KeyboardInterrupt`.

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
        UserError: there are fewer examples than one batch, or the loss is no longer finite.
    """
    settings = config.training
    steps_per_epoch = len(source) // settings.batch_size
    with strategy.scope():
        optimizer = make_optimizer(settings, steps_per_epoch)
        optimizer.build(trainee.model.trainable_variables)
    train_step = _make_train_step(settings, strategy, trainee.model, optimizer)
    position = Position()
    checkpoints = _checkpoints(folder, trainee.model, optimizer, position)
    _restore(checkpoints, position, folder)

    with stopping_between_steps() as stop_requested:
        while position.epoch < settings.epochs:
            epoch, first_step = int(position.epoch), int(position.step)
            started = time.perf_counter()
            batches = strategy.experimental_distribute_dataset(
                source.training_batches(
                    labels, settings.batch_size, settings.seed, epoch, skip_batches=first_step
                )
            )
            with progress(
                steps_per_epoch, f"epoch {epoch + 1}/{settings.epochs}", "step", first_step
            ) as bar:
                for inputs, batch_labels in batches:
                    loss = float(train_step(inputs, batch_labels))
                    if not np.isfinite(loss):
                        raise UserError(
                            f"the loss is {loss} at step {int(position.step) + 1} of epoch "
                            f"{epoch + 1}; try a lower training.optimizer.learning_rate (now "
                            f"{settings.optimizer.learning_rate:g})"
                        )
                    position.step.assign_add(1)
                    position.loss_sum.assign_add(loss)
                    values = {"loss": loss, "learning_rate": float(optimizer.learning_rate)}
                    for observer in observers:
                        observer.step(epoch * steps_per_epoch + int(position.step), values)
                    speed = settings.batch_size * (int(position.step) - first_step)
                    speed /= time.perf_counter() - started
                    bar.set_postfix_str(
                        f"loss {loss:.4g}, lr {values['learning_rate']:.2e}, {speed:.0f} images/s",
                        refresh=False,
                    )
                    bar.update(1)
                    if stop_requested():
                        checkpoints.save()
                        raise KeyboardInterrupt
            record = {
                "epoch": epoch + 1,
                "step": (epoch + 1) * steps_per_epoch,
                "loss": float(position.loss_sum) / steps_per_epoch,
                "learning_rate": float(optimizer.learning_rate),
                "images_per_second": round(
                    (steps_per_epoch - first_step)
                    * settings.batch_size
                    / (time.perf_counter() - started),
                    1,
                ),
            }
            record |= _keep_if_best(settings, folder, trainee, position, validate)
            position.epoch.assign_add(1)
            position.step.assign(0)
            position.loss_sum.assign(0.0)
            record["seconds"] = round(time.perf_counter() - started, 2)
            _append(folder, record)
            for observer in observers:
                observer.epoch(record)
            checkpoints.save()
            print(_line(record, settings), flush=True)
            if stop_requested():
                raise KeyboardInterrupt


def make_optimizer(settings: TrainingConfig, steps_per_epoch: int) -> keras.Optimizer:
    """Returns the optimizer with its learning-rate schedule over the whole run."""
    chosen, schedule = settings.optimizer, settings.schedule
    rate = WarmupThenDecay(
        peak=chosen.learning_rate,
        warmup_steps=round(schedule.warmup_epochs * steps_per_epoch),
        total_steps=settings.epochs * steps_per_epoch,
        final=schedule.final_learning_rate,
        decay=schedule.decay,
    )
    if chosen.name == "sgd":
        optimizer = keras.optimizers.SGD(rate)
    elif chosen.name == "adam":
        optimizer = keras.optimizers.Adam(rate, chosen.beta_1, chosen.beta_2)
    else:
        optimizer = keras.optimizers.AdamW(rate, chosen.weight_decay, chosen.beta_1, chosen.beta_2)
    if settings.precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    return optimizer


def _make_train_step(settings: TrainingConfig, strategy, model, optimizer):
    mean_of_violations = settings.loss.reduction == "mean_of_violations"
    # A gradient is summed over the replicas: the mean divides by the *global* batch, and what
    # is no sum over images is shared between the replicas.
    divisor = settings.batch_size if mean_of_violations else 1
    coupled_decay = settings.optimizer.weight_decay if settings.optimizer.name != "adamw" else 0.0
    coupled_decay /= strategy.num_replicas_in_sync

    def replica_step(inputs, labels):
        with tf.GradientTape() as tape:
            scores = model(inputs, training=True)
            losses = pairwise_ranking_loss(labels, scores, settings.loss.margin, mean_of_violations)
            loss = tf.reduce_sum(losses) / divisor
            penalized = loss
            if coupled_decay:  # L2, as PyTorch's Adam and SGD mean weight_decay
                squares = [tf.nn.l2_loss(v.value) for v in model.trainable_variables]
                penalized += coupled_decay * tf.add_n(squares)
            scaled = optimizer.scale_loss(penalized)
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(scaled, variables), variables)
        return loss

    @tf.function
    def train_step(inputs, labels):
        losses = strategy.run(replica_step, args=(inputs, labels))
        return strategy.reduce(tf.distribute.ReduceOp.SUM, losses, axis=None)

    return train_step


def _keep_if_best(settings, folder, trainee, position, validate) -> dict:
    """Saves the models where they are the best so far; returns what the log should say."""
    if validate is None:
        value, record = float(position.epoch), {}
    else:
        metrics = validate()
        part = settings.select_on.removesuffix("_mAP")
        value = metrics[part]["mAP"]
        parts = [
            key
            for key in ("zsl", "gzsl", "seen")
            if metrics[key] and metrics[key]["classes_without_positives"] < metrics[key]["classes"]
        ]
        record = {"validation": {key: metrics[key]["mAP"] for key in parts}}
    if value > position.best_value:
        for path, model in trainee.saved.items():
            save_model(path, model)
        position.best_value.assign(value)
        position.best_epoch.assign(position.epoch)
    return record | {"best_epoch": int(position.best_epoch) + 1}


def _checkpoints(folder: RunFolder, model, optimizer, position) -> tf.train.CheckpointManager:
    # Variables by position: the same settings build the same variables in the same order. The
    # model's include the state of its random generators (dropout).
    variables = [v.value for v in [*model.variables, *optimizer.variables]]
    checkpoint = tf.train.Checkpoint(variables=variables, **position.variables())
    return tf.train.CheckpointManager(checkpoint, str(folder.checkpoints), CHECKPOINTS_KEPT)


def _restore(checkpoints: tf.train.CheckpointManager, position: Position, folder) -> None:
    if checkpoints.latest_checkpoint is None:
        return
    checkpoints.checkpoint.restore(checkpoints.latest_checkpoint).assert_consumed()
    epoch, step = int(position.epoch), int(position.step)
    print(f"resuming {folder.path} after {epoch} epochs and {step} steps", flush=True)
    # A kill between the log and the checkpoint leaves a line too many.
    if folder.log.exists():
        lines = folder.log.read_text().splitlines()
        write_text(folder.log, "".join(f"{line}\n" for line in lines[:epoch]))


def _append(folder: RunFolder, record: dict) -> None:
    with folder.log.open("a", encoding="utf-8") as log:
        log.write(json.dumps(record) + "\n")


def _line(record: dict, settings: TrainingConfig) -> str:
    validation = "  ".join(
        f"{part} mAP {100 * value:.1f}" for part, value in record.get("validation", {}).items()
    )
    best = " *" if record["best_epoch"] == record["epoch"] else ""
    return (
        f"epoch {record['epoch']:3d}/{settings.epochs}  loss {record['loss']:.4g}  "
        f"lr {record['learning_rate']:.2e}  {record['images_per_second']:.0f} images/s"
        + (f"  validation: {validation}" if validation else "")
        + best
    )


@contextlib.contextmanager
def stopping_between_steps():
    """Yields a function that says whether Ctrl-C or SIGTERM asked to stop.

    A second signal gets its usual effect at once, so that nobody is ever locked in.
    """
    asked = []
    previous = {}

    def ask(number, frame):
        asked.append(number)
        signal.signal(number, previous[number])

    for number in (signal.SIGINT, signal.SIGTERM):
        previous[number] = signal.signal(number, ask)
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
