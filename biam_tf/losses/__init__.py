"""Training losses, (B, C) labels and scores to one number an image; and as a Keras loss."""

from biam_tf.losses.binary_cross_entropy import binary_cross_entropy
from biam_tf.losses.ranking import REDUCTIONS, RankingLoss, pairwise_ranking_loss
from biam_tf.losses.ranknet import ranknet_loss
from biam_tf.losses.softmax import softmax_over_classes, softmax_over_images
from biam_tf.losses.weighted_ranking import weighted_ranking_loss

__all__ = [
    "REDUCTIONS",
    "RankingLoss",
    "binary_cross_entropy",
    "pairwise_ranking_loss",
    "ranknet_loss",
    "softmax_over_classes",
    "softmax_over_images",
    "weighted_ranking_loss",
]
