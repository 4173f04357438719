"""Training losses: labels and scores (B, C) to one number per image, and as a Keras loss."""

from biam_tf.losses.asymmetric import asymmetric_loss
from biam_tf.losses.cross_entropy import (
    binary_cross_entropy,
    softmax_over_classes,
    softmax_over_images,
)
from biam_tf.losses.pairwise_ranking import (
    pairwise_ranking_loss,
    ranknet_loss,
    weighted_ranking_loss,
)
from biam_tf.losses.ranking_loss import REDUCTIONS, RankingLoss

__all__ = [
    "REDUCTIONS",
    "RankingLoss",
    "asymmetric_loss",
    "binary_cross_entropy",
    "pairwise_ranking_loss",
    "ranknet_loss",
    "softmax_over_classes",
    "softmax_over_images",
    "weighted_ranking_loss",
]
