"""LESA: a few attentions shared by all classes; each class uses the one it scores highest in."""

from collections.abc import Mapping, Sequence

import keras
import tensorflow as tf
from keras import layers, ops

from biam_tf.baselines.class_embedding_systems import (  # noqa: F401
    LESA,
    RELEASED_BATCH,
    LesaSettings,
)
from biam_tf.baselines.region_attention import embed_regions
from biam_tf.layers.region_classifier import match_classes
from biam_tf.losses import pairwise_ranking_loss
from biam_tf.models.system import HeadInputs, Losses
from biam_tf.tensor_types import Shape, Tensor
from biam_tf.ways_to_compute import index_of_largest


@keras.saving.register_keras_serializable(package="biam_tf")
class AttendedFeatures(layers.Layer):
    """f_t = Σ_r alpha_tr f_r, the region features pooled by each attention.

    Input shape:
        A list of attention `(batch, height, width, attentions)` and region features
        `(batch, height, width, channels)`.

    Output shape:
        `(batch, attentions, channels)`.
    """

    def call(self, inputs: Sequence[Tensor]) -> Tensor:
        attention, f = inputs
        return ops.einsum("bhwt,bhwd->btd", attention, f)

    def compute_output_shape(self, input_shape: Sequence[Shape]) -> Shape:
        attention_shape, features_shape = input_shape
        return (attention_shape[0], attention_shape[-1], features_shape[-1])


@keras.saving.register_keras_serializable(package="biam_tf")
class ClassProducts(layers.Layer):
    """Products of features and class weights.

    Input shape:
        A list of features `(..., channels)` and class weights `(classes, channels)`.

    Output shape:
        `(..., classes)`.
    """

    def call(self, inputs: Sequence[Tensor]) -> Tensor:
        features, class_weights = inputs
        return match_classes(features, class_weights)

    def compute_output_shape(self, input_shape: Sequence[Shape]) -> Shape:
        features_shape, weights_shape = input_shape
        return (*features_shape[:-1], weights_shape[0])


@keras.saving.register_keras_serializable(package="biam_tf")
class ChosenResponses(layers.Layer):
    """Response maps alpha_{t(c)r} f_r·w_c, where class c scores highest in attention t(c).

    Their sum over the regions is the score of the class.

    Input shape:
        A list of attention scores `(batch, attentions, classes)`, attention `(batch, height,
        width, attentions)` and responses f_r·w_c `(batch, height, width, classes)`.

    Output shape:
        `(batch, height, width, classes)`.
    """

    def call(self, inputs: Sequence[Tensor]) -> Tensor:
        attention_scores, attention, responses = inputs
        winners = index_of_largest(attention_scores, axis=1)  # (B, C)
        num_attentions = attention.shape[-1]
        chosen = ops.one_hot(winners, num_attentions, axis=1, dtype=self.compute_dtype)
        return ops.einsum("bhwt,btc->bhwc", attention, chosen) * responses

    def compute_output_shape(self, input_shape: Sequence[Shape]) -> Shape:
        return input_shape[2]


@keras.saving.register_keras_serializable(package="biam_tf")
class HighestScores(layers.Layer):
    """The highest score of each class over the attentions.

    The second input, the response maps, does not change the scores: it only connects the maps,
    which are shown as evidence, to the model. A traced function does not compute maps that it does
    not return.

    Input shape:
        A list of scores `(batch, attentions, classes)` and response maps
        `(batch, height, width, classes)`.

    Output shape:
        Scores `(batch, classes)`.
    """

    def call(self, inputs: Sequence[Tensor]) -> Tensor:
        attention_scores, _ = inputs
        return ops.max(attention_scores, axis=1)

    def compute_output_shape(self, input_shape: Sequence[Shape]) -> Shape:
        scores_shape, _ = input_shape
        return (scores_shape[0], scores_shape[2])


