"""Logistic regression: an independent binary classifier per class."""

import dataclasses

import keras
from keras import layers

from biam_tf.baselines.known_classes import known_class_scores
from biam_tf.losses import binary_cross_entropy
from biam_tf.models.system import HeadInputs, Losses, System


@dataclasses.dataclass(frozen=True)
class LogisticSettings:
    """Logistic regression has no settings."""


def build(inputs: HeadInputs, settings: LogisticSettings) -> keras.KerasTensor:
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


def make_losses(head: keras.Model, settings: LogisticSettings) -> Losses:
    """Returns the mean of the labelled classes' binary cross-entropies."""
    del head, settings
    return lambda labels, outputs: binary_cross_entropy(labels, outputs["scores"])


LOGISTIC = System(
    title="Logistic",
    source=(
        "Tsoumakas and Katakis, Multi-label classification: an overview, International Journal "
        "of Data Warehousing and Mining 3(3), 2007: binary relevance, here with logistic "
        "regression"
    ),
    presets={"paper": LogisticSettings()},
    build=build,
    make_losses=make_losses,
    open_vocabulary=False,
)
