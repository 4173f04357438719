"""A network of KerasHub as a layer that gives region features and a scene feature."""

import math

import keras
from keras import layers, ops


@keras.saving.register_keras_serializable(package="biam_tf")
class PresetNetwork(layers.Layer):
    """Splits what a network of KerasHub gives into region features and a scene feature.

    The network is one layer here, and not the layers that it is made of: KerasHub's networks can
    be made again from their settings, many of its layers can't.

    Args:
        network: a backbone of KerasHub that takes pictures and gives a feature map
            `(batch, height, width, channels)`, one such map a stage, tokens
            `(batch, tokens, channels)`, or what a layer `head` of it pools from tokens,
            `(batch, channels)`.
        grid: height and width of the grid that the tokens lie on; for a feature map, its own.
        other_tokens: how many tokens come before those of the grid, such as the class's.

    Call arguments:
        pictures: `(batch, S, S, 3)`, as the network was trained on them.

    Returns:
        A dictionary of `region_features` `(batch, height, width, channels)` and `scene_feature`
        `(batch, scene_size)`: what the network pools, else the first token if it is not one of
        the grid, else the mean of the regions.
    """

    def __init__(self, network: keras.Model, grid: tuple[int, int], other_tokens: int, **kwargs):
        super().__init__(**kwargs)
        self.network, self.grid, self.other_tokens = network, tuple(grid), other_tokens
        self._features = feature_function(network)

    def call(self, pictures, training=None):
        """Returns the two features, see the class."""
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

    def get_config(self):
        """Returns what `from_config` needs, the network's settings included."""
        return super().get_config() | {
            "network": keras.saving.serialize_keras_object(self.network),
            "grid": self.grid,
            "other_tokens": self.other_tokens,
        }

    @classmethod
    def from_config(cls, config):
        """Makes the layer again, with random weights."""
        network = keras.saving.deserialize_keras_object(config["network"])
        return cls(**(config | {"network": network}))


def feature_function(network: keras.Model):
    """Returns the function of pictures and `training` that gives `features`, perhaps `pooled`.

    A function and no layer, so that the weights are counted and saved once, as the network's.
    """
    output = last_output(network)
    if len(output.shape) == 2:
        outputs = {"features": network.head.input, "pooled": output}
    else:
        outputs = {"features": output}
    model = keras.Model(network.inputs[0], outputs)
    return lambda pictures, training=None: model(pictures, training=training)


def last_output(network: keras.Model):
    """Returns what the network gives; of one that gives all its stages by name, the last one."""
    stages = getattr(network, "stage_names", None)
    if isinstance(network.output, dict) and stages:
        return network.output.get(stages[-1])
    return network.output


def token_grid(tokens: int, image_size: int, patch_size: tuple[int, int] | None) -> tuple[int, int]:
    """Returns height and width of the grid of regions that some or all of the tokens stand for.

    Args:
        tokens: how many there are.
        image_size: side of the square pictures.
        patch_size: height and width of a patch; `None`: unknown.

    Raises:
        ValueError: neither the patches nor the tokens make a grid.
    """
    if patch_size:
        height, width = (image_size // side for side in patch_size)
        if height * width <= tokens:
            return height, width
    side = math.isqrt(tokens)  # the network merges patches
    if side * side != tokens:
        raise ValueError(f"{tokens} tokens make no square grid of regions")
    return side, side
