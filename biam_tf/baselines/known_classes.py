"""Learned classes behind the interface of class embeddings: which class a row means."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from biam_tf.layers import BoundClassEmbeddings
from biam_tf.models.system import HeadInputs

# A row is a class where it lies within this share of the class's length of it. Rounding an
# embedding to 16 bits moves it by up to 0.002; of GloVe's 40,000 most frequent words (6B, 100
# dimensions, of length 1) the nearest two are 0.098 apart.
TOLERANCE = 5e-3

_ROWS_IN_AN_ERROR = 20
_BLOCK = 1024  # classes compared with all others at a time


class AlikeClasses(ValueError):
    """Two of the seen classes cannot be told apart by their embeddings.

    Attributes:
        rows: of the two, in the matrix of seen embeddings.
    """

    def __init__(self, rows: tuple[int, int]):
        super().__init__(
            f"seen_embeddings: rows {rows[0]} and {rows[1]} are the same, and a learned class is "
            "known by its embedding alone; give every class one of its own"
        )
        self.rows = rows


@keras.saving.register_keras_serializable(package="biam_tf")
class KnownClasses(layers.Layer):
    """Picks scores of learned classes for the classes whose embeddings a caller brings.

    A system that has weights of its own for every class scores those classes and no others.
    This layer gives it the interface of the systems that score any class: it knows each learned
    class by its embedding, so that a caller may name some of them, in any order.

    Args:
        seen_embeddings: array-like `(learned classes, embedding_size)`, or `None` where the
            weights are loaded afterwards.
        num_classes: int, needed where `seen_embeddings` is `None`.
        embedding_size: int, likewise.
        dtype: float32 under any policy, for embeddings are compared.

    Input shape:
        A list of scores `(batch, learned classes)` and class embeddings
        `(classes, embedding_size)`, without a batch axis.

    Output shape:
        Scores `(batch, classes)`.

    Raises:
        AlikeClasses: two classes have the same embedding.
        tf.errors.InvalidArgumentError: on a call, for rows that are none of the learned classes;
            the message begins with `class_embeddings: ` and gives the rows. Where assertions are
            not run (in ONNX), the scores of such a row are NaN.
    """

    def __init__(
        self,
        seen_embeddings=None,
        num_classes=None,
        embedding_size=None,
        dtype="float32",
        **kwargs,
    ):
        super().__init__(dtype=dtype, **kwargs)
        if seen_embeddings is not None:
            seen_embeddings = np.asarray(seen_embeddings, np.float32)
            alike = _first_alike(seen_embeddings)
            if alike is not None:
                raise AlikeClasses(alike)
        self.learned = BoundClassEmbeddings(
            seen_embeddings, num_classes, embedding_size, dtype=dtype, name="learned"
        )

    def build(self, input_shape):
        """Checks that there is a score for every learned class."""
        classes, size = self.learned.num_classes, self.learned.embedding_size
        found = [tuple(shape[1:]) for shape in input_shape]
        if found != [(classes,), (size,)]:
            raise ValueError(
                f"the inputs must be [scores (batch, {classes}), class_embeddings (classes, "
                f"{size})]; got shapes {input_shape}"
            )

    def call(self, inputs):
        """Returns the scores (batch, classes) of `class_embeddings`."""
        scores, class_embeddings = inputs
        columns, known = self.find(class_embeddings)
        with tf.control_dependencies([self._require(known)]):
            picked = tf.gather(scores, columns, axis=1)
        return tf.where(known, picked, tf.constant(np.nan, picked.dtype))

    def find(self, class_embeddings) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns which learned class each row is, (classes,) int32, and whether it is one."""
        learned = tf.convert_to_tensor(self.learned.matrix)
        squares = tf.reduce_sum(learned**2, axis=1)

        def close(rows):
            distances = tf.reduce_sum((class_embeddings - tf.gather(learned, rows)) ** 2, axis=1)
            return distances <= TOLERANCE**2 * tf.gather(squares, rows)

        def nearest():
            products = tf.matmul(class_embeddings, learned, transpose_b=True)
            return tf.argmin(squares - 2 * products, axis=1, output_type=tf.int32)

        # All of them in their own order, as in training: no need to compare each with each.
        in_order = tf.range(tf.shape(class_embeddings)[0]) % self.learned.num_classes
        rows = tf.cond(tf.reduce_all(close(in_order)), lambda: in_order, nearest)
        return rows, close(rows)

    def compute_output_shape(self, input_shape):
        """Returns `(batch, classes)`."""
        return (input_shape[0][0], input_shape[1][0])

    def get_config(self):
        """Returns the sizes; the embeddings themselves are a weight."""
        return {
            **super().get_config(),
            "num_classes": self.learned.num_classes,
            "embedding_size": self.learned.embedding_size,
        }

    def _require(self, known) -> tf.Operation:
        unknown = tf.reshape(tf.where(~known), [-1])
        rows = tf.strings.as_string(unknown[:_ROWS_IN_AN_ERROR])
        message = tf.strings.join(
            [
                f"class_embeddings: this model scores the {self.learned.num_classes} classes that "
                "it learned and no others; none of them is in row ",
                tf.strings.reduce_join(rows, separator=", "),
                tf.where(tf.size(unknown) > _ROWS_IN_AN_ERROR, ", …", ""),
            ]
        )
        return tf.debugging.Assert(tf.reduce_all(known), [message])


def known_class_scores(inputs: HeadInputs, scores, seen_embeddings) -> keras.KerasTensor:
    """Returns a head's output `scores` (batch, classes) from those of its learned classes.

    Args:
        inputs: of the head.
        scores: (batch, seen classes).
        seen_embeddings: (seen classes, embedding_size), in the order of those scores.

    Raises:
        AlikeClasses: two classes have the same embedding.
    """
    return KnownClasses(seen_embeddings, name="scores")([scores, inputs.class_embeddings])


def _first_alike(embeddings: np.ndarray) -> tuple[int, int] | None:
    """The first two rows that one and the same row could be taken for."""
    squares = (embeddings**2).sum(axis=1)
    for start in range(0, len(embeddings), _BLOCK):
        block = slice(start, start + _BLOCK)
        distances = squares[block, None] + squares - 2 * embeddings[block] @ embeddings.T
        alike = np.triu(distances <= (2 * TOLERANCE) ** 2 * squares, k=start + 1)
        if alike.any():
            row, other = np.argwhere(alike)[0]
            return start + int(row), int(other)
    return None
