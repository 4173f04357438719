"""Top-k spatial pooling: the score of a class is that of its strongest regions."""

from typing import Any

import keras
from keras import layers, ops

from biam_tf.tensor_types import Shape, Tensor
from biam_tf.ways_to_compute import require_channels_last


@keras.saving.register_keras_serializable(package="biam_tf")
class TopKSpatialPooling(layers.Layer):
    """Averages, for each class, the k strongest responses over all regions.

    Section 2.1 and figure 2(b) of BiAM (Narayan et al., ICCV 2021). k = 1 is max pooling, k =
    height * width is average pooling.

    Args:
        k: int, regions averaged for each class.

    Input shape:
        Response maps `(batch, height, width, classes)`.

    Output shape:
        Scores `(batch, classes)`.

    Raises:
        ValueError: k is below 1 or larger than the number of regions.

    Example:

    >>> response_maps = np.random.rand(2, 14, 14, 1000).astype("float32")
    >>> TopKSpatialPooling(k=10)(response_maps).shape
    TensorShape([2, 1000])
    """

    def __init__(self, k: int, **kwargs: Any):
        super().__init__(**kwargs)
        if k < 1:
            raise ValueError(f"k must be at least 1; got {k}")
        self.k = k

    def build(self, input_shape: Shape) -> None:
        require_channels_last("TopKSpatialPooling")
        if len(input_shape) != 4:
            raise ValueError(
                "the input must be response maps (batch, height, width, classes); got shape "
                f"{tuple(input_shape)}"
            )
        require_k_regions(self.k, input_shape, "response maps")

    def call(self, response_maps: Tensor) -> Tensor:
        shape = ops.shape(response_maps)
        regions = ops.reshape(response_maps, (shape[0], shape[1] * shape[2], shape[3]))
        strongest, _ = ops.top_k(ops.swapaxes(regions, 1, 2), self.k, sorted=False)  # (B, C, k)
        return ops.mean(strongest, axis=-1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], input_shape[3])

    def get_config(self) -> dict:
        return {**super().get_config(), "k": self.k}


def require_k_regions(k: int, shape: Shape, what: str) -> None:
    """Raises a ValueError if k is larger than height * width, where these are known.

    Args:
        k: regions averaged for each class.
        shape: `(batch, height, width, ...)`.
        what: name of the tensor of this shape in the message.
    """
    height, width = shape[1:3]
    if height is not None and width is not None and k > height * width:
        raise ValueError(
            f"k={k} is larger than the {height * width} regions of {what} of shape {tuple(shape)}"
        )
