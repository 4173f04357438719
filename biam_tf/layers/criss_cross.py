"""Criss-Cross attention: every region attends to its row and its column, twice."""

from typing import Any

import keras
from keras import layers, ops

from biam_tf.layers.pointwise_conv import PointwiseConv2D
from biam_tf.tensor_types import Shape, Tensor
from biam_tf.ways_to_compute import require_channels_last


@keras.saving.register_keras_serializable(package="biam_tf")
class CrissCrossAttention(layers.Layer):
    """Adds to each region feature what it gathers from the regions of its row and column.

    Huang et al., CCNet: criss-cross attention for semantic segmentation, ICCV 2019, section 3.
    q and k are 1x1 convolutions of x to an eighth of its channels, v is one that keeps all of
    them. For the region at (i, j), whose cross is the h + w - 1 regions of column j and row i:

        A = softmax over the cross of q_ij . k
        x'_ij = gamma * (sum over the cross of A v) + x_ij

    The region itself lies in both row and column and counts once. The step is repeated
    `recurrence` times with the same weights: two let every region reach every other, at O(h + w)
    scores for each region instead of O(hw).

    gamma comes from the authors' code (speedinghzl/CCNet). It starts at zero, so that a new layer
    returns its input unchanged. As in that code, the convolutions have a bias and their kernels
    are initialized uniformly within 1 / sqrt(input channels), PyTorch's default. The 3x3
    convolutions around the attention in that code belong to the segmentation network and are
    left out.

    Args:
        recurrence: int, repetitions with shared weights. Defaults to `2`, as in the paper.

    Input shape:
        `(batch, height, width, channels)`, floating point, any height and width, at least 8
        channels.

    Output shape:
        The same as the input's.

    Raises:
        ValueError: `recurrence` is below 1, or the number of channels is unknown or below 8.

    Example:

    >>> h_r = np.random.rand(2, 14, 14, 64).astype("float32")
    >>> CrissCrossAttention()(h_r).shape
    TensorShape([2, 14, 14, 64])
    """

    def __init__(self, recurrence: int = 2, **kwargs: Any):
        super().__init__(**kwargs)
        if recurrence < 1:
            raise ValueError(f"recurrence must be at least 1; got {recurrence}")
        self.recurrence = recurrence

    def build(self, input_shape: Shape) -> None:
        require_channels_last("CrissCrossAttention")
        channels = input_shape[-1]
        if channels is None or channels < 8:
            raise ValueError(
                "queries and keys have an eighth of the channels of the input, which must be known "
                f"and at least 8; got shape {tuple(input_shape)}"
            )
        self.query = self._conv_1x1(channels // 8, "query", input_shape)
        self.key = self._conv_1x1(channels // 8, "key", input_shape)
        self.value = self._conv_1x1(channels, "value", input_shape)
        self.gamma = self.add_weight(shape=(), initializer="zeros", name="gamma")

    def _conv_1x1(self, filters: int, name: str, input_shape: Shape) -> PointwiseConv2D:
        # The scores are not scaled: with Keras's default, larger kernels the softmax would
        # start concentrated on single regions.
        initializer = keras.initializers.VarianceScaling(
            1 / 3, mode="fan_in", distribution="uniform"
        )
        layer = PointwiseConv2D(
            filters, kernel_initializer=initializer, dtype=self.dtype_policy, name=name
        )
        layer.build(input_shape)
        return layer

    def call(self, x: Tensor) -> Tensor:
        for _ in range(self.recurrence):
            x = self.gamma * self._attended(x) + x
        return x

    def _attended(self, x: Tensor) -> Tensor:
        q, k, v = self.query(x), self.key(x), self.value(x)
        height = ops.shape(x)[1]
        in_column = ops.einsum("bijc,bkjc->bijk", q, k)  # (B, h, w, h)
        in_row = ops.einsum("bijc,bikc->bijk", q, k)  # (B, h, w, w)
        # The region itself counts once, in its row.
        in_column = ops.where(_same_row(height), float("-inf"), in_column)
        weights = ops.softmax(ops.concatenate([in_column, in_row], axis=-1), axis=-1)
        from_column = ops.einsum("bijk,bkjd->bijd", weights[..., :height], v)
        from_row = ops.einsum("bijk,bikd->bijd", weights[..., height:], v)
        return from_column + from_row

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> dict:
        return {**super().get_config(), "recurrence": self.recurrence}


def _same_row(height: int | Tensor) -> Tensor:
    """(h, 1, h) bool: whether region k of any column is in row i."""
    rows = ops.arange(height)
    return (rows[:, None] == rows)[:, None, :]
