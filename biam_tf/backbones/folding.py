"""Batch normalization folded into the convolutions before it: a frozen backbone's faster twin."""

import collections

import keras
import numpy as np


def fold_batch_norms(model: keras.Model) -> keras.Model:
    """Returns a model that computes what `model` does in inference, with fewer operations.

    In inference a batch normalization multiplies each channel by a number and adds another. A
    convolution that nothing else looks at can do both itself, by its kernel and its bias, and
    TensorFlow computes convolution, bias and ReLU at once. Outputs differ by rounding alone.
    What is not in float32 stays as it is: rounding would be larger there.

    Args:
        model: a functional model, in which folding is possible; any other callable.

    Returns:
        A model with the inputs and outputs of `model`, whose weights are its own: training `model`
        later doesn't change them. `model` itself where there is nothing to fold.
    """
    norms = _foldable_norms(model)
    if not norms:
        return model
    folded_norms = {norm.name for norm in norms.values()}

    def copy(layer: keras.Layer) -> keras.Layer:
        config = layer.get_config()
        if layer.name in norms:
            config["use_bias"] = True
        return type(layer).from_config(config)

    def call(layer: keras.Layer, *inputs, **options):
        return inputs[0] if layer.name in folded_norms else layer(*inputs, **options)

    folded = keras.models.clone_model(model, clone_function=copy, call_function=call)
    for layer in model.layers:
        if layer.name in norms:
            weights = _folded_weights(layer, norms[layer.name])
            folded.get_layer(layer.name).set_weights(weights)
        elif layer.weights and layer.name not in folded_norms:
            folded.get_layer(layer.name).set_weights(layer.get_weights())
    folded.trainable = False
    return folded


def _foldable_norms(model: keras.Model) -> dict[str, keras.layers.BatchNormalization]:
    """The batch normalization behind each convolution that can take it over, by its name."""
    operations = getattr(model, "operations", ())  # only functional models have them
    norms = [layer for layer in operations if isinstance(layer, keras.layers.BatchNormalization)]
    if not norms:
        return {}
    uses = collections.Counter(id(tensor) for tensor in keras.tree.flatten(model.output))
    producers = {}
    for operation in operations:
        for node in operation._inbound_nodes:  # `operation.input` is that of the first one alone
            uses.update(id(tensor) for tensor in node.input_tensors)
            producers.update((id(tensor), operation) for tensor in node.output_tensors)
    found = {}
    for norm in norms:
        layer = producers[id(norm.input)]
        called_once = len(norm._inbound_nodes) == len(layer._inbound_nodes) == 1
        if called_once and uses[id(norm.input)] == 1 and _fits(layer, norm):
            found[layer.name] = norm
    return found


def _fits(layer: keras.Layer, norm: keras.layers.BatchNormalization) -> bool:
    return (
        type(layer) in (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)  # not what extends them
        and layer.activation is keras.activations.linear
        and layer.data_format == "channels_last"
        and norm.axis in (-1, 3)
        and layer.dtype_policy.name == norm.dtype_policy.name == "float32"
    )


def _folded_weights(
    layer: keras.Layer, norm: keras.layers.BatchNormalization
) -> tuple[np.ndarray, np.ndarray]:
    """The kernel (h, w, c_in, c_out or multiplier) and bias (channels,) that do both."""
    # In float64, so that the numbers are rounded once.
    mean = np.asarray(norm.moving_mean, np.float64)
    scale = 1 / np.sqrt(np.asarray(norm.moving_variance, np.float64) + norm.epsilon)
    if norm.scale:
        scale *= np.asarray(norm.gamma)
    offset = np.asarray(norm.beta, np.float64) if norm.center else 0.0
    bias = np.asarray(layer.bias, np.float64) if layer.use_bias else 0.0
    kernel = np.asarray(layer.kernel)
    depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
    of_kernel = scale.reshape(kernel.shape[2:]) if depthwise else scale
    return kernel * of_kernel, (bias - mean) * scale + offset
