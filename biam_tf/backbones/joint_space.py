"""Region and scene features of an image-text model in the space of its text embeddings.

What pools the tokens of an image into one vector of the joint space is applied to every token by
itself. For CLIP and MetaCLIP 2 that is the last layer, post norm and projection, as in MaskCLIP
(Zhou et al., Extract free dense labels from CLIP, ECCV 2022): the attention of a token to itself
alone is its value, so that the last layer adds the token's projected value instead of the attended
one, and keeps both residual connections and its MLP::

    y_r = x_r + W_o (W_v LN_1(x_r) + b_v) + b_o
    f_r = W_p LN(y_r + MLP(LN_2(y_r)))

These are the equations of MaskCLIP's released code for ViT (`chongzhou96/MaskCLIP`,
`mmseg/models/backbones/vit.py` with `return_qkv`, then `proj` of `MaskClipHead`). Departures: the
model's own activation (QuickGELU) and epsilon of norms, where that code has GELU and 1e-6; neither
key smoothing nor prompt denoising; pictures of the model's own size.

For SigLIP and SigLIP 2 it is the attention-pooling head, whose attention to one token is that
token's value; the head has no connection around its attention. The paper of SigLIP has no regions:
this is the same idea, not a published method. The scene is pooled as the model does::

    y_r = W_o (W_v x_r + b_v) + b_o
    f_r = y_r + MLP(LN(y_r))
"""

import dataclasses
import hashlib
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from biam_tf.tensor_types import Tensor


@dataclasses.dataclass(frozen=True)
class JointSpace:
    """The space of images and texts that a backbone's features are in.

    Attributes:
        scale: factor of a cosine in the model's logits.
        bias: that is added to them; 0 for models without one.
        fingerprint: 16 hexadecimal digits of the weights that texts are embedded with.
    """

    scale: float
    bias: float
    fingerprint: str


