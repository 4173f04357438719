"""Fast0Tag: an image's direction in the space of class embeddings, along which its tags come first.

Zhang et al., "Fast zero-shot image tagging", CVPR 2016: a network that maps images to directions,
and a linear map to the directions that a ranking SVM finds for each training image.
"""

from collections.abc import Iterable, Sequence

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from biam_tf.baselines.class_embedding_systems import (  # noqa: F401
    FAST0TAG,
    FAST0TAG_LINEAR,
    Fast0TagSettings,
    LinearFast0TagSettings,
)
from biam_tf.class_sides import LinearClasses
from biam_tf.losses import ranknet_loss
from biam_tf.losses.pairwise_ranking import hinges_of_pairs
from biam_tf.models.system import HeadInputs, Losses
from biam_tf.tensor_types import Shape, Tensor


@keras.saving.register_keras_serializable(package="biam_tf")
class AlongDirection(layers.Layer):
    """Scores <w(x), a_c> of directions and class embeddings.

    Input shape:
        A list of directions `(batch, d_a)` and class embeddings `(classes, d_a)`.

    Output shape:
        Scores `(batch, classes)`.
    """

    def call(self, inputs: Sequence[Tensor]) -> Tensor:
        directions, class_embeddings = inputs
        return ops.matmul(directions, ops.transpose(class_embeddings))

    def region_vectors(self, directions: Tensor) -> Tensor:
        """Returns the directions (batch, d_a)."""
        return directions

    def class_side(self) -> LinearClasses:
        """Returns that a class's vector is its embedding."""
        return LinearClasses(self.input[-1].shape[-1])

    def compute_output_shape(self, input_shape: Sequence[Shape]) -> Shape:
        return (input_shape[0][0], input_shape[1][0])


def build(inputs: HeadInputs, settings: Fast0TagSettings) -> keras.KerasTensor:
    """Returns <w(x), a_c>, with a network w of the scene feature."""
    return _scores(inputs, settings.channels, settings.dropout)


def make_losses(head: keras.Model, settings: Fast0TagSettings) -> Losses:
    """Returns the pairwise logistic loss."""
    del head, settings
    return lambda labels, outputs: ranknet_loss(labels, outputs["scores"])


def build_linear(inputs: HeadInputs, settings: LinearFast0TagSettings) -> keras.KerasTensor:
    """Returns <W x + b, a_c>, with the scene feature x scaled to unit length."""
    del settings
    return _scores(inputs, (), 0.0, unit_length=True)


def fit_linear(
    head: keras.Model,
    settings: LinearFast0TagSettings,
    batches: Iterable,
    seen_embeddings: np.ndarray,
) -> None:
    """Finds each image's principal direction, then a ridge regression to these directions."""
    gram: np.ndarray = np.zeros(())  # broadcast in the first sum
    products: np.ndarray = np.zeros(())
    classes = tf.constant(seen_embeddings, tf.float32)
    for inputs, labels in batches:
        directions = principal_directions(
            labels, classes, settings.svm_regularization, settings.svm_steps
        )
        x = np.asarray(inputs["scene_feature"], np.float64)
        x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
        x = np.concatenate([x, np.ones((len(x), 1))], axis=1)  # for the bias
        gram = gram + x.T @ x
        products = products + x.T @ directions.numpy().astype(np.float64)
    penalty = settings.ridge * np.eye(len(gram))
    penalty[-1, -1] = 0.0  # no penalty on the bias
    solution = np.linalg.solve(gram + penalty, products)
    dense = head.get_layer("direction")
    dense.kernel.assign(solution[:-1])
    dense.bias.assign(solution[-1])


@tf.function(reduce_retracing=True)
def principal_directions(
    labels: tf.Tensor, class_embeddings: tf.Tensor, regularization: float, steps: int
) -> tf.Tensor:
    """Solves the ranking SVM of every image of a batch.

    It minimizes λ/2 |w|² + 1/(|P||N|) Σ_{p,n} max(0, 1 - <w, a_p - a_n>), the paper's ranking SVM
    with averaged pairs, by subgradient descent with the step 1/(λ t) of Pegasos (Shalev-Shwartz et
    al., 2007), and returns the mean of the second half of the iterates.

    Args:
        labels: (B, S), +1, -1, 0.
        class_embeddings: (S, d_a).
        regularization: λ.
        steps: steps of the descent.

    Returns:
        (B, d_a) directions; zeros for an image without a pair.
    """
    positives = tf.reduce_sum(tf.cast(labels > 0, tf.float32), axis=1)
    pairs = positives * tf.reduce_sum(tf.cast(labels < 0, tf.float32), axis=1)
    w = tf.zeros((tf.shape(labels)[0], tf.shape(class_embeddings)[1]))
    mean = w
    for t in tf.range(1, steps + 1):
        scores = tf.matmul(w, class_embeddings, transpose_b=True)
        with tf.GradientTape() as tape:
            tape.watch(scores)
            hinges, _ = hinges_of_pairs(labels, scores, 1.0)
        slopes = tf.math.divide_no_nan(tape.gradient(hinges, scores), pairs[:, None])
        gradient = regularization * w + tf.matmul(slopes, class_embeddings)
        w -= gradient / (regularization * tf.cast(t, tf.float32))
        if t > steps // 2:
            mean += w / tf.cast(steps - steps // 2, tf.float32)
    return mean


def _scores(
    inputs: HeadInputs, channels: Sequence[int], dropout: float, unit_length: bool = False
) -> keras.KerasTensor:
    x = inputs.scene_feature
    if unit_length:
        x = layers.UnitNormalization(name="unit_scene")(x)
    for number, size in enumerate(channels, start=1):
        x = layers.Dense(size, activation="relu", name=f"hidden_{number}")(x)
        if dropout:
            x = layers.Dropout(dropout, name=f"dropout_{number}")(x)
    directions = layers.Dense(inputs.class_embeddings.shape[-1], name="direction")(x)
    along = AlongDirection(dtype="float32", name="scores")
    return along([directions, inputs.class_embeddings])
