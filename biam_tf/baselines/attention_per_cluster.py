"""Attention per Cluster: classes with similar embeddings look at the regions in one way."""

import dataclasses

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from biam_tf.baselines.region_attention import (
    attend,
    embed_regions,
    require_at_least,
    require_share,
)
from biam_tf.errors import UserError
from biam_tf.layers import RegionClassifier
from biam_tf.layers.bound_class_embeddings import holding
from biam_tf.layers.region_classifier import match_classes
from biam_tf.models.k_means import k_means
from biam_tf.models.system import HeadInputs, System


@dataclasses.dataclass(frozen=True)
class AttentionPerClusterSettings:
    """Settings of Attention per Cluster.

    Attributes:
        channels: of the region features after the convolution, and of the attention's hidden
            layer.
        num_clusters: of the seen classes; at most their number.
        batch_norm_momentum: share of the *old* running statistics kept at a step.
    """

    channels: int = 512
    num_clusters: int = 10
    batch_norm_momentum: float = 0.99

    def __post_init__(self):
        """Checks every value; the message begins with the name of the setting."""
        require_at_least(self, 1, "channels", "num_clusters")
        require_share(self, "batch_norm_momentum")


@keras.saving.register_keras_serializable(package="biam_tf")
class NearestCluster(layers.Layer):
    """Gives each class the attention of the cluster whose centroid is nearest to its embedding.

    The centroids are weights that are saved with the model and never trained. A class that joins
    later takes its nearest cluster like the others.

    Args:
        centroids: array-like `(num_clusters, embedding_size)`, or `None` where the weights are
            loaded afterwards.
        num_clusters: int, needed where `centroids` is `None`.
        embedding_size: int, likewise.

    Input shape:
        A list of attention `(batch, height, width, num_clusters)` and class embeddings
        `(classes, embedding_size)`, without a batch axis.

    Output shape:
        `(batch, height, width, classes)`.
    """

    def __init__(self, centroids=None, num_clusters=None, embedding_size=None, **kwargs):
        super().__init__(**kwargs)
        if centroids is not None:
            num_clusters, embedding_size = np.shape(centroids)
        self.num_clusters = num_clusters
        self.embedding_size = embedding_size
        self.centroids = self.add_weight(
            shape=(num_clusters, embedding_size),
            initializer=holding(centroids),
            trainable=False,
            name="centroids",
        )

    def call(self, inputs):
        """Returns the attention of every class for `[attention, A]`."""
        attention, class_embeddings = inputs
        clusters = ops.one_hot(self.cluster_of(class_embeddings), self.num_clusters)
        return match_classes(attention, clusters)

    def cluster_of(self, class_embeddings):
        """Returns the clusters' numbers (classes,) of class embeddings (classes, d_a)."""
        # |a - μ|² = |a|² - 2 a·μ + |μ|², of which the first is the same for all clusters.
        squares = ops.sum(ops.square(self.centroids), axis=1)
        products = ops.matmul(class_embeddings, ops.transpose(self.centroids))
        # Not Keras's, whose care for -0 needs an operation that ONNX lacks.
        return tf.argmin(squares - 2 * products, axis=1)

    def compute_output_shape(self, input_shape):
        """Returns the attention's shape with the clusters replaced by the classes."""
        attention_shape, embeddings_shape = input_shape
        return (*attention_shape[:-1], embeddings_shape[0])

    def get_config(self):
        """Returns the sizes; the centroids themselves are a weight."""
        return {
            **super().get_config(),
            "num_clusters": self.num_clusters,
            "embedding_size": self.embedding_size,
        }


def build_scores(inputs: HeadInputs, settings: AttentionPerClusterSettings) -> keras.KerasTensor:
    """Returns the scores (batch, classes), float32.

    Raises:
        ValueError: the seen embeddings are not known, or fewer differ than there are clusters.
    """
    seen = inputs.require_seen_embeddings("attention_per_cluster")
    try:
        centroids = k_means(seen, settings.num_clusters)
    except ValueError as error:
        raise UserError(
            f"num_clusters: {error}: the {len(seen)} seen classes have too few different "
            "embeddings; ask for fewer clusters"
        ) from error
    f = embed_regions(inputs.region_features, settings.channels, settings.batch_norm_momentum)
    hidden = layers.Dense(settings.channels, activation="tanh", name="attention_hidden")(f)
    logits = layers.Dense(settings.num_clusters, name="attention_logits")(hidden)
    by_cluster = layers.Softmax(axis=(1, 2), name="attention_of_clusters")(logits)
    # In full precision under any dtype policy: a class near a border keeps its cluster.
    nearest = NearestCluster(centroids, dtype="float32", name="attention")
    attention = nearest([by_cluster, inputs.class_embeddings])
    responses = RegionClassifier(name="region_responses")([f, inputs.class_embeddings])
    return attend(attention, responses)


ATTENTION_PER_CLUSTER = System(
    title="Attention per Cluster",
    source=(
        "Huynh & Elhamifar, A shared multi-attention framework for multi-label zero-shot learning, "
        "CVPR 2020, as a system to compare with: k-means clusters of the seen class embeddings, "
        "one attention for each, of LESA's form softmax_r(w_kᵀ tanh(W f_r + b)); the score of a "
        "class is its cluster's attended feature times W a_c. The clusters are as many as LESA's "
        "attentions, and the regions pass through LESA's convolution: ours, where the comparison "
        "is silent."
    ),
    presets={"paper": AttentionPerClusterSettings()},
    build=build_scores,
)
