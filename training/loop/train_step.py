"""One step of the optimizer on one batch, the same on any number of devices.

The gradients are summed over the devices first, so that the sum can be clipped by its norm, and a
step that overflowed on one device is skipped on all. Every device then makes the same update of
its own copy of the weights.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import keras
import tensorflow as tf

from training.config import TrainingConfig
from training.loop.checkpoints import variable_names
from training.loop.objective import Objective
from training.loop.optimizer import (
    MOVING_STATISTICS,
    LossScale,
    WeightAverages,
    make_optimizer,
)

Inputs: TypeAlias = Any  # of a batch: tensors by name, or a single tensor


@dataclasses.dataclass(frozen=True)
class StepResult:
    """The outcome of a step.

    Attributes:
        loss: of the whole batch, before the update.
        learning_rate: the rate of the update.
        stop: whether any process of the run was asked to stop.
    """

    loss: float
    learning_rate: float
    stop: bool


class TrainStep:
    """A step: gradients of the batch's parts, their sum over parts and devices, the update.

    Args:
        settings: of the training.
        strategy: the devices; `model` was built in its scope.
        model: inputs of the training batches to scores, or to the outputs that the objective
            takes by name.
        objective: the losses to minimize.
        steps_per_epoch: for the schedule of the learning rate.
        slowed: variables of `model` with a learning rate of their own.
        learning_rate_scale: that rate, as a multiple of the others'. Defaults to `1.0`.
    """

    def __init__(
        self,
        settings: TrainingConfig,
        strategy: tf.distribute.Strategy,
        model: keras.Model,
        objective: Objective,
        steps_per_epoch: int,
        slowed: Iterable[keras.Variable] = (),
        learning_rate_scale: float = 1.0,
    ):
        self._settings = settings
        self._strategy = strategy
        self._model = model
        self._objective = objective
        names = variable_names(model)
        trained = model.trainable_variables
        self._weights = {names[id(variable)]: variable.value for variable in trained}
        self._constraints = [variable.constraint for variable in trained]
        with_own_rate = {id(variable) for variable in slowed}
        self._rate_scales = [
            learning_rate_scale if id(variable) in with_own_rate else 1.0 for variable in trained
        ]
        with strategy.scope():
            self.optimizer = make_optimizer(settings, self._weights, steps_per_epoch)
            self._loss_scale = LossScale() if settings.precision == "mixed_float16" else None
            self.averages: WeightAverages | None = None
            if settings.ema_momentum is not None:
                statistics = {
                    names[id(variable)]: variable.value
                    for variable in model.non_trainable_variables
                    if variable.name in MOVING_STATISTICS
                }
                averaged = self._weights | statistics
                self.averages = WeightAverages(averaged, settings.ema_momentum)
            # Each device's own sum over the parts of a batch; zero between two steps.
            self._sums = (
                [tf.Variable(tf.zeros_like(weight)) for weight in self._weights.values()]
                if settings.accumulation_steps > 1
                else []
            )

    @property
    def variables(self) -> dict[str, tf.Variable]:
        """What a checkpoint must hold beside the model, by name."""
        variables = _below("optimizer", self.optimizer.variables)
        if self._loss_scale:
            variables |= _below("loss_scale", self._loss_scale.variables)
        if self.averages:
            variables |= _below("averages", self.averages.variables)
        return variables

    def __call__(self, parts: Iterator, stop: bool) -> StepResult:
        """Makes one step.

        Args:
            parts: yields `(inputs, labels)`, `accumulation_steps` of which are one batch.
            stop: whether this process was asked to stop; the result tells it to all processes.
        """
        loss = 0.0
        for _ in range(self._settings.accumulation_steps - 1):
            loss += float(self._accumulate(*next(parts)))
        last_loss, rate, stops = self._finish(*next(parts), tf.constant(float(stop)))
        return StepResult(loss + float(last_loss), float(rate), float(stops) > 0)

    @tf.function
    def _accumulate(self, inputs: Inputs, labels: tf.Tensor) -> tf.Tensor:
        def replica_step(inputs: Inputs, labels: tf.Tensor) -> tf.Tensor:
            loss, gradients = self._gradients(inputs, labels)
            for total, gradient in zip(self._sums, gradients, strict=True):
                total.assign_add(gradient)
            return loss

        return self._sum(self._strategy.run(replica_step, (inputs, labels)))

    @tf.function
    def _finish(
        self, inputs: Inputs, labels: tf.Tensor, stop: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        rate = self.optimizer.learning_rate

        def replica_step(
            inputs: Inputs, labels: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            loss, gradients = self._gradients(inputs, labels)
            for i, total in enumerate(self._sums):
                gradients[i] += total
                total.assign(tf.zeros_like(total))
            # TensorFlow keeps a graph that sums over devices until the process ends, and with it
            # all that the graph uses: after many trainings in one process, all the memory.
            if self._strategy.num_replicas_in_sync > 1:
                replicas = tf.distribute.get_replica_context()
                gradients = replicas.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
            finite = tf.constant(True)
            if self._loss_scale:
                gradients = [gradient / self._loss_scale.value for gradient in gradients]
                finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(g)) for g in gradients])
                tf.cond(finite, lambda: self._update(gradients, rate), lambda: None)
            else:
                self._update(gradients, rate)
            return loss, tf.identity(stop), finite  # reduced below: a value of each device

        loss, stops, finite = self._strategy.run(replica_step, (inputs, labels))
        applied = self._strategy.experimental_local_results(finite)[0]  # the same on all devices
        self.optimizer.iterations.assign_add(tf.cast(applied, tf.int64))
        if self._loss_scale:
            self._loss_scale.update(applied)
        return self._sum(loss), rate, self._sum(stops)

    def _gradients(self, inputs: Inputs, labels: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Returns loss and gradients of this device's examples; they add up to the batch's."""
        with tf.GradientTape() as tape:
            outputs = self._model(inputs, training=True)
            if not isinstance(outputs, dict):
                outputs = {"scores": outputs}
            losses = self._objective.losses(labels, outputs)
            # A sum over devices and parts: the mean divides by the whole batch.
            divisor = self._settings.batch_size if self._objective.is_mean else 1
            loss = tf.reduce_sum(losses) / divisor
            scaled = loss * self._loss_scale.value if self._loss_scale else loss
        zero = tf.UnconnectedGradients.ZERO
        weights = list(self._weights.values())
        return loss, tape.gradient(scaled, weights, unconnected_gradients=zero)

    def _update(self, gradients: list[tf.Tensor], rate: tf.Tensor) -> None:
        """Changes this device's weights, by a gradient that is the same on all devices."""
        settings = self._settings
        if settings.clip_norm is not None:
            gradients, _ = tf.clip_by_global_norm(gradients, settings.clip_norm)
        decay = settings.optimizer.weight_decay
        for (name, weight), gradient, scale, constraint in zip(
            self._weights.items(), gradients, self._rate_scales, self._constraints, strict=True
        ):
            if decay and settings.optimizer.name == "adamw":
                weight.assign_sub(weight * decay * rate * scale)
            elif decay:  # L2, the weight_decay of PyTorch's Adam and SGD
                gradient += decay * weight
            self.optimizer.update(name, weight, gradient, rate * scale)
            if constraint is not None:
                weight.assign(constraint(weight))
        if self.averages:
            self.averages.update(self.optimizer.iterations)

    def _sum(self, values: Any) -> tf.Tensor:
        return self._strategy.reduce(tf.distribute.ReduceOp.SUM, values, axis=None)


def _below(prefix: str, variables: Mapping[str, tf.Variable]) -> dict[str, tf.Variable]:
    return {f"{prefix}/{name}": variable for name, variable in variables.items()}
