"""MKT: the strongest regions and the whole photo, each normalized over the seen classes."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers, ops
from numpy.typing import ArrayLike

from biam_tf.baselines.image_text_systems import MktSettings
from biam_tf.layers import BoundClassEmbeddings, RegionClassifier, TopKSpatialPooling
from biam_tf.layers.region_classifier import match_classes
from biam_tf.layers.top_k_pooling import require_k_regions
from biam_tf.losses import pairwise_ranking_loss
from biam_tf.models.system import (
    HeadInputs,
    Losses,
)
from biam_tf.tensor_types import Shape, Tensor

_LEAST_NORM = 1e-7


@keras.saving.register_keras_serializable(package="biam_tf")
class NormalizedStreams(layers.Layer):
    """Adds the global stream to every region, each divided by its norm over the seen classes.

    With region vectors u_r and the photo's vector g, and the seen classes s::

        l_c = mean of the k largest u_r · a_c over the regions r
        v_r = ( u_r / sqrt(Σ_s l_s²) + g / sqrt(Σ_s (g · a_s)²) ) / 2

    The mean of the k largest v_r · a_c is then MKT's score of class c, the mean of the normalized
    local score l_c and the normalized global score g · a_c. The embeddings of the seen classes are
    saved with the weights and never trained.

    Args:
        k: int, regions averaged for each class.
        seen_embeddings: array-like `(seen classes, embedding_size)`. Defaults to `None`: zeros,
            for weights that are loaded afterwards.
        num_classes: int, needed where `seen_embeddings` is `None`. Defaults to `None`.
        embedding_size: int, d_a, needed where `seen_embeddings` is `None`. Defaults to `None`.

    Input shape:
        A list of region vectors `(batch, height, width, d_a)` and the photo's vector
        `(batch, d_a)`.

    Output shape:
        `(batch, height, width, d_a)`.

    Raises:
        ValueError: k is below 1 or larger than the number of regions.
    """

    def __init__(
        self,
        k: int,
        seen_embeddings: ArrayLike | None = None,
        num_classes: int | None = None,
        embedding_size: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.k = k
        self.seen = BoundClassEmbeddings(
            seen_embeddings, num_classes, embedding_size, dtype="float32", name="seen"
        )
        self.pooling = TopKSpatialPooling(k, dtype="float32", name="pooling")

    def build(self, input_shape: Sequence[Shape]) -> None:
        require_k_regions(self.k, input_shape[0], "region vectors")

    def call(self, inputs: Sequence[Tensor]) -> Tensor:
        regions, photo = inputs
        seen = ops.cast(self.seen.matrix, self.compute_dtype)
        local = self.pooling(match_classes(regions, seen))
        regions = regions / _norms(local)[:, :, None, None]
        photo = photo / _norms(match_classes(photo, seen))
        return (regions + photo[:, None, None, :]) / 2

    def compute_output_shape(self, input_shape: Sequence[Shape]) -> Shape:
        return input_shape[0]

    def get_config(self) -> dict:
        # The embeddings themselves are a weight.
        return {
            **super().get_config(),
            "k": self.k,
            "num_classes": self.seen.num_classes,
            "embedding_size": self.seen.embedding_size,
        }


def _norms(scores: Tensor) -> Tensor:
    """Norms (batch, 1) of scores (batch, seen classes)."""
    squares = ops.sum(ops.square(scores), axis=1, keepdims=True)
    return ops.sqrt(ops.maximum(squares, _LEAST_NORM**2))


def build_scores(inputs: HeadInputs, settings: MktSettings) -> keras.KerasTensor:
    """Returns the scores (batch, classes), float32; the equations are in `NormalizedStreams`.

    Raises:
        ValueError: the seen embeddings are missing, or `top_k` exceeds the number of regions.
    """
    seen = inputs.require_seen_embeddings("the system mkt")
    regions, scene = inputs.region_features, inputs.scene_feature
    if settings.dropout:
        regions = layers.SpatialDropout2D(settings.dropout, name="region_dropout")(regions)
        scene = layers.Dropout(settings.dropout, name="scene_dropout")(scene)
    regions = _in_embedding_space(settings, regions, seen.shape[1], "region")
    scene = _in_embedding_space(settings, scene, seen.shape[1], "scene")
    # In float32 under any dtype policy: normalized scores differ by hundredths.
    streams = NormalizedStreams(settings.top_k, seen, dtype="float32", name="normalized_streams")
    # W = 1: the products with the class embeddings themselves.
    classifier = RegionClassifier(
        kernel_initializer="identity", trainable=False, dtype="float32", name="region_classifier"
    )
    responses = classifier([streams([regions, scene]), inputs.class_embeddings])
    return TopKSpatialPooling(settings.top_k, dtype="float32", name="scores")(responses)


def _in_embedding_space(
    settings: MktSettings, x: keras.KerasTensor, size: int, name: str
) -> keras.KerasTensor:
    if settings.channels is not None:
        x = layers.Dense(settings.channels, activation="tanh", name=f"{name}_hidden")(x)
    return layers.Dense(size, name=f"{name}_vectors")(x)


def make_losses(head: keras.Model, settings: MktSettings) -> Losses:
    """Returns the ranking loss, divided by the number of violated pairs of a photo."""
    del head
    return lambda labels, outputs: pairwise_ranking_loss(
        labels, outputs["scores"], settings.margin, mean_of_violations=True
    )
