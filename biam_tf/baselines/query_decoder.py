"""Shared by the systems whose queries attend to regions: the decoder and its attention maps."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers, ops

from biam_tf.tensor_types import Shape, Tensor

LAYER_NORM_EPSILON = 1e-5


@keras.saving.register_keras_serializable(package="biam_tf")
class QueryDecoder(layers.Layer):
    """Queries that attend to regions, and a feed-forward network for each query.

    A layer of the decoder of Vaswani et al., "Attention is all you need" (NeurIPS 2017, section
    3.1), with layer normalization after each residual sum::

        q = LN(q + MultiHead(q, q, q))      with self-attention; without it, q = LN(q + q)
        q = LN(q + MultiHead(q, f, f))      f: regions
        q = LN(q + W_2 relu(W_1 q + b_1) + b_2)

    Without self-attention, a query's result does not depend on the other queries: ML-Decoder
    (Ridnik et al., WACV 2023) replaces the self-attention by the query itself. In training,
    dropout is applied to the second summand of each sum, to the attention weights and to the
    hidden units.

    Args:
        num_heads: int, H; a divisor of the channels.
        feed_forward_units: int, hidden units of the feed-forward network.
        dropout: float, dropout rate. Defaults to `0.0`.
        self_attention: bool, whether queries attend to each other first. Defaults to `False`.

    Input shape:
        A list of queries and regions `(batch, regions, channels)`. Queries are `(queries,
        channels)`, the same for all photos, or `(batch, queries, channels)`.

    Output shape:
        A tuple of decoded queries `(batch, queries, channels)` and their attention to the regions,
        the mean over the heads, `(batch, queries, regions)`.

    Raises:
        ValueError: the number of heads is no divisor of the channels, or queries and regions have
            different channels.
    """

    def __init__(
        self,
        num_heads: int,
        feed_forward_units: int,
        dropout: float = 0.0,
        self_attention: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.feed_forward_units = feed_forward_units
        self.dropout = dropout
        self.self_attention = self_attention
        dtype = self.dtype_policy
        self.drop = layers.Dropout(dropout, dtype=dtype)
        self.norms = [
            layers.LayerNormalization(epsilon=LAYER_NORM_EPSILON, dtype=dtype, name=f"norm_{i}")
            for i in range(3)
        ]

    def build(self, input_shape: Sequence[Shape]) -> None:
        queries_shape, regions_shape = input_shape
        channels = regions_shape[-1]
        if channels is None or queries_shape[-1] != channels:
            raise ValueError(
                "queries and regions must have the same number of channels; got shapes "
                f"{input_shape}"
            )
        if channels % self.num_heads:
            raise ValueError(f"num_heads={self.num_heads} is no divisor of {channels} channels")
        sizes = {f"cross_{part}": channels for part in ("query", "key", "value", "output")}
        if self.self_attention:
            sizes |= {f"self_{part}": channels for part in ("query", "key", "value", "output")}
        sizes |= {"feed_forward_1": self.feed_forward_units, "feed_forward_2": channels}
        self.maps = {}
        for name, units in sizes.items():
            dense = layers.Dense(units, dtype=self.dtype_policy, name=name)
            inputs = self.feed_forward_units if name == "feed_forward_2" else channels
            dense.build((None, inputs))
            self.maps[name] = dense
        for norm in self.norms:
            norm.build((None, channels))

    def call(self, inputs: Sequence[Tensor], training: bool | None = None) -> tuple[Tensor, Tensor]:
        q, regions = inputs
        own = q
        if self.self_attention:
            own, _ = self._attend("self", q, q, training)
        q = self.norms[0](q + self.drop(own, training=training))
        gathered, attention = self._attend("cross", q, regions, training)
        q = self.norms[1](q + self.drop(gathered, training=training))
        hidden = self.drop(ops.relu(self.maps["feed_forward_1"](q)), training=training)
        decoded = self.maps["feed_forward_2"](hidden)
        q = self.norms[2](q + self.drop(decoded, training=training))
        return q, ops.mean(attention, axis=1)

    def _attend(
        self, part: str, queries: Tensor, memory: Tensor, training: bool | None
    ) -> tuple[Tensor, Tensor]:
        """Returns the gathered values (B, Q, d) and the attention (B, H, Q, n)."""
        query = self._by_head(self.maps[f"{part}_query"](queries))
        key = self._by_head(self.maps[f"{part}_key"](memory))
        value = self._by_head(self.maps[f"{part}_value"](memory))
        # Queries that all photos share have no batch axis: they are projected once.
        of_query, of_memory = ("b" * (len(x.shape) == 4) for x in (query, key))
        batch = of_query or of_memory
        logits = ops.einsum(f"{of_query}qhk,{of_memory}nhk->{batch}hqn", query, key)
        attention = ops.softmax(logits / query.shape[-1] ** 0.5, axis=-1)
        weights = self.drop(attention, training=training)
        gathered = ops.einsum(f"{batch}hqn,{of_memory}nhk->{batch}qhk", weights, value)
        shape = ops.shape(gathered)
        gathered = ops.reshape(gathered, (*shape[:-2], queries.shape[-1]))
        return self.maps[f"{part}_output"](gathered), attention

    def _by_head(self, x: Tensor) -> Tensor:
        shape = ops.shape(x)
        return ops.reshape(x, (*shape[:-1], self.num_heads, x.shape[-1] // self.num_heads))

    def compute_output_shape(self, input_shape: Sequence[Shape]) -> tuple[Shape, Shape]:
        queries_shape, regions_shape = input_shape
        batch, regions, channels = regions_shape
        return (batch, queries_shape[-2], channels), (batch, queries_shape[-2], regions)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "feed_forward_units": self.feed_forward_units,
            "dropout": self.dropout,
            "self_attention": self.self_attention,
        }


@keras.saving.register_keras_serializable(package="biam_tf")
class OneRowPerRegion(layers.Layer):
    """Reshapes region features `(batch, height, width, channels)` to `(batch, regions, channels)`.

    Height and width may be unknown.
    """

    def call(self, regions: Tensor) -> Tensor:
        batch, height, width, _ = ops.shape(regions)
        return ops.reshape(regions, (batch, height * width, regions.shape[-1]))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, height, width, channels = input_shape
        regions = None if height is None or width is None else height * width
        return (batch, regions, channels)


@keras.saving.register_keras_serializable(package="biam_tf")
class AttentionMaps(layers.Layer):
    """Puts attention on the grid of the regions.

    Input shape:
        A list of attention `(batch, queries, regions)` and region features `(batch, height, width,
        channels)`, whose shape alone is used.

    Output shape:
        `(batch, height, width, queries)`.
    """

    def call(self, inputs: Sequence[Tensor]) -> Tensor:
        attention, regions = inputs
        batch, height, width, _ = ops.shape(regions)
        maps = ops.transpose(attention, (0, 2, 1))
        return ops.reshape(maps, (batch, height, width, ops.shape(attention)[1]))

    def compute_output_shape(self, input_shape: Sequence[Shape]) -> Shape:
        attention_shape, regions_shape = input_shape
        return (*regions_shape[:3], attention_shape[1])
