"""Attention per Cluster: classes with similar embeddings share one attention."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import ArrayLike

from biam_tf.baselines.class_embedding_systems import (  # noqa: F401
    ATTENTION_PER_CLUSTER,
    AttentionPerClusterSettings,
)
from biam_tf.baselines.region_attention import (
    attend,
    embed_regions,
)
from biam_tf.errors import UserError
from biam_tf.layers import RegionClassifier
from biam_tf.layers.bound_class_embeddings import array_initializer
from biam_tf.layers.region_classifier import match_classes
from biam_tf.models.k_means import k_means
from biam_tf.models.system import HeadInputs
from biam_tf.tensor_types import Shape, Tensor
from biam_tf.ways_to_compute import index_of_largest


@keras.saving.register_keras_serializable(package="biam_tf")
class NearestCluster(layers.Layer):
    """Gives each class the attention of the cluster whose centroid is nearest to its embedding.

    The centroids are weights that are saved with the model and never trained. Classes that the
    model was not trained on use their nearest cluster too. Embeddings and centroids are compared
    in float32 under any dtype policy: a class near a border keeps its cluster.

    Args:
        centroids: array-like `(num_clusters, embedding_size)`. Defaults to `None`: zeros, for
            weights that are loaded afterwards.
        num_clusters: int, needed where `centroids` is `None`. Defaults to `None`.
        embedding_size: int, needed where `centroids` is `None`. Defaults to `None`.

    Input shape:
        A list of attention `(batch, height, width, num_clusters)` and class embeddings
        `(classes, embedding_size)`, without a batch axis.

    Output shape:
        `(batch, height, width, classes)`.
    """

    def __init__(
        self,
        centroids: ArrayLike | None = None,
        num_clusters: int | None = None,
        embedding_size: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(autocast=False, **kwargs)
        if centroids is not None:
            num_clusters, embedding_size = np.shape(centroids)
        self.num_clusters = num_clusters
        self.embedding_size = embedding_size
        self.centroids = self.add_weight(
            shape=(num_clusters, embedding_size),
            initializer=array_initializer(centroids),
            trainable=False,
            autocast=False,
            name="centroids",
        )

    def call(self, inputs: Sequence[Tensor]) -> Tensor:
        attention, class_embeddings = inputs
        clusters = ops.one_hot(
            self.cluster_of(class_embeddings), self.num_clusters, dtype=self.compute_dtype
        )
        return match_classes(ops.cast(attention, self.compute_dtype), clusters)

    def cluster_of(self, class_embeddings: Tensor) -> Tensor:
        """Returns the indices (classes,) of the clusters of class embeddings (classes, d_a)."""
        class_embeddings = ops.cast(class_embeddings, "float32")
        # |a - μ|² = |a|² - 2 a·μ + |μ|², of which the first is the same for all clusters.
        squares = ops.sum(ops.square(self.centroids), axis=1)
        products = ops.matmul(class_embeddings, ops.transpose(self.centroids))
        return index_of_largest(2 * products - squares, axis=1)

    def compute_output_shape(self, input_shape: Sequence[Shape]) -> Shape:
        attention_shape, embeddings_shape = input_shape
        return (*attention_shape[:-1], embeddings_shape[0])

    def get_config(self) -> dict:
        # The centroids themselves are a weight.
        return {
            **super().get_config(),
            "num_clusters": self.num_clusters,
            "embedding_size": self.embedding_size,
        }


def build_scores(inputs: HeadInputs, settings: AttentionPerClusterSettings) -> keras.KerasTensor:
    """Returns the scores (batch, classes), float32.

    Raises:
        ValueError: the seen embeddings are missing, or fewer different ones than clusters.
    """
    seen = inputs.require_seen_embeddings("attention_per_cluster")
    try:
        centroids = k_means(seen, settings.num_clusters)
    except ValueError as error:
        raise UserError(
            f"num_clusters: {error}: the {len(seen)} seen classes have too few different "
            "embeddings; use fewer clusters"
        ) from error
    f = embed_regions(inputs.region_features, settings.channels, settings.batch_norm_momentum)
    hidden = layers.Dense(settings.channels, activation="tanh", name="attention_hidden")(f)
    logits = layers.Dense(settings.num_clusters, name="attention_logits")(hidden)
    by_cluster = layers.Softmax(axis=(1, 2), name="attention_of_clusters")(logits)
    nearest = NearestCluster(centroids, dtype="float32", name="attention")
    attention = nearest([by_cluster, inputs.class_embeddings])
    responses = RegionClassifier(name="region_responses")([f, inputs.class_embeddings])
    return attend(attention, responses)
