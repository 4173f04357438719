"""Logistic regression: every class a binary question of its own."""

import dataclasses

import keras
from keras import layers

from biam_tf.baselines.known_classes import known_class_scores
from biam_tf.losses import binary_cross_entropy
from biam_tf.models.system import HeadInputs, System


@dataclasses.dataclass(frozen=True)
class LogisticSettings:
    """It has no settings of its own; what else there is to choose is the training's."""


def build(inputs: HeadInputs, settings: LogisticSettings) -> keras.KerasTensor:
    """Returns the scores (batch, classes) of the learned classes.

    With the scene feature x, a vector w_c and a number b_c for every class::

        p(c | x) = sigmoid(w_c · x + b_c)

    which is binary relevance with logistic regression as the binary classifier. The scores are
    the logits: their order within an image and within a class is that of the probabilities.
    """
    del settings
    seen = inputs.require_seen_embeddings("the system logistic")
    logits = layers.Dense(len(seen), name="class_logits")(inputs.scene_feature)
    return known_class_scores(inputs, logits, seen)


def make_losses(head: keras.Model, settings: LogisticSettings):
    """Returns the mean of the labelled classes' binary cross-entropies."""
    del head, settings
    return lambda labels, outputs: binary_cross_entropy(labels, outputs["scores"])


LOGISTIC = System(
    title="Logistic",
    source=(
        "Tsoumakas and Katakis, Multi-label classification: an overview, International Journal "
        "of Data Warehousing and Mining 3(3), 2007: binary relevance, here with logistic "
        "regression for every class"
    ),
    presets={"paper": LogisticSettings()},
    build=build,
    make_losses=make_losses,
    open_vocabulary=False,
)
