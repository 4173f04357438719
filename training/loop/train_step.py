"""One step of the optimizer on one batch, the same on any number of devices.

Keras optimizers sum the gradient over the devices as they apply it, which is too late to clip it
by the norm of the sum, or to skip a step that overflowed on one device only. Here the sum comes
first; every device then makes the same update of its own copy of the weights.
"""

import dataclasses
from collections.abc import Iterable, Iterator

import keras
import tensorflow as tf

from training.config import TrainingConfig
from training.loop.fused_adam import FusedAdam
from training.loop.objective import Objective
from training.loop.schedules import WarmupThenDecay
from training.loop.weight_averages import WeightAverages

INITIAL_LOSS_SCALE = 2.0**15
STEPS_UNTIL_LOSS_SCALE_GROWS = 2000


@dataclasses.dataclass(frozen=True)
class StepResult:
    """What a step gives.

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
        strategy: devices; `model` was built in its scope.
        model: inputs of the training batches to scores, or to what the objective takes by name.
        objective: what is made small.
        steps_per_epoch: for the learning rate's schedule.
        slowed: variables of `model` with a learning rate of their own.
        learning_rate_scale: theirs, as a share of the others'.
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
        self._weights = [variable.value for variable in model.trainable_variables]
        self._constraints = [variable.constraint for variable in model.trainable_variables]
        slowed = {id(variable) for variable in slowed}
        self._rates = [
            learning_rate_scale if id(variable) in slowed else 1.0
            for variable in model.trainable_variables
        ]
        with strategy.scope():
            self.optimizer = make_optimizer(settings, steps_per_epoch)
            self.optimizer.build(model.trainable_variables)
            self._loss_scale = LossScale() if settings.precision == "mixed_float16" else None
            self.averages = settings.ema_momentum and WeightAverages(model, settings.ema_momentum)
            # Each device's own sum over the parts of a batch; zero between two steps.
            self._sums = (
                [tf.Variable(tf.zeros_like(weight)) for weight in self._weights]
                if settings.accumulation_steps > 1
                else []
            )

    @property
    def variables(self) -> list[tf.Variable]:
        """What a checkpoint must hold beside the model."""
        variables = [variable.value for variable in self.optimizer.variables]
        if self._loss_scale:
            variables += self._loss_scale.variables
        if self.averages:
            variables += self.averages.variables
        return variables

    def __call__(self, parts: Iterator, stop: bool) -> StepResult:
        """Makes one step.

        Args:
            parts: gives `(inputs, labels)`, `accumulation_steps` of which are one batch.
            stop: whether this process was asked to stop; all learn of it at the same step.
        """
        loss = 0.0
        for _ in range(self._settings.accumulation_steps - 1):
            loss += float(self._accumulate(*next(parts)))
        last_loss, rate, stops = self._finish(*next(parts), tf.constant(float(stop)))
        return StepResult(loss + float(last_loss), float(rate), float(stops) > 0)

    @tf.function
    def _accumulate(self, inputs, labels):
        def replica_step(inputs, labels):
            loss, gradients = self._gradients(inputs, labels)
            for total, gradient in zip(self._sums, gradients, strict=True):
                total.assign_add(gradient)
            return loss

        return self._sum(self._strategy.run(replica_step, (inputs, labels)))

    @tf.function
    def _finish(self, inputs, labels, stop):
        rate = tf.cast(self.optimizer.learning_rate, tf.float32)

        def replica_step(inputs, labels):
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

    def _gradients(self, inputs, labels):
        """Loss and gradient of this device's examples; their sum over devices is the batch's."""
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
        return loss, tape.gradient(scaled, self._weights, unconnected_gradients=zero)

    def _update(self, gradients, rate) -> None:
        """Changes this device's weights, by a gradient that is the same on all devices."""
        settings = self._settings
        if settings.clip_norm is not None:
            gradients, _ = tf.clip_by_global_norm(gradients, settings.clip_norm)
        decay = settings.optimizer.weight_decay
        for weight, gradient, scale, constraint in zip(
            self._weights, gradients, self._rates, self._constraints, strict=True
        ):
            if decay and settings.optimizer.name == "adamw":
                weight.assign_sub(weight * decay * rate * scale)
            elif decay:  # L2, as PyTorch's Adam and SGD mean weight_decay
                gradient += decay * weight
            self.optimizer.update_step(gradient, weight, rate * scale)
            if constraint is not None:
                weight.assign(constraint(weight))
        if self.averages:
            self.averages.update(self.optimizer.iterations)

    def _sum(self, values):
        return self._strategy.reduce(tf.distribute.ReduceOp.SUM, values, axis=None)


class LossScale:
    """The factor that keeps float16 gradients off zero: halved when one overflows, else grown.

    Keras's own looks at each device's gradient before they are summed, so that devices could
    decide differently.
    """

    def __init__(self):
        self.value = tf.Variable(INITIAL_LOSS_SCALE, trainable=False)
        self._good_steps = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.variables = [self.value, self._good_steps]

    def update(self, finite: tf.Tensor) -> None:
        """Takes note of a step; called outside the devices' own part of it."""
        good_steps = tf.where(finite, self._good_steps + 1, 0)
        grows = good_steps >= STEPS_UNTIL_LOSS_SCALE_GROWS
        self.value.assign(self.value * tf.where(finite, tf.where(grows, 2.0, 1.0), 0.5))
        self._good_steps.assign(tf.where(grows, tf.zeros_like(good_steps), good_steps))


def make_optimizer(settings: TrainingConfig, steps_per_epoch: int) -> keras.Optimizer:
    """Returns the optimizer with its learning-rate schedule over the whole run.

    Weight decay, clipping and averages are the step's: see `TrainStep`.
    """
    chosen, schedule = settings.optimizer, settings.schedule
    rate = WarmupThenDecay(
        peak=chosen.learning_rate,
        warmup_steps=round(schedule.warmup_epochs * steps_per_epoch),
        total_steps=settings.epochs * steps_per_epoch,
        final=schedule.final_learning_rate,
        decay=schedule.decay,
    )
    if chosen.name == "sgd":
        return keras.optimizers.SGD(rate)
    return FusedAdam(rate, chosen.beta_1, chosen.beta_2)
