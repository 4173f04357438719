"""Scores of regions and scene in the space of texts, as an image-text model's logits are."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from biam_tf.class_sides import DirectionClasses
from biam_tf.layers.cosine_region_classifier import CosineRegionClassifier
from biam_tf.tensor_types import Shape, Tensor


@keras.saving.register_keras_serializable(package="biam_tf")
class RegionAndScene(layers.Layer):
    """Mixes the direction of every region with that of the scene.

    With the unit vectors f of a region and g of the scene, and the number 1 of
    `ImageTextClassifier`, which the bias is the factor of::

        v_r = [scale (w f_r + (1 - w) g), bias],   w = region_weight

    The product of the mean of a class's k strongest regions with the class is then w times the mean
    of its k strongest ⟨f_r, t⟩, and 1 - w times ⟨g, t⟩: the scene adds the same number to each
    region.

    Args:
        scale: float, the logit of a cosine of 1, without the bias.
        bias: float, that is added to every logit.
        region_weight: float, w, from 0 to 1.

    Input shape:
        A list of region features `(batch, height, width, d)` and scene features `(batch, d)`.

    Output shape:
        `(batch, height, width, d + 1)`.
    """

    def __init__(self, scale: float, bias: float, region_weight: float, **kwargs: Any):
        super().__init__(**kwargs)
        self.scale, self.bias, self.region_weight = scale, bias, region_weight

    def call(self, inputs: Sequence[Tensor]) -> Tensor:
        regions, scene = inputs
        regions = ops.normalize(regions, axis=-1)
        scene = ops.normalize(scene, axis=-1)[:, None, None, :]
        vectors = self.scale * (self.region_weight * regions + (1 - self.region_weight) * scene)
        bias = self.bias * ops.ones_like(vectors[..., :1])
        return ops.concatenate([vectors, bias], axis=-1)

    def compute_output_shape(self, input_shape: Sequence[Shape]) -> Shape:
        *axes, size = input_shape[0]
        return (*axes, None if size is None else size + 1)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "scale": self.scale,
            "bias": self.bias,
            "region_weight": self.region_weight,
        }


@keras.saving.register_keras_serializable(package="biam_tf")
class ImageTextClassifier(CosineRegionClassifier):
    """Multiplies vectors of `RegionAndScene` with the directions of classes.

    With the class embeddings A (classes, d_a)::

        m = v Âᵀ,   Â = [A / |A|, 1]

    Input shape:
        A list of v `(..., d_a + 1)` and class embeddings `(classes, d_a)`, without a batch axis.

    Output shape:
        Response maps `(..., classes)`.

    Raises:
        ValueError: the inputs are not such a pair, or their last axes do not match.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(scale=1.0, **kwargs)

    def build(self, input_shape: Sequence[Shape]) -> None:
        features, embeddings = input_shape
        length = None if features[-1] is None else features[-1] - 1  # without the bias
        super().build([(*features[:-1], length), embeddings])

    def class_weights(self, class_embeddings: Tensor, training: bool = False) -> Tensor:
        """Returns Â (classes, d_a + 1)."""
        directions = super().class_weights(class_embeddings, training)
        return ops.concatenate([directions, ops.ones_like(directions[:, :1])], axis=-1)

    def class_side(self) -> DirectionClasses:
        """Returns the function from class embeddings to Â."""
        size = self.input[1].shape[-1]
        nothing = np.zeros((0, size), np.float32)
        return DirectionClasses(1.0, np.zeros(size, np.float32), nothing, has_bias=True)

    def get_config(self) -> dict:
        return layers.Layer.get_config(self)  # the arguments of the base are fixed
