"""What a training step does to the weights: learning rate, update, loss scale, moving average.

Everything here is called on each device, with a gradient that is the same on all of them, except
where it says otherwise. Variables are created in the scope of the strategy, and are named after
the weights they belong to: a checkpoint finds them by these names.
"""

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from training.config import TrainingConfig

INITIAL_LOSS_SCALE = 2.0**15
STEPS_UNTIL_LOSS_SCALE_GROWS = 2000
MOVING_STATISTICS = ("moving_mean", "moving_variance")  # of batch normalization


@keras.saving.register_keras_serializable(package="biam_tf")
class WarmupThenDecay(keras.optimizers.schedules.LearningRateSchedule):
    """A linear warm-up to the peak, then a constant rate or half a cosine.

    Gradual warm-up as in BiAM's training details (section 3). Step 0 already has
    `1 / warmup_steps` of the peak.

    Args:
        peak: float, learning rate at the end of the warm-up.
        warmup_steps: int, 0 for none.
        total_steps: int, steps of the whole run.
        final: float, learning rate at the last step of the cosine. Defaults to `0.0`.
        decay: `"cosine"` or `"constant"`. Defaults to `"cosine"`.
    """

    def __init__(
        self,
        peak: float,
        warmup_steps: int,
        total_steps: int,
        final: float = 0.0,
        decay: str = "cosine",
    ):
        self.peak = peak
        self.warmup_steps = warmup_steps
        self.total_steps = total_steps
        self.final = final
        self.decay = decay

    def __call__(self, step: Any) -> tf.Tensor:
        """Returns the learning rate of `step`, an integer counted from 0, as float32."""
        step = ops.cast(step, "float32")
        if self.decay == "cosine":
            steps_of_decay = max(1, self.total_steps - self.warmup_steps - 1)
            progress = ops.clip((step - self.warmup_steps) / steps_of_decay, 0.0, 1.0)
            cosine = 0.5 * (1.0 + ops.cos(math.pi * progress))
            rate = self.final + (self.peak - self.final) * cosine
        else:
            rate = ops.convert_to_tensor(self.peak, dtype="float32")
        if self.warmup_steps:
            rising = self.peak * (step + 1.0) / self.warmup_steps
            rate = ops.where(step < self.warmup_steps, rising, rate)
        return rate

    def get_config(self) -> dict[str, Any]:
        return {
            "peak": self.peak,
            "warmup_steps": self.warmup_steps,
            "total_steps": self.total_steps,
            "final": self.final,
            "decay": self.decay,
        }


class GradientDescent:
    """Stochastic gradient descent, with or without momentum, as `keras.optimizers.SGD`.

    With the gradient g, the rate r and the momentum m, a velocity v starts at 0::

        v = m · v - r · g
        w = w + v                   or, after Nesterov,  w = w + m · v - r · g

    The Keras optimizers are not used: they clip before the gradients of the devices are summed,
    and offer the update of a single weight as private methods only.

    Args:
        weights: the trained variables, by name.
        schedule: the learning rate as a function of the number of updates.
        momentum: share of the velocity that a step keeps. Defaults to `0.0`.
        nesterov: whether the gradient is applied after the momentum. Defaults to `False`.
    """

    def __init__(
        self,
        weights: Mapping[str, tf.Variable],
        schedule: keras.optimizers.schedules.LearningRateSchedule,
        momentum: float = 0.0,
        nesterov: bool = False,
    ):
        self.schedule = schedule
        self._momentum, self._nesterov = momentum, nesterov
        self.iterations = tf.Variable(
            0,
            dtype=tf.int64,
            trainable=False,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )
        self.variables: dict[str, tf.Variable] = {"iterations": self.iterations}
        if momentum:
            self._add_moments(weights, "momentum")

    def _add_moments(self, weights: Mapping[str, tf.Variable], *moments: str) -> None:
        for name, weight in weights.items():
            for moment in moments:
                zeros = tf.zeros(weight.shape, weight.dtype)
                self.variables[f"{moment}/{name}"] = tf.Variable(zeros, trainable=False)

    @property
    def learning_rate(self) -> tf.Tensor:
        """The rate of the next update, float32."""
        return tf.cast(self.schedule(self.iterations), tf.float32)

    def update(self, name: str, weight: tf.Variable, gradient: tf.Tensor, rate: tf.Tensor) -> None:
        """Changes one weight.

        Args:
            name: of the weight.
            weight: the variable.
            gradient: of its shape.
            rate: float32 scalar, the learning rate.
        """
        step = tf.cast(gradient, weight.dtype) * tf.cast(rate, weight.dtype)
        if not self._momentum:
            weight.assign_sub(step)
            return
        velocity = self.variables[f"momentum/{name}"]
        velocity.assign(self._momentum * velocity - step)
        weight.assign_add(self._momentum * velocity - step if self._nesterov else velocity)


