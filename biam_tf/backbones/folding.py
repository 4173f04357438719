"""Batch normalization folded into the preceding convolutions of a frozen backbone, for speed."""

import collections

import keras
import numpy as np


def fold_batch_norms(model: keras.Model) -> keras.Model:
    """Returns a model with the outputs of `model` in inference, with fewer operations.

    In inference a batch normalization multiplies each channel by a number and adds another. If
    its input is the output of a convolution that has no other use, kernel and bias of the
    convolution can do both, and TensorFlow computes convolution, bias and ReLU in one operation.
    Outputs differ by rounding. Layers that are not in float32 are not folded, because rounding
    would be larger.

    Args:
        model: a functional model; any other model is returned as it is.

    Returns:
        A model with the inputs and outputs of `model` and weights of its own: training `model`
        later does not change them. `model` itself if there is nothing to fold.

    Raises:
        RuntimeError: the installed Keras lacks an attribute that is not part of its public API.
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
    """The batch normalizations that can be folded, by the names of their convolutions."""
    operations = getattr(model, "operations", ())  # only functional models have them
    norms = [layer for layer in operations if isinstance(layer, keras.layers.BatchNormalization)]
    if not norms:
        return {}
    uses = collections.Counter(id(tensor) for tensor in keras.tree.flatten(model.output))
    producers: dict[int, keras.Operation] = {}
    for operation in operations:
        for node in _calls(operation):  # `operation.input` is that of the first call only
            uses.update(id(tensor) for tensor in node.input_tensors)
            producers.update((id(tensor), operation) for tensor in node.output_tensors)
    found = {}
    for norm in norms:
        layer = producers[id(norm.input)]
        called_once = len(_calls(norm)) == len(_calls(layer)) == 1
        if called_once and uses[id(norm.input)] == 1 and _fits(layer, norm):
            found[layer.name] = norm
    return found


def _calls(operation: keras.Operation) -> list:
    """The calls of an operation; each has `input_tensors` and `output_tensors`.

    Keras has no public access to them.
    """
    try:
        return operation._inbound_nodes
    except AttributeError:
        raise RuntimeError(
            f"Keras {keras.__version__} has no {type(operation).__name__}._inbound_nodes, which "
            "biam-tf needs to fold batch normalizations; install a Keras version that biam-tf "
            "was tested with"
        ) from None


def _fits(layer: keras.Layer, norm: keras.layers.BatchNormalization) -> bool:
    return (
        type(layer) in (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)  # not subclasses
        and layer.activation is keras.activations.linear
        and layer.data_format == "channels_last"
        and norm.axis in (-1, 3)
        and layer.dtype_policy.name == norm.dtype_policy.name == "float32"
    )


def _folded_weights(
    layer: keras.Layer, norm: keras.layers.BatchNormalization
) -> tuple[np.ndarray, np.ndarray]:
    """Kernel (h, w, c_in, c_out or multiplier) and bias (channels,) of both layers in one."""
    # In float64, so that the results are rounded once.
    mean = np.asarray(norm.moving_mean, np.float64)
    scale = 1 / np.sqrt(np.asarray(norm.moving_variance, np.float64) + norm.epsilon)
    if norm.scale:
        scale *= np.asarray(norm.gamma)
    offset = np.asarray(norm.beta, np.float64) if norm.center else 0.0
    bias = np.asarray(layer.bias, np.float64) if layer.use_bias else 0.0
    kernel = np.asarray(layer.kernel)
    depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
    kernel_scale = scale.reshape(kernel.shape[2:]) if depthwise else scale
    return kernel * kernel_scale, (bias - mean) * scale + offset
