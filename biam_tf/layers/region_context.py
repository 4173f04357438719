"""Region context block (RCB): every region attends to all regions of its image."""

import math
from typing import Any

import keras
from keras import layers, ops

from biam_tf.layers.pointwise_conv import PointwiseConv2D
from biam_tf.tensor_types import Shape, Tensor
from biam_tf.ways_to_compute import (
    Way,
    plan_of_build,
    require_channels_last,
    way_of_attention,
)

ATTENTION = {"softmax": lambda scores: ops.softmax(scores, axis=-1), "sigmoid": ops.sigmoid}
LAYER_NORM_EPSILON = 1e-5


@keras.saving.register_keras_serializable(package="biam_tf")
class RegionContextBlock(layers.Layer):
    """Enriches each region feature by attending to all regions of the image.

    Section 2.2.1 of BiAM (Narayan et al., ICCV 2021), equations 2 to 5. For head h of H, with
    d' = d / H:

        q_h, k_h, v_h = h_r W_h^Q, h_r W_h^K, h_r W_h^V       (2)
        r_h = softmax(q_h k_h^T / sqrt(d'))
        alpha_h = r_h v_h                                     (3)
        o_r = [alpha_1; ...; alpha_H] W_o                     (4)
        e_r = c^r(h_r + o_r) + (h_r + o_r)                    (5)

    The paper does not specify the biases, the activation between the two 1x1 convolutions of
    c^r, their width, or dropout. As in the authors' released code, all six 1x1 convolutions have
    a bias and c^r is conv1x1 (d to 2d), ReLU, conv1x1 (2d to d); dropout is off by default and
    0.1 in the presets of `build_head`.

    Table 4 has a variant with LayerNorm without saying where it is applied. Equations 2 to 5 are
    the encoder block of Vaswani et al. (Attention is all you need, NeurIPS 2017), which the paper
    names as its inspiration, without its normalizations; `layer_norm` restores them after each
    residual sum (post-norm):

        x = LayerNorm(h_r + o_r),  e_r = LayerNorm(c^r(x) + x)

    Args:
        num_heads: int, H; must divide the channels. Defaults to `8`.
        feed_forward_units: int, channels between the two 1x1 convolutions of c^r. Defaults to
            `None`: twice the input's channels.
        attention_dropout: float, dropout rate on the relation scores r_h. Defaults to `0.0`.
        output_dropout: float, dropout rate on o_r. Defaults to `0.0`.
        attention: `"softmax"` (the paper) or `"sigmoid"` (its table 4). Defaults to `"softmax"`.
        mask_zero_scores: bool, whether pairs whose scaled score is exactly 0 are left out of the
            softmax, as in the released code; needed only to reproduce it exactly. Defaults to
            `False`.
        layer_norm: bool, whether each region's channels are normalized after both residual sums
            (table 4). Defaults to `False`.

    Input shape:
        `(batch, height, width, channels)`, any height and width.

    Output shape:
        The same as the input's.

    Raises:
        ValueError: `num_heads` does not divide the channels, or an argument is not valid.

    Example:

    >>> h_r = np.random.rand(2, 14, 14, 64).astype("float32")
    >>> tuple(RegionContextBlock(num_heads=8)(h_r).shape)
    (2, 14, 14, 64)
    """

    def __init__(
        self,
        num_heads: int = 8,
        feed_forward_units: int | None = None,
        attention_dropout: float = 0.0,
        output_dropout: float = 0.0,
        attention: str = "softmax",
        mask_zero_scores: bool = False,
        layer_norm: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if attention not in ATTENTION:
            raise ValueError(f"attention must be one of {', '.join(ATTENTION)}; got {attention!r}")
        if num_heads < 1:
            raise ValueError(f"num_heads must be at least 1; got {num_heads}")
        self.num_heads = num_heads
        self.feed_forward_units = feed_forward_units
        self.attention_dropout = attention_dropout
        self.output_dropout = output_dropout
        self.attention = attention
        self.mask_zero_scores = mask_zero_scores
        self.layer_norm = layer_norm

    def build(self, input_shape: Shape) -> None:
        require_channels_last("RegionContextBlock")
        channels = input_shape[-1]
        if channels is None:
            raise ValueError(f"the number of channels must be known; got shape {input_shape}")
        if channels % self.num_heads:
            raise ValueError(
                f"num_heads={self.num_heads} does not divide the {channels} channels of the "
                f"input of shape {tuple(input_shape)}"
            )
        units = self.feed_forward_units or 2 * channels
        wide_shape = (*input_shape[:-1], units)
        self.query = self._conv_1x1(channels, "query", input_shape)
        self.key = self._conv_1x1(channels, "key", input_shape)
        self.value = self._conv_1x1(channels, "value", input_shape)
        self.projection = self._conv_1x1(channels, "projection", input_shape)
        self.feed_forward_in = self._conv_1x1(units, "feed_forward_in", input_shape)
        self.feed_forward_out = self._conv_1x1(channels, "feed_forward_out", wide_shape)
        self.dropout_r = layers.Dropout(self.attention_dropout, dtype=self.dtype_policy)
        self.dropout_o = layers.Dropout(self.output_dropout, dtype=self.dtype_policy)
        self._plan = plan_of_build()
        # XLA needs arrays of static shapes; blocks have none.
        self.supports_jit = self._way(input_shape, training=True) != "blocks"
        self.attention_norm: layers.LayerNormalization | None = None
        self.feed_forward_norm: layers.LayerNormalization | None = None
        if self.layer_norm:
            self.attention_norm = self._norm("attention_norm", input_shape)
            self.feed_forward_norm = self._norm("feed_forward_norm", input_shape)

    def _conv_1x1(self, filters: int, name: str, input_shape: Shape) -> PointwiseConv2D:
        layer = PointwiseConv2D(filters, dtype=self.dtype_policy, name=name)
        layer.build(input_shape)
        return layer

    def _norm(self, name: str, input_shape: Shape) -> layers.LayerNormalization:
        layer = layers.LayerNormalization(
            epsilon=LAYER_NORM_EPSILON, dtype=self.dtype_policy, name=name
        )
        layer.build(input_shape)
        return layer

    def call(self, h_r: Tensor, training: bool | None = None) -> Tensor:
        q = self._split_heads(self.query(h_r))  # (B, H, hw, d')
        k = self._split_heads(self.key(h_r))
        v = self._split_heads(self.value(h_r))
        way = self._way(h_r.shape, training)
        if way == "blocks":
            alpha = self._attend_in_blocks(q, k, v, training)
        elif way == "fused":
            alpha = self._attend_fused(q, k, v)
        else:
            r = self._relation_scores(q, k)  # (B, H, hw, hw)
            alpha = ops.matmul(self.dropout_r(r, training=training), v)  # (B, H, hw, d')
        o_r = self.dropout_o(self.projection(self._join_heads(alpha, h_r)), training=training)
        x = h_r + o_r
        if self.attention_norm is not None:
            x = self.attention_norm(x)
        c_r = self.feed_forward_out(ops.relu(self.feed_forward_in(x)))
        e_r = c_r + x
        return e_r if self.feed_forward_norm is None else self.feed_forward_norm(e_r)

    def _way(self, shape: Shape, training: bool | None) -> Way:
        way = way_of_attention(self.num_heads, shape[1:3], bool(training), self._plan)
        is_plain = self.attention == "softmax" and not self.mask_zero_scores
        if way == "fused" and not (is_plain and not (training and self.attention_dropout)):
            return "whole"
        return way

    def _attend_fused(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        # (B, H, hw, d') -> (B, hw, H, d') and back
        swapped = [ops.swapaxes(x, 1, 2) for x in (q, k, v)]
        return ops.swapaxes(ops.dot_product_attention(*swapped), 1, 2)

    def _attend_in_blocks(self, q: Tensor, k: Tensor, v: Tensor, training: bool | None) -> Tensor:
        from biam_tf.layers.blockwise_attention import attend  # imports TensorFlow

        rate, seed = self.attention_dropout if training else 0.0, None
        if rate:
            seed = ops.cast(self.dropout_r.seed_generator.next(), "int32")
        # (B, H, hw, d') -> (B H, hw, d')
        heads_q, heads_k, heads_v = (ops.reshape(x, (-1, *ops.shape(x)[2:])) for x in (q, k, v))
        alpha = attend(heads_q, heads_k, heads_v, self._relation_scores, rate, seed)
        return ops.reshape(alpha, ops.shape(v))

    def _relation_scores(self, q: Tensor, k: Tensor) -> Tensor:
        scores = ops.matmul(q / math.sqrt(q.shape[-1]), ops.swapaxes(k, -1, -2))
        if self.mask_zero_scores:
            is_float16 = keras.backend.standardize_dtype(scores.dtype) == "float16"
            lowest = -6e4 if is_float16 else -1e9  # float16 ends at 65504
            scores = ops.where(scores == 0, ops.cast(lowest, scores.dtype), scores)
        return ATTENTION[self.attention](scores)

    def _split_heads(self, x: Tensor) -> Tensor:
        """(B, h, w, d) -> (B, H, hw, d'); h and w may be unknown."""
        shape = ops.shape(x)
        x = ops.reshape(x, (shape[0], -1, self.num_heads, x.shape[-1] // self.num_heads))
        return ops.swapaxes(x, 1, 2)

    def _join_heads(self, alpha: Tensor, like: Tensor) -> Tensor:
        """(B, H, hw, d') -> (B, h, w, d)."""
        return ops.reshape(ops.swapaxes(alpha, 1, 2), ops.shape(like))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "feed_forward_units": self.feed_forward_units,
            "attention_dropout": self.attention_dropout,
            "output_dropout": self.output_dropout,
            "attention": self.attention,
            "mask_zero_scores": self.mask_zero_scores,
            "layer_norm": self.layer_norm,
        }
