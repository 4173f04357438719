"""SDL: a photo gives several vectors; a class is scored by the one that suits it best."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import layers, ops
from numpy.typing import ArrayLike

from biam_tf.baselines.lesa import ClassProducts
from biam_tf.baselines.query_systems import SdlSettings
from biam_tf.layers import BoundClassEmbeddings
from biam_tf.losses import ranknet_loss
from biam_tf.models.system import HeadInputs, Losses
from biam_tf.tensor_types import Shape, Tensor


@keras.saving.register_keras_serializable(package="biam_tf")
class EmbeddingMatrix(layers.Layer):
    """The M vectors A = reshape(W x) of a photo's scene feature x, without bias.

    It keeps the embeddings of the seen classes, which the loss needs. They are saved with the
    weights and never trained.

    Args:
        vectors: int, M.
        seen_embeddings: array-like `(seen classes, embedding_size)`. Defaults to `None`: zeros,
            for weights that are loaded afterwards.
        num_classes: int, needed where `seen_embeddings` is `None`. Defaults to `None`.
        embedding_size: int, d_a, needed where `seen_embeddings` is `None`. Defaults to `None`.

    Input shape:
        `(batch, scene_size)`.

    Output shape:
        `(batch, M, d_a)`.
    """

    def __init__(
        self,
        vectors: int,
        seen_embeddings: ArrayLike | None = None,
        num_classes: int | None = None,
        embedding_size: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.vectors = vectors
        self.seen = BoundClassEmbeddings(
            seen_embeddings, num_classes, embedding_size, dtype="float32", name="seen"
        )

    def build(self, input_shape: Shape) -> None:
        self.kernel = self.add_weight(
            shape=(input_shape[-1], self.vectors * self.seen.matrix.shape[1]),
            initializer="glorot_uniform",
            name="kernel",
        )

    def call(self, scene_feature: Tensor) -> Tensor:
        flat = ops.matmul(scene_feature, ops.cast(self.kernel, self.compute_dtype))
        return ops.reshape(flat, (-1, self.vectors, self.seen.embedding_size))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], self.vectors, self.seen.embedding_size)

    def get_config(self) -> dict:
        # The embeddings themselves are a weight.
        return {
            **super().get_config(),
            "vectors": self.vectors,
            "num_classes": self.seen.num_classes,
            "embedding_size": self.seen.embedding_size,
        }


@keras.saving.register_keras_serializable(package="biam_tf")
class HighestProduct(layers.Layer):
    """The highest of a class's products `(batch, M, classes)`: scores `(batch, classes)`."""

    def call(self, products: Tensor) -> Tensor:
        return ops.max(products, axis=1)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> Shape:
        return (input_shape[0], input_shape[2])


def build_scores(inputs: HeadInputs, settings: SdlSettings) -> keras.KerasTensor:
    """Returns the scores (batch, classes), float32: score_c = max_m A_m · a_c.

    Raises:
        ValueError: the seen embeddings are missing.
    """
    seen = inputs.require_seen_embeddings("the system sdl")
    matrix = EmbeddingMatrix(settings.vectors, seen, name="embedding_matrix")
    products = ClassProducts(name="products")
    by_vector = products([matrix(inputs.scene_feature), inputs.class_embeddings])
    return HighestProduct(dtype="float32", name="scores")(by_vector)


def training_outputs(head: keras.Model) -> Mapping[str, keras.KerasTensor]:
    """Returns the inputs of the loss: `scores` (B, C) and `vectors` (B, M, d_a)."""
    return {
        "scores": head.get_layer("scores").output,
        "vectors": head.get_layer("embedding_matrix").output,
    }


def spread_of_labels(labels: Tensor, class_embeddings: Tensor) -> tf.Tensor:
    """Returns the total variance of the embeddings of each photo's present classes.

    The sum over the dimensions of the unbiased variances; 0 for fewer than two present classes.

    Args:
        labels: (B, C), +1 present, -1 absent, 0 unknown.
        class_embeddings: (C, d_a).

    Returns:
        (B,) float32.
    """
    present = tf.cast(labels > 0, tf.float32)
    classes = tf.cast(class_embeddings, tf.float32)
    classes -= tf.reduce_mean(classes, axis=0)  # squares of small numbers lose fewer digits
    count = tf.reduce_sum(present, axis=1)
    sums = tf.matmul(present, classes)
    squares = tf.linalg.matvec(present, tf.reduce_sum(classes**2, axis=1))
    deviations = squares - tf.math.divide_no_nan(tf.reduce_sum(sums**2, axis=1), count)
    return tf.where(count > 1, tf.maximum(deviations, 0.0) / tf.maximum(count - 1, 1.0), 0.0)


def spread_of_vectors(vectors: Tensor) -> tf.Tensor:
    """Returns the total variance of the vectors (B, M, d_a) of each photo, (B,) float32.

    Unbiased, as `spread_of_labels`; 0 for M = 1.
    """
    vectors = tf.cast(vectors, tf.float32)
    count = vectors.shape[1]
    deviations = vectors - tf.reduce_mean(vectors, axis=1, keepdims=True)
    return tf.reduce_sum(deviations**2, axis=(1, 2)) / max(count - 1, 1)


def make_losses(head: keras.Model, settings: SdlSettings) -> Losses:
    """Returns SDL's loss, in the form of the released code.

    With the present classes P and absent classes N of a photo, their scores s, the spread v of the
    embeddings of P and the spread u of the photo's vectors::

        loss = 2 (1 - λ) (1 + v) · 1/|P| Σ_{p∈P} Σ_{n∈N} log(1 + exp(s_n - s_p)) + 2 λ u

    Photos with diverse labels weigh more; λ draws the vectors of a photo together. A photo without
    a present class has the last term alone.
    """
    seen = head.get_layer("embedding_matrix").seen.matrix

    def losses(labels: tf.Tensor, outputs: Mapping[str, tf.Tensor]) -> tf.Tensor:
        absent = tf.reduce_sum(tf.cast(labels < 0, tf.float32), axis=1)
        ranking = absent * ranknet_loss(labels, outputs["scores"])
        weight = 1 + spread_of_labels(labels, tf.convert_to_tensor(seen))
        share = settings.regularization
        return 2 * ((1 - share) * weight * ranking + share * spread_of_vectors(outputs["vectors"]))

    return losses
