"""1x1 convolutions as matrix products."""

from typing import Any

import keras
from keras import layers, ops

from biam_tf.tensor_types import Tensor


@keras.saving.register_keras_serializable(package="biam_tf")
class PointwiseConv2D(layers.Conv2D):
    """`Conv2D` with a 1x1 kernel, computed as one matrix product over all regions of the batch.

    The weights, their names and the outputs are those of `Conv2D(filters, 1)`. CPUs compute the
    product, and above all its gradients, faster than a convolution; docs/performance.md has
    figures.

    Args:
        filters: int, output channels.
        **kwargs: other arguments of `keras.layers.Conv2D`, such as `activation` and `use_bias`,
            with its defaults.

    Input shape:
        `(batch, height, width, channels)`.

    Output shape:
        `(batch, height, width, filters)`.

    Raises:
        ValueError: for strides, groups or channels first, which one product cannot compute.
    """

    def __init__(self, filters: int, **kwargs: Any):
        kwargs.pop("kernel_size", None)  # from a configuration
        super().__init__(filters, 1, **kwargs)
        if self.strides != (1, 1) or self.groups != 1 or self.data_format != "channels_last":
            raise ValueError(
                "PointwiseConv2D has no strides and no groups, and its channels come last; got "
                f"strides={self.strides}, groups={self.groups}, data_format={self.data_format!r}"
            )

    def call(self, inputs: Tensor) -> Tensor:
        rows = ops.reshape(inputs, (-1, inputs.shape[-1]))
        kernel = ops.cast(self.kernel, self.compute_dtype)
        rows = ops.matmul(rows, ops.reshape(kernel, kernel.shape[2:]))
        if self.bias is not None:
            rows = rows + ops.cast(self.bias, self.compute_dtype)
        outputs = ops.reshape(rows, (*ops.shape(inputs)[:-1], self.filters))
        return outputs if self.activation is None else self.activation(outputs)