class Adam(GradientDescent):
    """Adam (Kingma and Ba, ICLR 2015), each weight by TensorFlow's one fused operation.

    The same numbers to rounding as `keras.optimizers.Adam`, whose update is a dozen operations:
    a step of 2.6 million weights takes 3.3 ms of a 2-core CPU instead of 8.2.

    Args:
        weights: the trained variables, by name.
        schedule: the learning rate as a function of the number of updates.
        beta_1: decay of the first moment.
        beta_2: decay of the second moment.
        epsilon: added to the root of the second moment. Defaults to `1e-7`.
    """

    def __init__(
        self,
        weights: Mapping[str, tf.Variable],
        schedule: keras.optimizers.schedules.LearningRateSchedule,
        beta_1: float,
        beta_2: float,
        epsilon: float = 1e-7,
    ):
        super().__init__(weights, schedule)
        self._beta_1, self._beta_2, self._epsilon = beta_1, beta_2, epsilon
        self._add_moments(weights, "momentum", "velocity")

    def update(self, name: str, weight: tf.Variable, gradient: tf.Tensor, rate: tf.Tensor) -> None:
        """Changes one weight; see `GradientDescent.update`."""
        dtype = weight.dtype
        updates = tf.cast(self.iterations + 1, dtype)
        beta_1, beta_2 = tf.constant(self._beta_1, dtype), tf.constant(self._beta_2, dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=weight.handle,
            m=self.variables[f"momentum/{name}"].handle,
            v=self.variables[f"velocity/{name}"].handle,
            beta1_power=tf.pow(beta_1, updates),
            beta2_power=tf.pow(beta_2, updates),
            lr=tf.cast(rate, dtype),
            beta1=beta_1,
            beta2=beta_2,
            epsilon=tf.constant(self._epsilon, dtype),
            grad=tf.cast(gradient, dtype),
        )


def make_optimizer(
    settings: TrainingConfig, weights: Mapping[str, tf.Variable], steps_per_epoch: int
) -> GradientDescent:
    """Returns the optimizer of a configuration, with its learning rates over the whole run.

    Weight decay and clipping are done by `TrainStep`.

    Args:
        settings: of the training.
        weights: the trained variables, by name.
        steps_per_epoch: steps of the optimizer in an epoch.
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
        return GradientDescent(weights, rate, chosen.momentum, chosen.nesterov)
    return Adam(weights, rate, chosen.beta_1, chosen.beta_2)


class LossScale:
    """The factor that keeps float16 gradients from underflow: halved on overflow, else grown.

    Keras' own looks at the gradient of each device before they are summed, so that devices could
    decide differently.
    """

    def __init__(self) -> None:
        self.value = tf.Variable(INITIAL_LOSS_SCALE, trainable=False)
        self._good_steps = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.variables = {"value": self.value, "good_steps": self._good_steps}

    def update(self, finite: tf.Tensor) -> None:
        """Updates the loss scale after a step; called once, not on each device.

        Args:
            finite: whether all gradients of the step were finite.
        """
        good_steps = tf.where(finite, self._good_steps + 1, 0)
        grows = good_steps >= STEPS_UNTIL_LOSS_SCALE_GROWS
        self.value.assign(self.value * tf.where(finite, tf.where(grows, 2.0, 1.0), 0.5))
        self._good_steps.assign(tf.where(grows, tf.zeros_like(good_steps), good_steps))


class WeightAverages:
    """Exponential moving averages of weights, which are validated and saved in their place.

    After t steps with weights w_1 … w_t and momentum m::

        average = Σ_i m^(t-i) · w_i / Σ_i m^(t-i)

    so that the random first weights have no part in it. The statistics of batch normalization
    are averaged as well, since they belong to the weights they were computed with.

    Args:
        weights: the variables to average, by name; see `averaged_weights`.
        momentum: m, in (0, 1).
    """

    def __init__(self, weights: Mapping[str, tf.Variable], momentum: float):
        self._momentum = momentum
        self._weights = dict(weights)
        self.variables = {
            name: tf.Variable(weight, trainable=False) for name, weight in weights.items()
        }

    def update(self, steps_before: tf.Tensor) -> None:
        """Takes in the weights of a step.

        Args:
            steps_before: int, the number of steps in the averages so far.
        """
        # In float64: 1 - m^t loses its digits where m is near 1.
        m = tf.constant(self._momentum, tf.float64)
        t = tf.cast(steps_before, tf.float64) + 1
        share = tf.cast((1 - m) / (1 - m**t), tf.float32)
        for name, average in self.variables.items():
            average.assign_add((self._weights[name] - average) * share)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Exchanges weights and averages for the time of a `with` block; not on each device."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        for name, average in self.variables.items():
            weight = self._weights[name]
            averaged, raw = average.numpy(), weight.numpy()
            weight.assign(averaged)
            average.assign(raw)
