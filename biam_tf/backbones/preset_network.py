"""A network of KerasHub as a layer that outputs region features and a scene feature."""

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import layers, ops

from biam_tf.tensor_types import Tensor


@keras.saving.register_keras_serializable(package="biam_tf")
class PresetNetwork(layers.Layer):
    """Splits the output of a network of KerasHub into region features and a scene feature.

    The network is a single layer of the backbone, because many of KerasHub's layers cannot be
    restored from their configuration, while its networks can.

    Args:
        network: a backbone of KerasHub from pictures to a feature map
            `(batch, height, width, channels)`, one such map per stage, tokens
            `(batch, tokens, channels)`, or the output of a layer `head` that pools tokens,
            `(batch, channels)`.
        grid: height and width of the grid of the tokens, or of the feature map.
        other_tokens: number of tokens before those of the grid, such as the class token.

    Call arguments:
        pictures: `(batch, S, S, 3)`, preprocessed as in the network's training.

    Returns:
        A dictionary of `region_features` `(batch, height, width, channels)` and `scene_feature`
        `(batch, scene_size)`: the pooled output of the network, else the first token if it is not
        one of the grid, else the mean of the regions.
    """

    def __init__(
        self, network: keras.Model, grid: tuple[int, int], other_tokens: int, **kwargs: Any
    ):
        super().__init__(**kwargs)
        self.network, self.grid, self.other_tokens = network, tuple(grid), other_tokens
        self._features = feature_function(network)

    def call(self, pictures: Tensor, training: bool | None = None) -> dict[str, Tensor]:
        outputs = self._features(pictures, training)
        features, pooled = outputs["features"], outputs.get("pooled")
        if len(features.shape) == 4:
            regions = features
        else:
            shape = (-1, *self.grid, features.shape[-1])
            regions = ops.reshape(features[:, self.other_tokens :], shape)
        if pooled is None:
            pooled = features[:, 0] if self.other_tokens else ops.mean(regions, axis=(1, 2))
        return {"region_features": regions, "scene_feature": pooled}

    def get_config(self) -> dict:
        return super().get_config() | {
            "network": keras.saving.serialize_keras_object(self.network),
            "grid": self.grid,
            "other_tokens": self.other_tokens,
        }

    @classmethod
    def from_config(cls, config: dict) -> "PresetNetwork":
        network = keras.saving.deserialize_keras_object(config["network"])
        return cls(**(config | {"network": network}))


def feature_function(network: keras.Model) -> Callable[..., dict[str, Tensor]]:
    """Returns the function of pictures and `training` to `features` and, if there are, `pooled`.

    It is a function, not a layer, so that the weights are counted and saved once, as the network's.
    """
    output = last_output(network)
    if len(output.shape) == 2:
        outputs = {"features": network.head.input, "pooled": output}
    else:
        outputs = {"features": output}
    model = keras.Model(network.inputs[0], outputs)
    return lambda pictures, training=None: model(pictures, training=training)


def last_output(network: keras.Model) -> keras.KerasTensor:
    """Returns the output of the network, or of its last stage if the outputs are stages by name."""
    stages = getattr(network, "stage_names", None)
    if isinstance(network.output, dict) and stages:
        return network.output.get(stages[-1])
    return network.output


def token_grid(tokens: int, image_size: int, patch_size: tuple[int, int] | None) -> tuple[int, int]:
    """Returns height and width of the grid of regions that some or all of the tokens represent.

    Args:
        tokens: number of tokens.
        image_size: side of the square pictures.
        patch_size: height and width of a patch; `None`: unknown.

    Raises:
        ValueError: neither the patches nor the tokens form a grid.
    """
    if patch_size:
        height, width = (image_size // side for side in patch_size)
        if height * width <= tokens:
            return height, width
    side = math.isqrt(tokens)  # the network merges patches
    if side * side != tokens:
        raise ValueError(f"{tokens} tokens do not form a square grid of regions")
    return side, side
