"""The layers of BiAM and of its variants, each usable alone in any Keras model."""

from biam_tf.layers.bound_class_embeddings import BoundClassEmbeddings
from biam_tf.layers.conv_relu_batch_norm import ConvReluBatchNorm
from biam_tf.layers.cosine_region_classifier import CosineRegionClassifier
from biam_tf.layers.criss_cross import CrissCrossAttention
from biam_tf.layers.embedding_mixture import AddDirection, EmbeddingMixture
from biam_tf.layers.non_local import NonLocalBlock
from biam_tf.layers.pointwise_conv import PointwiseConv2D
from biam_tf.layers.region_classifier import RegionClassifier
from biam_tf.layers.region_context import RegionContextBlock
from biam_tf.layers.scene_context import SceneContextBlock
from biam_tf.layers.top_k_pooling import TopKSpatialPooling
from biam_tf.layers.top_k_region_scores import TopKRegionScores

__all__ = [
    "AddDirection",
    "BoundClassEmbeddings",
    "ConvReluBatchNorm",
    "CosineRegionClassifier",
    "CrissCrossAttention",
    "EmbeddingMixture",
    "NonLocalBlock",
    "PointwiseConv2D",
    "RegionClassifier",
    "RegionContextBlock",
    "SceneContextBlock",
    "TopKRegionScores",
    "TopKSpatialPooling",
]
