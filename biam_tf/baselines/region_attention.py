"""Shared by the systems that attend to regions: their features, and the scores of an attention."""

import keras
from keras import layers, ops

from biam_tf.tensor_types import Shape, Tensor
from biam_tf.ways_to_compute import is_tensorflow


def embed_regions(
    region_features: keras.KerasTensor, channels: int, batch_norm_momentum: float
) -> keras.KerasTensor:
    """Returns f (batch, height, width, channels): ReLU(BN(conv(x))) by a 2x2 convolution.

    As in the released code of LESA (`_conv` of its model): "same" padding keeps the grid, and the
    convolution has no bias, because the normalization has one.

    Args:
        region_features: (batch, height, width, any number of channels).
        channels: channels of the result; 512 in LESA.
        batch_norm_momentum: share of the *old* running statistics kept at a training step.
    """
    convolution = layers.Conv2D(channels, 2, padding="same", use_bias=False, name="region_conv")
    # Synchronized: under tf.distribute the statistics are those of the global batch, so that
    # several devices train like one.
    norm = layers.BatchNormalization(
        momentum=batch_norm_momentum, synchronized=is_tensorflow(), name="region_batch_norm"
    )
    return layers.ReLU(name="region_embedding")(norm(convolution(region_features)))


def attend(attention: keras.KerasTensor, responses: keras.KerasTensor) -> keras.KerasTensor:
    """Returns the scores (batch, classes), float32, of one attention per class.

    For attention alpha and responses f_r·w_c, with the feature f_r of region r and the weights
    w_c = W a_c of class c::

        score_c = (Σ_r alpha_cr f_r)·w_c = Σ_r alpha_cr (f_r·w_c)

    The right-hand side needs no pooled feature per class, (batch, classes, channels). Its terms
    are the response maps.

    Args:
        attention: (batch, height, width, classes), with a sum over the regions of 1.
        responses: (batch, height, width, classes).
    """
    response_maps = layers.Multiply(name="response_maps")([attention, responses])
    return SumOverRegions(dtype="float32", name="scores")(response_maps)


@keras.saving.register_keras_serializable(package="biam_tf")
class SumOverRegions(layers.Layer):
    """Sums response maps `(batch, height, width, classes)` to scores `(batch, classes)`."""

    def call(self, response_maps: Tensor) -> Tensor:
        return ops.sum(response_maps, axis=(1, 2))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], input_shape[3])
