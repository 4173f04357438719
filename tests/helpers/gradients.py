"""Gradients of a layer's weights with any backend of Keras."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np


def gradients_of(
    layer: keras.Layer, inputs: Any, loss_of: Callable[[Any], Any], **arguments: Any
) -> list[np.ndarray]:
    """Returns the gradients of a loss of the layer's output, one for each trainable weight.

    Args:
        layer: built.
        inputs: arrays, as the layer takes them.
        loss_of: function of the output to a number, in `keras.ops`.
        **arguments: of the call, such as `training=True`.
    """
    backend = keras.backend.backend()
    variables = layer.trainable_variables
    if not variables:
        return []
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = loss_of(layer(inputs, **arguments))
        found = tape.gradient(loss, [variable.value for variable in variables])
    elif backend == "jax":
        import jax

        def loss(values):
            others = [variable.value for variable in layer.non_trainable_variables]
            output, _ = layer.stateless_call(values, others, inputs, **arguments)
            return loss_of(output)

        found = jax.jit(jax.grad(loss))([variable.value for variable in variables])
    else:
        loss_of(layer(inputs, **arguments)).backward()
        found = [variable.value.grad for variable in variables]
        for variable in variables:
            variable.value.grad = None
    return [keras.ops.convert_to_numpy(gradient) for gradient in found]


def compiled(layer: keras.Layer) -> Callable[[Any], Any] | None:
    """Returns the layer compiled by XLA; `None` with a backend that does not use it."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.function(layer, jit_compile=True)
    if backend == "jax":
        import jax

        weights = [v.value for v in layer.trainable_variables]
        others = [v.value for v in layer.non_trainable_variables]
        return jax.jit(lambda inputs: layer.stateless_call(weights, others, inputs)[0])
    return None