def build_scores(inputs: HeadInputs, settings: LesaSettings) -> keras.KerasTensor:
    """Returns the scores (batch, classes), float32: score_c = max_t f_tᵀ W a_c.

    With attention alpha_t = softmax_r(w_tᵀ tanh(W' f_r + b') + b_t) and f_t = Σ_r alpha_tr f_r.
    """
    f = embed_regions(inputs.region_features, settings.channels, settings.batch_norm_momentum)
    hidden = layers.Dense(
        settings.channels, "tanh", kernel_initializer="he_normal", name="attention_hidden"
    )
    logits = layers.Dense(
        settings.num_attentions, kernel_initializer="he_normal", name="attention_logits"
    )(hidden(f))
    attention = layers.Softmax(axis=(1, 2), name="attention")(logits)
    attended = AttendedFeatures(name="attended_features")([attention, f])
    class_weights = layers.Dense(
        settings.channels, use_bias=False, kernel_initializer="he_normal", name="class_weights"
    )(inputs.class_embeddings)
    scores = ClassProducts(name="attention_scores")([attended, class_weights])
    responses = ClassProducts(name="region_responses")([f, class_weights])
    response_maps = ChosenResponses(name="response_maps")([scores, attention, responses])
    return HighestScores(dtype="float32", name="scores")([scores, response_maps])


def training_outputs(head: keras.Model) -> Mapping[str, keras.KerasTensor]:
    """Returns the inputs of the loss.

    Returns:
        `scores` (B, C), `attention_scores` (B, T, C), `attention_logits` (B, h, w, T), and
        `mean_scores` (B, C), the scores of the mean of all regions.
    """
    f = head.get_layer("region_embedding").output
    mean = layers.GlobalAveragePooling2D(name="mean_feature")(f)
    class_weights = head.get_layer("class_weights").output
    names = ("scores", "attention_scores", "attention_logits")
    return {
        **{name: head.get_layer(name).output for name in names},
        "mean_scores": ClassProducts(name="mean_scores")([mean, class_weights]),
    }


def distribution_term(labels: Tensor, attention_scores: Tensor) -> tf.Tensor:
    """Penalizes a photo's present classes P for using the same attentions.

    For scores s_tc of class c in attention t::

        loss = 1/T Σ_t ( Σ_{c∈P} softmax_t(s_tc) )²

    Args:
        labels: (B, C), +1 present, -1 absent, 0 unknown.
        attention_scores: (B, T, C).

    Returns:
        (B,) float32.
    """
    present = tf.cast(labels > 0, tf.float32)
    shares = tf.nn.softmax(tf.cast(attention_scores, tf.float32), axis=1)
    used = tf.einsum("btc,bc->bt", shares, present)
    return tf.reduce_mean(tf.square(used), axis=1)


def global_term(labels: Tensor, scores: Tensor, mean_scores: Tensor) -> tf.Tensor:
    """Penalizes attention that separates classes worse than the mean of all regions.

    For labels y_c, scores s_c, and scores m_c of the mean feature::

        loss = Σ_c max(0, -y_c (s_c - m_c))

    Args:
        labels: (B, C), +1 present, -1 absent, 0 unknown (adds nothing).
        scores: (B, C).
        mean_scores: (B, C).

    Returns:
        (B,) float32.
    """
    gains = tf.cast(scores, tf.float32) - tf.cast(mean_scores, tf.float32)
    return tf.reduce_sum(tf.nn.relu(-tf.cast(labels, tf.float32) * gains), axis=1)


def span_term(attention_logits: Tensor) -> tf.Tensor:
    """Penalizes a photo's attentions for selecting the same regions.

    The Frobenius norm of the cosines of different attentions, with the logits l_t of attention t
    at all regions::

        loss = sqrt( Σ_{t≠u} cos(l_t, l_u)² )

    Args:
        attention_logits: (B, h, w, T).

    Returns:
        (B,) float32; 0 for a single attention.
    """
    directions = tf.math.l2_normalize(tf.cast(attention_logits, tf.float32), axis=(1, 2))
    cosines = tf.einsum("bhwt,bhwu->btu", directions, directions)
    others = tf.linalg.set_diag(cosines, tf.zeros_like(cosines[..., 0]))
    squares = tf.reduce_sum(tf.square(others), axis=(1, 2))
    # The root has no finite slope at 0.
    is_zero = squares == 0
    return tf.where(is_zero, 0.0, tf.sqrt(tf.where(is_zero, 1.0, squares)))


def make_losses(head: keras.Model, settings: LesaSettings) -> Losses:
    """Returns the ranking loss plus the weighted distribution, global and span terms."""
    del head

    def losses(labels, outputs):
        scores = outputs["scores"]
        return (
            pairwise_ranking_loss(labels, scores, margin=1.0, mean_of_violations=True)
            + settings.distribution_weight * distribution_term(labels, outputs["attention_scores"])
            + settings.global_weight * global_term(labels, scores, outputs["mean_scores"])
            + settings.span_weight * span_term(outputs["attention_logits"])
        )

    return losses
