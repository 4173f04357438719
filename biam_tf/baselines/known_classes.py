"""Learned classes behind the interface of class embeddings: which class an embedding is."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from numpy.typing import ArrayLike

from biam_tf.class_sides import TOLERANCE, LearnedClasses
from biam_tf.layers import BoundClassEmbeddings
from biam_tf.models.system import HeadInputs
from biam_tf.tensor_types import Shape, Tensor

_ROWS_IN_AN_ERROR = 20
_BLOCK = 1024  # classes compared with all others at a time


class DuplicateEmbeddings(ValueError):
    """Two of the seen classes have the same embedding.

    Attributes:
        rows: the two rows in the matrix of seen embeddings.
    """

    def __init__(self, rows: tuple[int, int]):
        super().__init__(
            f"seen_embeddings: rows {rows[0]} and {rows[1]} are the same, but a learned class is "
            "identified by its embedding; every class needs its own"
        )
        self.rows = rows


@keras.saving.register_keras_serializable(package="biam_tf")
class KnownClasses(layers.Layer):
    """Selects the scores of the learned classes whose embeddings are given.

    A system with weights for every class scores those classes only. This layer gives it the
    interface of the systems that score any class: each learned class is identified by its
    embedding, so that any of them may be given, in any order. Embeddings are compared in float32
    under any dtype policy.

    Args:
        seen_embeddings: array-like `(learned classes, embedding_size)`. Defaults to `None`: zeros,
            for weights that are loaded afterwards.
        num_classes: int, needed where `seen_embeddings` is `None`. Defaults to `None`.
        embedding_size: int, needed where `seen_embeddings` is `None`. Defaults to `None`.
        dtype: dtype policy of the scores. Defaults to `"float32"` under any global policy.

    Input shape:
        A list of scores `(batch, learned classes)` and class embeddings
        `(classes, embedding_size)`, without a batch axis.

    Output shape:
        Scores `(batch, classes)`.

    Raises:
        DuplicateEmbeddings: two classes have the same embedding.
        tf.errors.InvalidArgumentError: on a call, for rows that are none of the learned classes;
            the message begins with `class_embeddings: ` and gives the rows. Where assertions are
            not executed (in ONNX), the scores of such a row are NaN.
    """

    def __init__(
        self,
        seen_embeddings: ArrayLike | None = None,
        num_classes: int | None = None,
        embedding_size: int | None = None,
        dtype: str | keras.dtype_policies.DTypePolicy = "float32",
        **kwargs: Any,
    ):
        super().__init__(dtype=dtype, autocast=False, **kwargs)
        self.supports_jit = False  # XLA has no strings, which the error is made of
        if seen_embeddings is not None:
            seen_embeddings = np.asarray(seen_embeddings, np.float32)
            duplicates = _first_duplicates(seen_embeddings)
            if duplicates is not None:
                raise DuplicateEmbeddings(duplicates)
        self.learned = BoundClassEmbeddings(
            seen_embeddings, num_classes, embedding_size, dtype=dtype, name="learned"
        )

    def build(self, input_shape: Sequence[Shape]) -> None:
        classes, size = self.learned.num_classes, self.learned.embedding_size
        found = [tuple(shape[1:]) for shape in input_shape]
        if found != [(classes,), (size,)]:
            raise ValueError(
                f"the inputs must be [scores (batch, {classes}), class_embeddings (classes, "
                f"{size})]; got shapes {input_shape}"
            )

    def call(self, inputs: Sequence[Tensor]) -> Tensor:
        scores, class_embeddings = inputs
        scores = tf.cast(scores, self.compute_dtype)
        columns, known = self.find(class_embeddings)
        with tf.control_dependencies([self._require(known)]):
            picked = tf.gather(scores, columns, axis=1)
        return tf.where(known, picked, tf.constant(np.nan, picked.dtype))

    def find(self, class_embeddings: Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns each row's learned class, an index (classes,) int32, and whether it is one."""
        class_embeddings = tf.cast(class_embeddings, tf.float32)
        learned = tf.convert_to_tensor(self.learned.matrix)
        squares = tf.reduce_sum(learned**2, axis=1)

        def close(rows):
            distances = tf.reduce_sum((class_embeddings - tf.gather(learned, rows)) ** 2, axis=1)
            return distances <= TOLERANCE**2 * tf.gather(squares, rows)

        def nearest():
            products = tf.matmul(class_embeddings, learned, transpose_b=True)
            return tf.argmin(squares - 2 * products, axis=1, output_type=tf.int32)

        # All classes in their own order, as in training, need no search for the nearest.
        in_order = tf.range(tf.shape(class_embeddings)[0]) % self.learned.num_classes
        rows = tf.cond(tf.reduce_all(close(in_order)), lambda: in_order, nearest)
        return rows, close(rows)

    def region_vectors(self, scores: Tensor) -> Tensor:
        """Returns the scores of the learned classes (batch, learned classes)."""
        return scores

    def class_side(self) -> LearnedClasses:
        """Returns that a class's vector selects the learned class that it is."""
        return LearnedClasses(np.asarray(self.learned.matrix, np.float32))

    def compute_output_shape(self, input_shape: Sequence[Shape]) -> Shape:
        return (input_shape[0][0], input_shape[1][0])

    def get_config(self) -> dict:
        # The embeddings themselves are a weight.
        return {
            **super().get_config(),
            "num_classes": self.learned.num_classes,
            "embedding_size": self.learned.embedding_size,
        }

    def _require(self, known: tf.Tensor) -> tf.Operation:
        unknown = tf.reshape(tf.where(~known), [-1])
        rows = tf.strings.as_string(unknown[:_ROWS_IN_AN_ERROR])
        message = tf.strings.join(
            [
                f"class_embeddings: this model scores the {self.learned.num_classes} classes that "
                "it was trained on and no others; none of them is in row ",
                tf.strings.reduce_join(rows, separator=", "),
                tf.where(tf.size(unknown) > _ROWS_IN_AN_ERROR, ", …", ""),
            ]
        )
        return tf.debugging.Assert(tf.reduce_all(known), [message])


def known_class_scores(
    inputs: HeadInputs, scores: keras.KerasTensor, seen_embeddings: np.ndarray
) -> keras.KerasTensor:
    """Returns a head's output `scores` (batch, classes) from the scores of its learned classes.

    Args:
        inputs: inputs of the head.
        scores: (batch, seen classes).
        seen_embeddings: (seen classes, embedding_size), in the order of those scores.

    Raises:
        DuplicateEmbeddings: two classes have the same embedding.
    """
    return KnownClasses(seen_embeddings, name="scores")([scores, inputs.class_embeddings])


def _first_duplicates(embeddings: np.ndarray) -> tuple[int, int] | None:
    """The first two rows within whose tolerance a single row could lie."""
    squares = (embeddings**2).sum(axis=1)
    for start in range(0, len(embeddings), _BLOCK):
        block = slice(start, start + _BLOCK)
        distances = squares[block, None] + squares - 2 * embeddings[block] @ embeddings.T
        duplicates = np.triu(distances <= (2 * TOLERANCE) ** 2 * squares, k=start + 1)
        if duplicates.any():
            row, other = np.argwhere(duplicates)[0]
            return start + int(row), int(other)
    return None
