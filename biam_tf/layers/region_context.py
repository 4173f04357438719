"""Region context block (RCB): every region attends to all regions of its image."""

import math

import keras
import tensorflow as tf
from keras import layers, ops

from biam_tf.layers.blockwise_attention import attend
from biam_tf.layers.pointwise_conv import PointwiseConv2D

ATTENTION = {"softmax": lambda scores: ops.softmax(scores, axis=-1), "sigmoid": ops.sigmoid}
LAYER_NORM_EPSILON = 1e-5

# Relation scores (numbers) of one image from which on they are computed in blocks: in training,
# where all of a batch would be kept for the gradients, and else.
BLOCKWISE_IN_TRAINING = 1 << 17
BLOCKWISE = 1 << 20


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

    The paper leaves open the biases, what stands between the two 1x1 convolutions of c^r, their
    width and dropout. As in the authors' released code, all six 1x1 convolutions have a bias
    and c^r is conv1x1 (d to 2d), ReLU, conv1x1 (2d to d); dropout is off by default and 0.1 in
    both presets of `build_head`.

    Table 4 has a variant with LayerNorm and does not say where it stands. Equations 2 to 5 are
    the encoder block of Vaswani et al. (Attention is all you need, NeurIPS 2017), by which the
    paper says it is inspired, less its normalizations; `layer_norm` puts them back where they
    stand there, after each residual sum (post-norm):

        x = LayerNorm(h_r + o_r),  e_r = LayerNorm(c^r(x) + x)

    Args:
        num_heads: int, H; must divide the channels.
        feed_forward_units: int, channels between the two 1x1 convolutions of c^r; `None` means
            twice the input's channels.
        attention_dropout: float, dropout rate on the relation scores r_h.
        output_dropout: float, dropout rate on o_r.
        attention: `"softmax"` (the paper) or `"sigmoid"` (its table 4).
        mask_zero_scores: bool, leave pairs whose scaled score is exactly 0 out of the softmax,
            as the released code does; needed only to equal it bit for bit.
        layer_norm: bool, normalize each region's channels after both residual sums (table 4).

    Input shape:
        `(batch, height, width, channels)`, any height and width.

    Output shape:
        The same as the input's.

    Raises:
        ValueError: `num_heads` does not divide the channels, or an argument is not valid.

    Example:

    >>> h_r = np.random.rand(2, 14, 14, 64).astype("float32")
    >>> RegionContextBlock(num_heads=8)(h_r).shape
    TensorShape([2, 14, 14, 64])
    """

    def __init__(
        self,
        num_heads=8,
        feed_forward_units=None,
        attention_dropout=0.0,
        output_dropout=0.0,
        attention="softmax",
        mask_zero_scores=False,
        layer_norm=False,
        **kwargs,
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

    def build(self, input_shape):
        """Creates W^Q, W^K, W^V, W_o, the residual sub-network c^r and, if chosen, the norms."""
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
        # XLA needs arrays of known sizes, which blocks are not.
        self.supports_jit = not self._in_blocks(input_shape, training=True)
        self.attention_norm = self.feed_forward_norm = None
        if self.layer_norm:
            self.attention_norm = self._norm("attention_norm", input_shape)
            self.feed_forward_norm = self._norm("feed_forward_norm", input_shape)

    def _conv_1x1(self, filters, name, input_shape):
        layer = PointwiseConv2D(filters, dtype=self.dtype_policy, name=name)
        layer.build(input_shape)
        return layer

    def _norm(self, name, input_shape):
        layer = layers.LayerNormalization(
            epsilon=LAYER_NORM_EPSILON, dtype=self.dtype_policy, name=name
        )
        layer.build(input_shape)
        return layer

    def call(self, h_r, training=None):
        """Returns e_r for the region features `h_r`, both (batch, height, width, channels)."""
        q = self._split_heads(self.query(h_r))  # (B, H, hw, d')
        k = self._split_heads(self.key(h_r))
        v = self._split_heads(self.value(h_r))
        if self._in_blocks(h_r.shape, training):
            alpha = self._attend_in_blocks(q, k, v, training)
        else:
            r = self._relation_scores(q, k)  # (B, H, hw, hw)
            alpha = ops.matmul(self.dropout_r(r, training=training), v)  # (B, H, hw, d')
        o_r = self.dropout_o(self.projection(self._join_heads(alpha, h_r)), training=training)
        x = h_r + o_r
        if self.layer_norm:
            x = self.attention_norm(x)
        c_r = self.feed_forward_out(ops.relu(self.feed_forward_in(x)))
        e_r = c_r + x
        return self.feed_forward_norm(e_r) if self.layer_norm else e_r

    def _in_blocks(self, shape, training) -> bool:
        height, width = shape[1:3]
        if height is None or width is None:
            return True
        numbers = self.num_heads * (height * width) ** 2
        return numbers >= (BLOCKWISE_IN_TRAINING if training else BLOCKWISE)

    def _attend_in_blocks(self, q, k, v, training):
        rate, seed = self.attention_dropout if training else 0.0, None
        if rate:
            seed = tf.cast(self.dropout_r.seed_generator.next(), tf.int32)
        heads = [ops.reshape(x, (-1, *ops.shape(x)[2:])) for x in (q, k, v)]  # (B H, hw, d')
        alpha = attend(*heads, self._relation_scores, rate, seed)
        return ops.reshape(alpha, ops.shape(v))

    def _relation_scores(self, q, k):
        scores = ops.matmul(q / math.sqrt(q.shape[-1]), ops.swapaxes(k, -1, -2))
        if self.mask_zero_scores:
            lowest = -1e9 if scores.dtype != "float16" else -6e4  # float16 ends at 65504
            scores = ops.where(scores == 0, ops.cast(lowest, scores.dtype), scores)
        return ATTENTION[self.attention](scores)

    def _split_heads(self, x):
        """(B, h, w, d) -> (B, H, hw, d'); hw is left to be inferred where h or w is unknown."""
        shape = ops.shape(x)
        x = ops.reshape(x, (shape[0], -1, self.num_heads, x.shape[-1] // self.num_heads))
        return ops.swapaxes(x, 1, 2)

    def _join_heads(self, alpha, like):
        """(B, H, hw, d') -> (B, h, w, d)."""
        return ops.reshape(ops.swapaxes(alpha, 1, 2), ops.shape(like))

    def compute_output_shape(self, input_shape):
        """Returns `input_shape`: the block keeps it."""
        return input_shape

    def get_config(self):
        """Returns the constructor's arguments."""
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
