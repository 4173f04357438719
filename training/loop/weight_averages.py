"""An exponential moving average of a model's weights."""

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf

MOVING_STATISTICS = ("moving_mean", "moving_variance")  # of batch normalization


class WeightAverages:
    """The averages, which are validated and saved while training goes on with the weights.

    After t steps with weights w_1 … w_t and momentum m::

        average = Σ_i m^(t-i) · w_i / Σ_i m^(t-i)

    so that the random first weights have no part in it. The statistics of batch normalization
    are averaged as well, since they belong to the weights they were taken with.

    Args:
        model: whose weights; built in the scope of the strategy, as this is.
        momentum: m, in (0, 1).
    """

    def __init__(self, model: keras.Model, momentum: float):
        self._momentum = momentum
        statistics = [v for v in model.non_trainable_variables if v.name in MOVING_STATISTICS]
        self._weights = [v.value for v in [*model.trainable_variables, *statistics]]
        self.variables = [tf.Variable(weight, trainable=False) for weight in self._weights]

    def update(self, steps_before) -> None:
        """Takes the weights in; called on each device after a step.

        Args:
            steps_before: int, how many steps the averages hold already.
        """
        # In float64: 1 - m^t loses its digits where m is near 1.
        m = tf.constant(self._momentum, tf.float64)
        t = tf.cast(steps_before, tf.float64) + 1
        share = tf.cast((1 - m) / (1 - m**t), tf.float32)
        for average, weight in zip(self.variables, self._weights, strict=True):
            average.assign_add((weight - average) * share)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Puts the averages where the weights are, for the time of a `with` block."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        for average, weight in zip(self.variables, self._weights, strict=True):
            averaged, raw = average.numpy(), weight.numpy()
            weight.assign(averaged)
            average.assign(raw)
