"""One step of the optimizer on one batch, the same on any number of devices.

The gradients are summed over the devices first, so that the sum can be clipped by its norm, and a
step that overflowed on one device is skipped on all. Every device then makes the same update of
its own copy of the weights.

A loss that is a sum over photos needs no more than that. For one that compares the photos of a
batch (`Objective.compares_images`), the scores of the whole batch are gathered first, see
`training.loop.whole_batch`; those of a batch in parts are computed in a first pass without
gradients.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import keras
import tensorflow as tf

from training.config import TrainingConfig
from training.loop.checkpoints import variable_names
from training.loop.devices import compiles
from training.loop.objective import Objective
from training.loop.optimizer import (
    MOVING_STATISTICS,
    LossScale,
    WeightAverages,
    make_optimizer,
)
from training.loop.step_results import StepResult
from training.loop.whole_batch import LayerState, Outputs, share_of_batch, share_of_parts

Inputs: TypeAlias = Any  # of a batch: tensors by name, or a single tensor


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
        devices, parts = strategy.num_replicas_in_sync, settings.accumulation_steps
        self._gathers = objective.compares_images and devices > 1
        self._two_passes = objective.compares_images and parts > 1
        if self._two_passes:
            self._layer_state = LayerState(strategy, model.non_trainable_variables)
        self.steps_per_call = 1 if parts > 1 else settings.steps_per_call
        if compiles(settings, model, strategy):
            self.compile_with_xla()

    def compile_with_xla(self) -> None:
        """Makes the last pass of each step, and so a step in one part, a program of XLA."""
        self._finish = tf.function(self._finish.python_function, autograph=False, jit_compile=True)

    @property
    def variables(self) -> dict[str, tf.Variable]:
        """What a checkpoint must hold beside the model, by name."""
        variables = _below("optimizer", self.optimizer.variables)
        if self._loss_scale:
            variables |= _below("loss_scale", self._loss_scale.variables)
        if self.averages:
            variables |= _below("averages", self.averages.variables)
        return variables

    @property
    def last_learning_rate(self) -> float:
        """The rate of the last update, which may have been made before a resumed run stopped."""
        optimizer = self.optimizer
        return float(optimizer.schedule(tf.maximum(optimizer.iterations - 1, 0)))

    def __call__(self, parts: Iterator, stop: bool) -> StepResult:
        """Makes one step.

        Args:
            parts: yields `(inputs, labels)`, `accumulation_steps` of which are one batch.
            stop: whether this process was asked to stop; the result tells it to all processes.
        """
        losses = []
        if self._two_passes:
            loss, parts = self._first_pass(parts)
            losses.append(loss)
        for _ in range(self._settings.accumulation_steps - 1):
            losses.append(self._accumulate(*next(parts)))
        result = self._finish(tf.constant(float(stop)), *next(parts))
        for loss in losses:
            result += tf.stack([tf.cast(loss, tf.float64), 0.0, 0.0])
        return StepResult(result)

    def many(self, batches: Iterator, count: int, stop: bool) -> list[StepResult]:
        """Makes some steps in one call of TensorFlow, for batches that are not in parts.

        Args:
            batches: yields `(inputs, labels)`.
            count: number of steps.
            stop: whether this process was asked to stop.
        """
        read = tuple(next(batches) for _ in range(count))
        return [StepResult(values) for values in self._finish_many(tf.constant(float(stop)), read)]

    @tf.function(autograph=False)
    def _finish_many(
        self, stop: tf.Tensor, batches: tuple[tuple[Inputs, tf.Tensor], ...]
    ) -> list[tf.Tensor]:
        return [self._finish(stop, *batch) for batch in batches]

    def _first_pass(self, parts: Iterator) -> tuple[tf.Tensor, Iterator]:
        """Returns the loss of a batch, and its parts with the slopes of the loss in their outputs.

        The second pass repeats the first one's dropout, and changes the statistics of batch
        normalization, which the first pass leaves as they were.
        """
        batch = [next(parts) for _ in range(self._settings.accumulation_steps)]
        self._layer_state.keep()
        outputs = [self._outputs_of_part(inputs) for inputs, _ in batch]
        self._layer_state.restore()
        loss, slopes = self._slopes(tuple(labels for _, labels in batch), tuple(outputs))
        second = [(*part, own) for part, own in zip(batch, slopes, strict=True)]
        return loss, iter(second)

    @tf.function(autograph=False)
    def _outputs_of_part(self, inputs: Inputs) -> Outputs:
        return self._strategy.run(self._outputs, (inputs,))

    @tf.function(autograph=False)
    def _slopes(
        self, labels: tuple[tf.Tensor, ...], outputs: tuple[Outputs, ...]
    ) -> tuple[tf.Tensor, list[dict[str, tf.Tensor]]]:
        def replica_slopes(
            labels: tuple[tf.Tensor, ...], outputs: tuple[Outputs, ...]
        ) -> tuple[tf.Tensor, list[dict[str, tf.Tensor]]]:
            return share_of_parts(self._objective, labels, outputs, self._settings.batch_size)

        loss, slopes = self._strategy.run(replica_slopes, (labels, outputs))
        return self._sum(loss), slopes

    @tf.function(autograph=False)
    def _accumulate(
        self, inputs: Inputs, labels: tf.Tensor, slopes: Outputs | None = None
    ) -> tf.Tensor:
        def replica_step(inputs: Inputs, labels: tf.Tensor, slopes: Outputs | None) -> tf.Tensor:
            loss, gradients = self._gradients(inputs, labels, slopes)
            for total, gradient in zip(self._sums, gradients, strict=True):
                total.assign_add(gradient)
            return loss

        return self._sum(self._strategy.run(replica_step, (inputs, labels, slopes)))

    @tf.function(autograph=False)
    def _finish(
        self,
        stop: tf.Tensor,
        inputs: Inputs,
        labels: tf.Tensor,
        slopes: Outputs | None = None,
    ) -> tf.Tensor:
        """Returns what `StepResult` holds."""
        rate = self.optimizer.learning_rate

        def replica_step(
            inputs: Inputs, labels: tf.Tensor, slopes: Outputs | None
        ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            loss, gradients = self._gradients(inputs, labels, slopes)
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

        loss, stops, finite = self._strategy.run(replica_step, (inputs, labels, slopes))
        applied = self._strategy.experimental_local_results(finite)[0]  # the same on all devices
        self.optimizer.iterations.assign_add(tf.cast(applied, tf.int64))
        if self._loss_scale:
            self._loss_scale.update(applied)
        numbers = (self._sum(loss), rate, self._sum(stops))
        return tf.stack([tf.cast(number, tf.float64) for number in numbers])

    def _gradients(
        self, inputs: Inputs, labels: tf.Tensor, slopes: Outputs | None
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Returns loss and gradients of this device's examples; they add up to the batch's.

        With the slopes of a first pass, which knows the loss, the loss is 0.
        """
        scale = self._loss_scale.value if self._loss_scale else None
        with tf.GradientTape() as tape:
            outputs = self._outputs(inputs)
            if slopes is not None:
                loss = tf.constant(0.0)
            elif self._gathers:
                with tape.stop_recording():
                    size = self._settings.batch_size
                    loss, slopes = share_of_batch(self._objective, labels, outputs, size)
            else:
                losses = self._objective.losses(labels, outputs)
                # A sum over devices and parts: the mean divides by the whole batch.
                divisor = self._settings.batch_size if self._objective.is_mean else 1
                loss = tf.reduce_sum(losses) / divisor
            target = loss if scale is None or slopes is not None else loss * scale
        weights = list(self._weights.values())
        zero = tf.UnconnectedGradients.ZERO
        if slopes is None:
            return loss, tape.gradient(target, weights, unconnected_gradients=zero)
        if scale is not None:
            slopes = {name: slope * tf.cast(scale, slope.dtype) for name, slope in slopes.items()}
        gradients = tape.gradient(
            [outputs[name] for name in slopes],
            weights,
            output_gradients=list(slopes.values()),
            unconnected_gradients=zero,
        )
        return loss, gradients

    def _outputs(self, inputs: Inputs) -> Outputs:
        outputs = self._model(inputs, training=True)
        return outputs if isinstance(outputs, dict) else {"scores": outputs}

    def _update(self, gradients: list[tf.Tensor], rate: tf.Tensor) -> None:
        """Changes this device's weights, by a gradient that is the same on all devices."""
        settings = self._settings
        if settings.clip_norm is not None:
            gradients, _ = tf.clip_by_global_norm(gradients, settings.clip_norm)
        chosen = settings.optimizer
        for (name, weight), gradient, scale, constraint in zip(
            self._weights.items(), gradients, self._rate_scales, self._constraints, strict=True
        ):
            # A vector is a bias or a scale of a normalization, which nothing draws away from 0.
            decays = chosen.decay_vectors or weight.shape.rank > 1
            decay = chosen.weight_decay if decays else 0.0
            if decay and chosen.name == "adamw":
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
