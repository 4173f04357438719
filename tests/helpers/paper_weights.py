"""Weights of layers as plain arrays by the papers' symbols, as `reference.py` takes them."""

import numpy as np


def randomize(model, rng):
    """Gives every weight, biases and statistics too, a value that shows when it is misused."""
    for weight in model.weights:
        if not np.issubdtype(weight.dtype, np.floating):
            continue  # the state of a random generator
        value = rng.normal(scale=0.3, size=weight.shape)
        if weight.name in ("gamma", "moving_variance"):
            value = 1.0 + np.abs(value)
        weight.assign(value)


def matrix(layer):
    """The kernel of a 1x1 convolution or a dense layer as (d_in, d_out)."""
    kernel = np.asarray(layer.kernel, np.float64)
    return kernel.reshape(kernel.shape[-2:])


def projections(layers):
    """W_s and b_s of 1x1 convolutions by their symbols s."""
    weights = {f"W_{s}": matrix(layer) for s, layer in layers.items()}
    return weights | {f"b_{s}": np.asarray(layer.bias, np.float64) for s, layer in layers.items()}


def batch_norm_weights(norm):
    return {
        "gamma": np.asarray(norm.gamma, np.float64),
        "beta": np.asarray(norm.beta, np.float64),
        "mean": np.asarray(norm.moving_mean, np.float64),
        "variance": np.asarray(norm.moving_variance, np.float64),
    }


def conv_weights(layer):
    return batch_norm_weights(layer.batch_norm) | {
        "kernel": np.asarray(layer.conv.kernel, np.float64),
        "bias": np.asarray(layer.conv.bias, np.float64),
    }


def region_context_weights(block):
    symbols = {
        "Q": block.query,
        "K": block.key,
        "V": block.value,
        "o": block.projection,
        "1": block.feed_forward_in,
        "2": block.feed_forward_out,
    }
    norms = {"attention_norm": block.attention_norm, "feed_forward_norm": block.feed_forward_norm}
    scales = {
        name: {"gamma": np.asarray(norm.gamma), "beta": np.asarray(norm.beta)}
        for name, norm in norms.items()
        if norm is not None
    }
    return projections(symbols) | scales


def scene_context_weights(block):
    return projections({"g": block.key}) | conv_weights(block.conv)


def non_local_weights(block):
    symbols = {"theta": block.theta, "phi": block.phi, "g": block.g, "z": block.projection}
    return projections(symbols) | batch_norm_weights(block.batch_norm)


def criss_cross_weights(layer):
    symbols = {"Q": layer.query, "K": layer.key, "V": layer.value}
    return projections(symbols) | {"gamma": float(layer.gamma)}
