"""WSABIE: images and classes in a joint low-dimensional space, trained to rank."""

import math

import keras
from keras import constraints, initializers, layers

from biam_tf.baselines.known_class_systems import (  # noqa: F401
    WSABIE,
    WsabieSettings,
)
from biam_tf.baselines.known_classes import known_class_scores
from biam_tf.baselines.linear import warp_loss
from biam_tf.models.system import HeadInputs, Losses


def build(inputs: HeadInputs, settings: WsabieSettings) -> keras.KerasTensor:
    """Returns the scores (batch, classes) of the learned classes.

    With the scene feature x of d_g channels, V (D, d_g) and W (D, classes), section 2 of the
    paper::

        f_c = W_cᵀ V x,   |V_i| ≤ C for every column i,   |W_c| ≤ C for every class c

    Keras constraints project the columns after each update, as the paper's projected gradient
    does. Both matrices are initialized with mean 0 and standard deviation 1/√D, so that their
    columns are about as long as the default C, 1.
    """
    seen = inputs.require_seen_embeddings("the system wsabie")
    start = initializers.RandomNormal(stddev=1 / math.sqrt(settings.dimension))
    image = layers.Dense(
        settings.dimension,
        use_bias=False,
        kernel_initializer=start,
        kernel_constraint=constraints.MaxNorm(settings.max_norm, axis=1),  # one row per channel
        name="image_embedding",
    )(inputs.scene_feature)
    scores = layers.Dense(
        len(seen),
        use_bias=False,
        kernel_initializer=start.clone(),
        kernel_constraint=constraints.MaxNorm(settings.max_norm, axis=0),  # one column per class
        name="class_scores",
    )(image)
    return known_class_scores(inputs, scores, seen)


def make_losses(head: keras.Model, settings: WsabieSettings) -> Losses:
    """Returns `warp_loss`, which uses all absent classes, where the paper samples them."""
    del head
    return lambda labels, outputs: warp_loss(labels, outputs["scores"], settings.margin)