@keras.saving.register_keras_serializable(package="biam_tf")
class JointSpaceNetwork(layers.Layer):
    """Maps pictures to region features and a scene feature in the space of text embeddings.

    The features are not scaled to length 1.

    Args:
        network: the image encoder of a model of KerasHub.
        grid: height and width of the grid of the tokens.
        other_tokens: number of tokens before those of the grid.
        projection: the dense layer from the network's channels to the joint space; `None`: the
            network has an attention-pooling layer `head` instead.
        post_norm: the normalization before the projection where it is not a part of the network.
            Defaults to `None`.
        space: fingerprint of the text side, see `JointSpace`. Defaults to `""`: unknown.

    Call arguments:
        pictures: `(batch, S, S, 3)`, preprocessed as in the network's training.

    Returns:
        A dictionary of `region_features` `(batch, height, width, d)` and `scene_feature`
        `(batch, d)`.
    """

    def __init__(
        self,
        network: keras.Model,
        grid: tuple[int, int],
        other_tokens: int,
        projection: keras.Layer | None = None,
        post_norm: keras.Layer | None = None,
        space: str = "",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.network, self.grid, self.other_tokens = network, tuple(grid), other_tokens
        self.projection, self.post_norm, self.space = projection, post_norm, space
        channels = network.output.shape[-1]
        for layer in (post_norm, projection):
            if layer is not None and not layer.built:
                layer.build((None, channels))
        self._tokens, self._pool = _parts(network, post_norm, projection)
        # As the model keeps them: a logarithm, for models that have no bias 0.
        self.logit_scale = self.add_weight((), "zeros", name="logit_scale", trainable=False)
        self.logit_bias = self.add_weight((), "zeros", name="logit_bias", trainable=False)

    def call(self, pictures: Tensor, training: bool | None = None) -> dict[str, Tensor]:
        tokens, scene = self._tokens(pictures, training)
        count, channels = math.prod(self.grid), tokens.shape[-1]
        # Each token is a sequence of its own, in which it attends to itself.
        single = ops.reshape(tokens[:, self.other_tokens :], (-1, 1, channels))
        regions = self._pool(single, training)
        size = regions.shape[-1]
        regions = ops.reshape(regions, (-1, count, size))
        return {
            "region_features": ops.reshape(regions, (-1, *self.grid, size)),
            "scene_feature": scene,
        }

    def joint_space(self) -> JointSpace:
        """Returns the space, with scale and bias of the model's logits."""
        scale = float(np.exp(keras.ops.convert_to_numpy(self.logit_scale).astype(np.float64)))
        return JointSpace(scale, float(self.logit_bias), self.space)

    def get_config(self) -> dict:
        return super().get_config() | {
            "network": keras.saving.serialize_keras_object(self.network),
            "grid": self.grid,
            "other_tokens": self.other_tokens,
            "projection": keras.saving.serialize_keras_object(self.projection),
            "post_norm": keras.saving.serialize_keras_object(self.post_norm),
            "space": self.space,
        }

    @classmethod
    def from_config(cls, config: dict) -> "JointSpaceNetwork":
        parts = {
            name: keras.saving.deserialize_keras_object(config[name])
            for name in ("network", "projection", "post_norm")
        }
        return cls(**(config | parts))


def joint_space(backbone: keras.Model) -> JointSpace | None:
    """Returns the space of images and texts of a backbone's features; `None`: there is none."""
    for layer in backbone.layers:
        if isinstance(layer, JointSpaceNetwork):
            return layer.joint_space()
    return None


def is_image_text_model(kind: type) -> bool:
    """Returns whether a class of KerasHub is a model of images and texts in one space."""
    return kind.__name__ in _HEADS


def joint_network(
    model: keras.Model, grid: tuple[int, int], other_tokens: int
) -> JointSpaceNetwork:
    """Returns the layer of an image-text model's image side, with its weights."""
    projection = getattr(model, "vision_projection", None)
    post_norm = getattr(model, "vision_post_layer_norm", None)
    return JointSpaceNetwork(
        model.vision_encoder, grid, other_tokens, projection, post_norm, name="network"
    )


def text_fingerprint(model: keras.Model) -> str:
    """Returns 16 hexadecimal digits of the weights with which an image-text model embeds texts."""
    digest = hashlib.sha256()
    projection = getattr(model, "text_projection", None)
    for part in (model.text_encoder, *([] if projection is None else [projection])):
        for weight in part.weights:
            array = keras.ops.convert_to_numpy(weight)
            digest.update(f"{array.dtype.name} {array.shape}\n".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()[:16]


def set_logits(layer: JointSpaceNetwork, model: keras.Model) -> None:
    """Copies scale, bias and fingerprint of an image-text model that has its weights."""
    head = getattr(model, _HEADS[type(model).__name__])
    layer.logit_scale.assign(head.logit_scale)
    if hasattr(head, "logit_bias"):
        layer.logit_bias.assign(head.logit_bias)
    layer.space = text_fingerprint(model)


# The layers that have scale and bias of the logits.
_HEADS = {
    "CLIPBackbone": "clip_head",
    "MetaCLIP2Backbone": "metaclip_2_head",
    "SigLIPBackbone": "siglip_head",
}


def _parts(
    network: keras.Model, post_norm: keras.Layer | None, projection: keras.Layer | None
) -> tuple[Callable[..., tuple[Tensor, Tensor]], Callable[..., Tensor]]:
    """Returns the functions from pictures to tokens and scene, and from single tokens to regions.

    They are functions, not layers, so that the weights are counted and saved once.
    """
    picture = network.inputs[0]
    if projection is None:
        head = network.head
        model = keras.Model(picture, [head.input, network.output])

        def pooled(tokens: Tensor, training: bool | None) -> Tensor:
            return head(tokens, training=training)

        def both(pictures: Tensor, training: bool | None) -> tuple[Tensor, Tensor]:
            tokens, scene = model(pictures, training=training)
            return tokens, scene

        return both, pooled

    last = network.encoder_layers[-1]
    # CLIP's norm is the last layer of its image encoder; MetaCLIP 2's follows it.
    norm = network.layer_norm if post_norm is None else post_norm
    model = keras.Model(picture, [last.input, last.output])

    def projected(tokens: Tensor) -> Tensor:
        return projection(norm(tokens))

    def value(tokens: Tensor, training: bool | None) -> Tensor:
        return projected(last(tokens, training=training))

    def tokens_and_class(pictures: Tensor, training: bool | None) -> tuple[Tensor, Tensor]:
        tokens, attended = model(pictures, training=training)
        return tokens, projected(attended[:, 0])

    return tokens_and_class, value
