"""Dual prompts: a positive and a negative embedding per class, compared region by region."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers, ops

from biam_tf.baselines.image_text_systems import DualPromptSettings
from biam_tf.baselines.region_attention import attend
from biam_tf.layers.region_classifier import match_classes
from biam_tf.models.system import (
    HeadInputs,
)
from biam_tf.tensor_types import Shape, Tensor


@keras.saving.register_keras_serializable(package="biam_tf")
class DualEmbeddings(layers.Layer):
    """The positive and the negative embedding of each class, unit vectors.

    For a class embedding a_c and learned contexts (W⁺, b⁺) and (W⁻, b⁻), which all classes share::

        p_c = unit(W⁺ a_c + b⁺),   n_c = unit(W⁻ a_c + b⁻)

    W starts as the identity and b small, so that the maps, like the classes that they were not
    trained on, start from the embedding itself.

    Input shape:
        Class embeddings `(classes, embedding_size)`, without a batch axis.

    Output shape:
        A tuple of p and n, both `(classes, embedding_size)`.
    """

    def build(self, input_shape: Shape) -> None:
        self.contexts = {}
        for name in ("positive", "negative"):
            context = layers.Dense(
                input_shape[-1],
                kernel_initializer="identity",
                bias_initializer=keras.initializers.RandomNormal(stddev=0.02),
                dtype=self.dtype_policy,
                name=name,
            )
            context.build(input_shape)
            self.contexts[name] = context

    def call(self, class_embeddings: Tensor) -> tuple[Tensor, Tensor]:
        p, n = (ops.normalize(self.contexts[name](class_embeddings)) for name in self.contexts)
        return p, n

    def compute_output_shape(self, input_shape: Shape) -> tuple[Shape, Shape]:
        return input_shape, input_shape


@keras.saving.register_keras_serializable(package="biam_tf")
class DualResponses(layers.Layer):
    """Compares regions with positive and negative embeddings.

    Args:
        region_scale: float, of the cosines.
        score_scale: float, of the responses.

    Input shape:
        A list of unit vectors of regions `(batch, height, width, d_a)`, positive and negative
        embeddings `(classes, d_a)`.

    Output shape:
        A tuple of the scaled cosines S⁺ and of `score_scale (S⁺ - S⁻)`, both `(batch, height,
        width, classes)`.
    """

    def __init__(self, region_scale: float, score_scale: float, **kwargs: Any):
        super().__init__(**kwargs)
        self.region_scale = region_scale
        self.score_scale = score_scale

    def call(self, inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        regions, p, n = inputs
        positive = self.region_scale * match_classes(regions, p)
        difference = self.region_scale * match_classes(regions, p - n)
        return positive, self.score_scale * difference

    def compute_output_shape(self, input_shape: Sequence[Shape]) -> tuple[Shape, Shape]:
        shape = (*input_shape[0][:3], input_shape[1][0])
        return shape, shape

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "region_scale": self.region_scale,
            "score_scale": self.score_scale,
        }


def build_scores(inputs: HeadInputs, settings: DualPromptSettings) -> keras.KerasTensor:
    """Returns the scores (batch, classes), float32.

    With unit vectors f_r of the regions, the embeddings p_c and n_c of a class (`DualEmbeddings`)
    and the scales 20 and 5 of DualCoOp's code::

        S⁺_rc = 20 f_r · p_c,   S⁻_rc = 20 f_r · n_c,   w_rc = softmax_r(S⁺_rc)
        score_c = 5 Σ_r w_rc (S⁺_rc - S⁻_rc)

    DualCoOp's probability of a class is a softmax over its positive and negative sum, which is
    the sigmoid of this score. Cosines and sums are computed in float32 under any dtype policy.
    """
    regions = inputs.region_features
    if settings.region_dropout:
        dropout = layers.SpatialDropout2D(settings.region_dropout, name="region_dropout")
        regions = dropout(regions)
    if settings.channels is not None:
        hidden = layers.Dense(settings.channels, activation="relu", name="region_hidden")
        regions = hidden(regions)
    regions = layers.Dense(inputs.class_embeddings.shape[-1], name="region_vectors")(regions)
    regions = layers.UnitNormalization(dtype="float32", name="region_directions")(regions)
    p, n = DualEmbeddings(dtype="float32", name="dual_embeddings")(inputs.class_embeddings)
    compare = DualResponses(
        settings.region_scale, settings.score_scale, dtype="float32", name="dual_responses"
    )
    positive, responses = compare([regions, p, n])
    attention = layers.Softmax(axis=(1, 2), dtype="float32", name="attention")(positive)
    return attend(attention, responses)
