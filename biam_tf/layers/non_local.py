"""Non-Local block: every region attends to all regions, without heads."""

from typing import Any

import keras
from keras import layers, ops

from biam_tf.layers.pointwise_conv import PointwiseConv2D
from biam_tf.tensor_types import Shape, Tensor
from biam_tf.ways_to_compute import is_tensorflow, require_channels_last


@keras.saving.register_keras_serializable(package="biam_tf")
class NonLocalBlock(layers.Layer):
    """Adds to each region feature the result of a single attention over all regions.

    Wang et al., Non-local neural networks, CVPR 2018, equations 1 and 6, the "embedded Gaussian"
    form. theta, phi, g and W_z are 1x1 convolutions, the first three to half the channels:

        y = softmax(theta(x) phi(x)^T) g(x)
        z = BN(W_z y) + x

    The scale of BN starts at zero, so that a new block returns its input unchanged. As in the
    authors' code (facebookresearch/video-nonlocal-net), the convolutions have a bias and their
    kernels are initialized normally with standard deviation 0.01. Two additions of that code are
    left out: dividing the scores by the square root of the halved channels, and max pooling
    before phi and g.

    Under `tf.distribute`, BN uses the statistics of the global batch.

    Args:
        batch_norm_momentum: float, share of the *old* running statistics kept at a training step.
            Defaults to `0.9`.
        batch_norm_epsilon: float, added to the variance. Defaults to `1e-3`.

    Input shape:
        `(batch, height, width, channels)`, floating point, any height and width, at least 2
        channels.

    Output shape:
        The same as the input's.

    Raises:
        ValueError: the number of channels is unknown or below 2.

    Example:

    >>> h_r = np.random.rand(2, 14, 14, 64).astype("float32")
    >>> NonLocalBlock()(h_r).shape
    TensorShape([2, 14, 14, 64])
    """

    def __init__(
        self, batch_norm_momentum: float = 0.9, batch_norm_epsilon: float = 1e-3, **kwargs: Any
    ):
        super().__init__(**kwargs)
        self.batch_norm_momentum = batch_norm_momentum
        self.batch_norm_epsilon = batch_norm_epsilon

    def build(self, input_shape: Shape) -> None:
        require_channels_last("NonLocalBlock")
        channels = input_shape[-1]
        if channels is None or channels < 2:
            raise ValueError(
                "theta, phi and g have half the channels of the input, which must be known and at "
                f"least 2; got shape {tuple(input_shape)}"
            )
        self.theta = self._conv_1x1(channels // 2, "theta", input_shape)
        self.phi = self._conv_1x1(channels // 2, "phi", input_shape)
        self.g = self._conv_1x1(channels // 2, "g", input_shape)
        halved_shape = self.g.compute_output_shape(input_shape)
        self.projection = self._conv_1x1(channels, "projection", halved_shape)
        self.batch_norm = layers.BatchNormalization(
            momentum=self.batch_norm_momentum,
            epsilon=self.batch_norm_epsilon,
            gamma_initializer="zeros",
            synchronized=is_tensorflow(),
            dtype=self.dtype_policy,
            name="batch_norm",
        )
        self.batch_norm.build(input_shape)

    def _conv_1x1(self, filters: int, name: str, input_shape: Shape) -> PointwiseConv2D:
        # The scores are not scaled: with Keras's default, larger kernels the softmax would
        # start concentrated on single regions.
        initializer = keras.initializers.RandomNormal(stddev=0.01)
        layer = PointwiseConv2D(
            filters, kernel_initializer=initializer, dtype=self.dtype_policy, name=name
        )
        layer.build(input_shape)
        return layer

    def call(self, x: Tensor, training: bool | None = None) -> Tensor:
        g_x = self.g(x)  # (B, h, w, d/2)
        scores = ops.matmul(_regions(self.theta(x)), ops.swapaxes(_regions(self.phi(x)), 1, 2))
        y = ops.matmul(ops.softmax(scores, axis=-1), _regions(g_x))  # (B, hw, d/2)
        y = ops.reshape(y, ops.shape(g_x))
        return self.batch_norm(self.projection(y), training=training) + x

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "batch_norm_momentum": self.batch_norm_momentum,
            "batch_norm_epsilon": self.batch_norm_epsilon,
        }


def _regions(x: Tensor) -> Tensor:
    """(B, h, w, d) -> (B, hw, d); h and w may be unknown."""
    return ops.reshape(x, (ops.shape(x)[0], -1, x.shape[-1]))
