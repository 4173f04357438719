"""How the scores of a head factor into vectors of regions and vectors of classes."""

import dataclasses
from collections.abc import Callable
from typing import Protocol

import keras
from keras import ops

from biam_tf.class_sides import ClassSide
from biam_tf.layers import TopKSpatialPooling
from biam_tf.models.system import System
from biam_tf.tensor_types import Tensor


class Classifier(Protocol):
    """A layer whose inputs are tensors of the photos and, last, class embeddings.

    Its outputs are products of vectors: of regions, `(batch, height, width, d)`, or of photos,
    `(batch, d)`, with those of classes, `(classes, d)`.
    """

    def region_vectors(self, *features: Tensor) -> Tensor:
        """Returns the vectors `(..., d)` of all inputs but the class embeddings."""

    def class_side(self) -> ClassSide:
        """Returns the function from class embeddings to vectors, with the layer's weights."""


@dataclasses.dataclass(frozen=True, eq=False)
class Factors:
    """The two sides of a head's response maps, v_r · u_c.

    Attributes:
        region_vectors: function of region features (B, h, w, channels) and scene features (B, d_g)
            to v (B, h, w, d), float32; (B, 1, 1, d) for a head that scores photos as a whole.
        class_side: function from class embeddings to u (C, d).
        grid: (h, w); `None` where it is not fixed.
        pooled: k; the score of a class is the mean of its k strongest responses.
    """

    region_vectors: Callable[[Tensor, Tensor], Tensor]
    class_side: ClassSide
    grid: tuple[int | None, int | None]
    pooled: int


def factors_of(head: keras.Model, system: System) -> Factors | None:
    """Returns the factors of a built head; `None` if its scores have another last step.

    Args:
        head: a head of the system, with the weights that it will be used with.
        system: the system.
    """
    if system.classifier is None:
        return None
    layer = head.get_layer(system.classifier)
    before = keras.Model(head.inputs[:2], list(layer.input[:-1]))
    shape = before.outputs[0].shape
    scores = head.get_layer("scores")

    def region_vectors(region_features: Tensor, scene_feature: Tensor) -> Tensor:
        features = before([region_features, scene_feature], training=False)
        if not isinstance(features, (list, tuple)):  # Keras unpacks a list of one
            features = [features]
        vectors = ops.cast(layer.region_vectors(*features), "float32")
        return vectors if len(vectors.shape) == 4 else vectors[:, None, None, :]

    return Factors(
        region_vectors,
        layer.class_side(),
        grid=tuple(shape[1:3]) if len(shape) == 4 else (1, 1),
        pooled=scores.k if isinstance(scores, TopKSpatialPooling) else 1,
    )
