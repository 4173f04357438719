"""Scene context block (SCB): the scene feature weights the channels."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers, ops

from biam_tf.layers.conv_relu_batch_norm import ConvReluBatchNorm
from biam_tf.layers.pointwise_conv import PointwiseConv2D
from biam_tf.tensor_types import Shape, Tensor
from biam_tf.ways_to_compute import require_channels_last

ATTENTION = {"sigmoid": ops.sigmoid, "softmax": lambda scores: ops.softmax(scores, axis=-1)}
RESIDUAL = ("input", "attended")
LEAKY_SLOPE = 0.2


@keras.saving.register_keras_serializable(package="biam_tf")
class SceneContextBlock(layers.Layer):
    """Reweights the channels of the region features by their agreement with the scene.

    Section 2.2.2 of BiAM (Narayan et al., ICCV 2021), equations 6 to 8:

        q^g = GAP(h_r),  k^g = x_g W^g,  v^g = h_r            (6)
        r^g = sigmoid(q^g * k^g)
        alpha^g = v^g (x) r^g, channel by channel             (7)
        e_g = c^g(alpha^g) + h_r                              (8)

    c^g is BN(ReLU(conv3x3)). The paper does not specify the bias of W^g or dropout; as in the
    authors' released code, W^g has a bias, and dropout on x_g is off by default and 0.2 in the
    presets of `build_head`. `value_projection` and `residual` select the released code's
    departures from the paper.

    Args:
        value_projection: bool, whether query and value are computed from
            LeakyReLU(conv1x1(h_r)) with slope 0.2, as in the released code, instead of h_r itself
            (eq. 6). Defaults to `False`.
        residual: `"input"` adds h_r (eq. 8), `"attended"` adds alpha^g (released code). Defaults
            to `"input"`.
        scene_dropout: float, dropout rate on the scene feature x_g. Defaults to `0.0`.
        attention: `"sigmoid"` (the paper) or `"softmax"` over channels (its table 4). Defaults to
            `"sigmoid"`.
        batch_norm_momentum: float, share of the *old* running statistics kept at a training step.
            Defaults to `0.9`.
        batch_norm_epsilon: float, added to the variance. Defaults to `1e-3`.

    Input shape:
        A list of h_r `(batch, height, width, channels)` and the scene feature x_g
        `(batch, scene_size)`.

    Output shape:
        `(batch, height, width, channels)`.

    Raises:
        ValueError: an argument is not valid, or the inputs are not such a pair.

    Example:

    >>> h_r = np.random.rand(2, 14, 14, 64).astype("float32")
    >>> scene_feature = np.random.rand(2, 4096).astype("float32")
    >>> SceneContextBlock()([h_r, scene_feature]).shape
    TensorShape([2, 14, 14, 64])
    """

    def __init__(
        self,
        value_projection: bool = False,
        residual: str = "input",
        scene_dropout: float = 0.0,
        attention: str = "sigmoid",
        batch_norm_momentum: float = 0.9,
        batch_norm_epsilon: float = 1e-3,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if attention not in ATTENTION:
            raise ValueError(f"attention must be one of {', '.join(ATTENTION)}; got {attention!r}")
        if residual not in RESIDUAL:
            raise ValueError(f"residual must be one of {', '.join(RESIDUAL)}; got {residual!r}")
        self.value_projection = value_projection
        self.residual = residual
        self.scene_dropout = scene_dropout
        self.attention = attention
        self.batch_norm_momentum = batch_norm_momentum
        self.batch_norm_epsilon = batch_norm_epsilon

    def build(self, input_shape: Sequence[Shape]) -> None:
        require_channels_last("SceneContextBlock")
        if len(input_shape) != 2 or len(input_shape[0]) != 4 or len(input_shape[1]) != 2:
            raise ValueError(
                "the inputs must be [h_r (batch, height, width, channels), scene_feature "
                f"(batch, scene_size)]; got shapes {input_shape}"
            )
        region_shape, scene_shape = input_shape
        channels = region_shape[-1]
        if channels is None:
            raise ValueError(f"the number of channels must be known; got shape {region_shape}")
        self.key = layers.Dense(channels, dtype=self.dtype_policy, name="key")
        self.key.build(scene_shape)
        self.dropout_g = layers.Dropout(self.scene_dropout, dtype=self.dtype_policy)
        self.conv = ConvReluBatchNorm(
            channels,
            momentum=self.batch_norm_momentum,
            epsilon=self.batch_norm_epsilon,
            dtype=self.dtype_policy,
            name="conv",
        )
        self.conv.build(region_shape)
        self.value = None
        if self.value_projection:
            self.value = PointwiseConv2D(channels, dtype=self.dtype_policy, name="value")
            self.value.build(region_shape)

    def call(self, inputs: Sequence[Tensor], training: bool | None = None) -> Tensor:
        h_r, x_g = inputs
        v = self._value(h_r)  # (B, h, w, d)
        q = ops.mean(v, axis=(1, 2))  # (B, d)
        k = self.key(self.dropout_g(x_g, training=training))  # (B, d)
        r = ATTENTION[self.attention](q * k)
        alpha = v * r[:, None, None, :]  # (B, h, w, d)
        kept = h_r if self.residual == "input" else alpha
        return self.conv(alpha, training=training) + kept

    def _value(self, h_r: Tensor) -> Tensor:
        if self.value is None:
            return h_r
        return ops.leaky_relu(self.value(h_r), negative_slope=LEAKY_SLOPE)

    def compute_output_shape(self, input_shape: Sequence[Shape]) -> Shape:
        return input_shape[0]

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "value_projection": self.value_projection,
            "residual": self.residual,
            "scene_dropout": self.scene_dropout,
            "attention": self.attention,
            "batch_norm_momentum": self.batch_norm_momentum,
            "batch_norm_epsilon": self.batch_norm_epsilon,
        }
