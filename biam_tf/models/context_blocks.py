"""The context blocks of the head by the names that configurations use.

A new block is one module with its layer and one line below, or, outside of this package, one line
of the form `REGION_CONTEXT["my_block"] = ContextBlock(lambda settings, name: MyBlock(name=name))`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import keras


class _BlockSettings(Protocol):
    """The settings that the blocks of this module read; `presets.HeadSettings` has them."""

    @property
    def num_heads(self) -> int: ...
    @property
    def attention_dropout(self) -> float: ...
    @property
    def output_dropout(self) -> float: ...
    @property
    def mask_zero_scores(self) -> bool: ...
    @property
    def value_projection(self) -> bool: ...
    @property
    def residual(self) -> str: ...
    @property
    def scene_dropout(self) -> float: ...
    @property
    def batch_norm_momentum(self) -> float: ...
    @property
    def batch_norm_epsilon(self) -> float: ...


@dataclasses.dataclass(frozen=True)
class ContextBlock:
    """A context block as a setting of the head names it.

    Attributes:
        build: function of the head's settings (`presets.HeadSettings`) and the layer's name to the
            layer. A layer of `REGION_CONTEXT` is called on h_r `(batch, height, width, channels)`,
            a layer of `SCENE_CONTEXT` on `[h_r, scene_feature]`, with a scene feature
            `(batch, scene_size)`. Both return features of the shape of h_r.
        multi_head: whether `num_heads` must divide the channels. Defaults to `False`.
    """

    build: Callable[[Any, str], keras.Layer]
    multi_head: bool = False


def _self_attention(
    settings: _BlockSettings, name: str, attention: str = "softmax", layer_norm: bool = False
) -> keras.Layer:
    from biam_tf.layers import RegionContextBlock  # here, as names are checked without Keras

    return RegionContextBlock(
        num_heads=settings.num_heads,
        attention_dropout=settings.attention_dropout,
        output_dropout=settings.output_dropout,
        attention=attention,
        mask_zero_scores=settings.mask_zero_scores,
        layer_norm=layer_norm,
        name=name,
    )


def _non_local(settings: _BlockSettings, name: str) -> keras.Layer:
    from biam_tf.layers import NonLocalBlock

    return NonLocalBlock(
        batch_norm_momentum=settings.batch_norm_momentum,
        batch_norm_epsilon=settings.batch_norm_epsilon,
        name=name,
    )


def _criss_cross(settings: _BlockSettings, name: str) -> keras.Layer:
    from biam_tf.layers import CrissCrossAttention

    del settings
    return CrissCrossAttention(name=name)


def _channel_gate(settings: _BlockSettings, name: str, attention: str = "sigmoid") -> keras.Layer:
    from biam_tf.layers import SceneContextBlock

    return SceneContextBlock(
        value_projection=settings.value_projection,
        residual=settings.residual,
        scene_dropout=settings.scene_dropout,
        attention=attention,
        batch_norm_momentum=settings.batch_norm_momentum,
        batch_norm_epsilon=settings.batch_norm_epsilon,
        name=name,
    )


REGION_CONTEXT: dict[str, ContextBlock] = {
    "self_attention": ContextBlock(_self_attention, multi_head=True),
    "self_attention_layer_norm": ContextBlock(
        functools.partial(_self_attention, layer_norm=True), multi_head=True
    ),
    "self_attention_sigmoid": ContextBlock(
        functools.partial(_self_attention, attention="sigmoid"), multi_head=True
    ),
    "non_local": ContextBlock(_non_local),
    "criss_cross": ContextBlock(_criss_cross),
}
SCENE_CONTEXT: dict[str, ContextBlock] = {
    "channel_gate": ContextBlock(_channel_gate),
    "channel_softmax": ContextBlock(functools.partial(_channel_gate, attention="softmax")),
}
