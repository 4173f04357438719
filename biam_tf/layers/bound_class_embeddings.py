"""A fixed matrix of class embeddings inside a model."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import ArrayLike

from biam_tf.tensor_types import Shape, Tensor


@keras.saving.register_keras_serializable(package="biam_tf")
class BoundClassEmbeddings(layers.Layer):
    """Holds class embeddings as a constant that is saved with the model and never trained.

    It is called on any tensor of the model, whose value it ignores, and returns the whole matrix.
    The call connects the constant to a functional model.

    Args:
        class_embeddings: array-like `(classes, embedding_size)`. Defaults to `None`: zeros, for
            weights that are loaded afterwards.
        num_classes: int, needed where `class_embeddings` is `None`. Defaults to `None`.
        embedding_size: int, needed where `class_embeddings` is `None`. Defaults to `None`.

    Output shape:
        `(num_classes, embedding_size)`, without a batch axis.

    Raises:
        ValueError: `class_embeddings` is not a matrix.
    """

    def __init__(
        self,
        class_embeddings: ArrayLike | None = None,
        num_classes: int | None = None,
        embedding_size: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if class_embeddings is not None:
            shape = np.shape(class_embeddings)
            if len(shape) != 2:
                raise ValueError(
                    "class_embeddings must be a matrix (classes, embedding_size); got shape "
                    f"{shape}"
                )
            num_classes, embedding_size = shape
        self.num_classes = num_classes
        self.embedding_size = embedding_size
        self.matrix = self.add_weight(
            shape=(num_classes, embedding_size),
            initializer=array_initializer(class_embeddings),
            trainable=False,
            autocast=False,
            name="matrix",
        )

    def call(self, inputs: Tensor) -> Tensor:
        del inputs  # connects the matrix to the graph
        return ops.cast(self.matrix, self.compute_dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        del input_shape
        return (self.num_classes, self.embedding_size)

    def get_config(self) -> dict:
        # The matrix itself is a weight.
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "embedding_size": self.embedding_size,
        }


def array_initializer(values: ArrayLike | None) -> str | Callable[..., Tensor]:
    """Returns an initializer that sets a weight to `values`, or to zeros where they are `None`."""
    if values is None:
        return "zeros"
    return lambda shape, dtype=None: ops.convert_to_tensor(values, dtype)
