"""WARP and logistic regression: a linear score per class."""

import keras
import tensorflow as tf
from keras import layers

from biam_tf.baselines.known_class_systems import (  # noqa: F401
    LOGISTIC,
    WARP,
    LogisticSettings,
    WarpSettings,
)
from biam_tf.baselines.known_classes import known_class_scores
from biam_tf.losses import binary_cross_entropy, weighted_ranking_loss
from biam_tf.models.system import HeadInputs, Losses
from biam_tf.tensor_types import Tensor


def build_warp(inputs: HeadInputs, settings: WarpSettings) -> keras.KerasTensor:
    """Returns the scores (batch, classes) of the learned classes.

    With the scene feature x, f_c = w_c · x + b_c. In the paper this is the last layer of a
    convolutional network that is trained as a whole; here the network is the backbone, which is
    trained if the setting `backbone.trainable` is true.
    """
    del settings
    seen = inputs.require_seen_embeddings("the system warp")
    scores = layers.Dense(len(seen), name="class_scores")(inputs.scene_feature)
    return known_class_scores(inputs, scores, seen)


def warp_loss(labels: Tensor, scores: Tensor, margin: float = 1.0) -> tf.Tensor:
    """The weighted approximate ranking loss, over all absent classes of each image.

    For an image with present classes P and absent classes N, k_p of which violate the margin m to
    p, and β_k = 1 + 1/2 + … + 1/k::

        loss = Σ_{p∈P} β_{k_p} / k_p Σ_{n∈N} max(0, m + f_n - f_p)

    The paper, like WSABIE before it, draws absent classes until one violates the margin, estimates
    the rank of p from the number of draws, and takes a step on that class with the weight β of
    the rank. This is the mean of such steps over all violating classes, with the exact rank: the
    scores of all classes are computed anyway.

    Args:
        labels: (B, C), +1 present, -1 absent, 0 unknown (takes no part).
        scores: (B, C), floating point.
        margin: m. Defaults to `1.0`.

    Returns:
        (B,) losses, float64 for float64 scores, else float32; 0 for an image without a present
        or without an absent class.
    """
    means = weighted_ranking_loss(labels, scores, margin)  # over P
    return means * tf.reduce_sum(tf.cast(labels > 0, means.dtype), axis=1)


def warp_losses(head: keras.Model, settings: WarpSettings) -> Losses:
    """Returns `warp_loss`."""
    del head
    return lambda labels, outputs: warp_loss(labels, outputs["scores"], settings.margin)


def build_logistic(inputs: HeadInputs, settings: LogisticSettings) -> keras.KerasTensor:
    """Returns the scores (batch, classes) of the learned classes.

    With the scene feature x, and a vector w_c and a number b_c per class::

        p(c | x) = sigmoid(w_c · x + b_c)

    which is binary relevance with logistic regression. The scores are the logits, which rank
    images and classes like the probabilities.
    """
    del settings
    seen = inputs.require_seen_embeddings("the system logistic")
    logits = layers.Dense(len(seen), name="class_logits")(inputs.scene_feature)
    return known_class_scores(inputs, logits, seen)


def logistic_losses(head: keras.Model, settings: LogisticSettings) -> Losses:
    """Returns the mean of the labelled classes' binary cross-entropies."""
    del head, settings
    return lambda labels, outputs: binary_cross_entropy(labels, outputs["scores"])
