"""3x3 convolution, ReLU, batch normalization: the convolution c(.) of both context paths."""

from typing import Any

import keras
from keras import layers

from biam_tf.tensor_types import Shape, Tensor
from biam_tf.ways_to_compute import is_tensorflow, require_channels_last


@keras.saving.register_keras_serializable(package="biam_tf")
class ConvReluBatchNorm(layers.Layer):
    """BN(ReLU(conv(x))), in this order, with "same" padding.

    It computes h_r from the region features and is c^g of the scene context block (section 2.2
    and "Implementation Details" of the BiAM paper).

    Args:
        filters: int, output channels.
        kernel_size: int, side of the kernel. Defaults to `3`, as in the paper.
        momentum: float, share of the *old* running statistics kept at a training step. Defaults
            to `0.9`.
        epsilon: float, added to the variance. Defaults to `1e-3`.

    Input shape:
        `(batch, height, width, channels)`, floating point.

    Output shape:
        `(batch, height, width, filters)`.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int = 3,
        momentum: float = 0.9,
        epsilon: float = 1e-3,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = kernel_size
        self.momentum = momentum
        self.epsilon = epsilon
        self.conv = layers.Conv2D(
            filters, kernel_size, padding="same", dtype=self.dtype_policy, name="conv"
        )
        # Synchronized: under tf.distribute the statistics are those of the global batch, so
        # that several devices train like one.
        self.batch_norm = layers.BatchNormalization(
            momentum=momentum,
            epsilon=epsilon,
            synchronized=is_tensorflow(),
            dtype=self.dtype_policy,
            name="batch_norm",
        )

    def build(self, input_shape: Shape) -> None:
        require_channels_last("ConvReluBatchNorm")
        self.conv.build(input_shape)
        self.batch_norm.build(self.conv.compute_output_shape(input_shape))

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        return self.batch_norm(keras.ops.relu(self.conv(inputs)), training=training)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], self.filters)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
        }
