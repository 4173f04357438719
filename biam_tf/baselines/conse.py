"""CONSE: an image's embedding is a mixture of those of its most probable seen classes."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from biam_tf.baselines.class_embedding_systems import (  # noqa: F401
    CONSE,
    ConseSettings,
)
from biam_tf.class_sides import DirectionClasses
from biam_tf.layers import BoundClassEmbeddings
from biam_tf.losses import softmax_over_classes
from biam_tf.models.system import HeadInputs, Losses
from biam_tf.tensor_types import Shape, Tensor


@keras.saving.register_keras_serializable(package="biam_tf")
class ConvexCombination(layers.Layer):
    """Cosines of class embeddings with the mixture of the T most probable seen embeddings.

    With the T classes of the highest probability p_t and their embeddings s_t::

        f = 1/Z Σ_t p_t s_t,   Z = Σ_t p_t,   score_c = cos(f, a_c)

    Args:
        mixed_classes: int, T; all seen classes if there are fewer. Defaults to `10`.

    Input shape:
        A list of logits `(batch, seen)`, seen embeddings `(seen, d_a)` and class embeddings
        `(classes, d_a)`.

    Output shape:
        Scores `(batch, classes)`.
    """

    def __init__(self, mixed_classes: int = 10, **kwargs: Any):
        super().__init__(**kwargs)
        self.mixed_classes = mixed_classes

    def call(self, inputs: Sequence[Tensor]) -> Tensor:
        logits, seen_embeddings, class_embeddings = inputs
        directions = ops.normalize(class_embeddings, axis=-1)
        return ops.matmul(self.region_vectors(logits, seen_embeddings), ops.transpose(directions))

    def region_vectors(self, logits: Tensor, seen_embeddings: Tensor) -> Tensor:
        """Returns the directions f / |f| (batch, d_a)."""
        k = min(self.mixed_classes, seen_embeddings.shape[0])
        # A softmax over the T highest logits gives their probabilities, divided by Z.
        highest, rows = ops.top_k(logits, k)
        mixed = ops.einsum("bt,btd->bd", ops.softmax(highest), ops.take(seen_embeddings, rows, 0))
        return ops.normalize(mixed, axis=-1)

    def class_side(self) -> DirectionClasses:
        """Returns that a class's vector is the direction of its embedding."""
        size = self.input[-1].shape[-1]
        return DirectionClasses(1.0, np.zeros(size, np.float32), np.zeros((0, size), np.float32))

    def compute_output_shape(self, input_shape: Sequence[Shape]) -> Shape:
        return (input_shape[0][0], input_shape[2][0])

    def get_config(self) -> dict:
        return {**super().get_config(), "mixed_classes": self.mixed_classes}


def build(inputs: HeadInputs, settings: ConseSettings) -> keras.KerasTensor:
    """Returns the cosines of the mixture with all classes."""
    seen = inputs.require_seen_embeddings("conse")
    logits = layers.Dense(len(seen), name="seen_logits")(inputs.scene_feature)
    bound = BoundClassEmbeddings(seen, dtype="float32", name="seen_embeddings")
    seen_embeddings = bound(inputs.scene_feature)
    combination = ConvexCombination(settings.mixed_classes, dtype="float32", name="scores")
    return combination([logits, seen_embeddings, inputs.class_embeddings])


def training_outputs(head: keras.Model) -> dict[str, keras.KerasTensor]:
    """Returns the logits of the classifier of seen classes, the only part that is trained."""
    return {"logits": head.get_layer("seen_logits").output}


def make_losses(head: keras.Model, settings: ConseSettings) -> Losses:
    """Returns the classifier's loss, the cross-entropy of a softmax over the seen classes."""
    del head, settings
    return lambda labels, outputs: softmax_over_classes(labels, outputs["logits"])
