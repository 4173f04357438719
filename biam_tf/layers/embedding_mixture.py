"""Mixtures of the embeddings of recognized classes, and their sum with other directions."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import ArrayLike

from biam_tf.layers.bound_class_embeddings import array_initializer
from biam_tf.tensor_types import Shape, Tensor


@keras.saving.register_keras_serializable(package="biam_tf")
class EmbeddingMixture(layers.Layer):
    """Mixes embeddings by the probabilities of their classes; the result has length 1.

    Args:
        embeddings: array-like `(K, d_a)`. Defaults to `None`: zeros, for weights that are loaded
            afterwards.
        kept_classes: int, number of the most probable classes that are mixed. Defaults to `20`.
        temperature: float, of the softmax. Defaults to `3.0`.
        num_classes: int, K, needed where `embeddings` is `None`. Defaults to `None`.
        embedding_size: int, d_a, needed where `embeddings` is `None`. Defaults to `None`.

    Input shape:
        Logits `(..., K)`.

    Output shape:
        Unit vectors `(..., d_a)`.
    """

    def __init__(
        self,
        embeddings: ArrayLike | None = None,
        kept_classes: int = 20,
        temperature: float = 3.0,
        num_classes: int | None = None,
        embedding_size: int | None = None,
        **kwargs: Any,
    ):
        # Which classes are the most probable ones, 16 bits cannot tell.
        super().__init__(autocast=False, **kwargs)
        if embeddings is not None:
            num_classes, embedding_size = np.shape(embeddings)
        self.kept_classes = kept_classes
        self.temperature = temperature
        self.num_classes = num_classes
        self.embedding_size = embedding_size
        self.matrix = self.add_weight(
            shape=(num_classes, embedding_size),
            initializer=array_initializer(embeddings),
            trainable=False,
            name="matrix",
        )

    def call(self, logits: Tensor) -> Tensor:
        logits = ops.cast(logits, "float32")
        # Lengths cancel: the probabilities need not sum to 1.
        weights = ops.exp((logits - ops.max(logits, axis=-1, keepdims=True)) / self.temperature)
        if self.kept_classes < self.matrix.shape[0]:
            # A product with all rows is faster than gathering the rows of every region.
            least = ops.top_k(logits, self.kept_classes)[0][..., -1:]
            weights = ops.where(logits >= least, weights, 0.0)
        matrix = ops.cast(self.matrix, self.compute_dtype)
        return ops.normalize(ops.matmul(ops.cast(weights, matrix.dtype), matrix), axis=-1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], self.embedding_size)

    def get_config(self) -> dict:
        # The embeddings themselves are a weight.
        return {
            **super().get_config(),
            "kept_classes": self.kept_classes,
            "temperature": self.temperature,
            "num_classes": self.num_classes,
            "embedding_size": self.embedding_size,
        }


@keras.saving.register_keras_serializable(package="biam_tf")
class AddDirection(layers.Layer):
    """Adds directions to vectors, with a weight that is learned: e + w [m, 0].

    The directions m are those of the first d_a numbers of the vectors e; the others, which stand
    for similarities to anchors, stay as they are (`CosineRegionClassifier`). As scores are
    products with e, those of both add up.

    Args:
        initial_weight: float, w before the first step. Defaults to `1.0`.

    Input shape:
        A list of e `(..., d)` and m `(..., d_a)`, d >= d_a, which has the same leading axes or 1.

    Output shape:
        That of e.

    Raises:
        ValueError: the inputs are not such a pair.
    """

    def __init__(self, initial_weight: float = 1.0, **kwargs: Any):
        super().__init__(**kwargs)
        self.initial_weight = initial_weight

    def build(self, input_shape: Sequence[Shape]) -> None:
        if len(input_shape) != 2 or len(input_shape[0]) != len(input_shape[1]):
            raise ValueError(
                f"the inputs must be [vectors (..., d), directions (..., d_a)]; got {input_shape}"
            )
        longer, shorter = (shape[-1] for shape in input_shape)
        if longer is None or shorter is None or longer < shorter:
            raise ValueError(
                f"directions must not be longer than the vectors that they are added to; got "
                f"shapes {input_shape}"
            )
        self.weight = self.add_weight(
            shape=(),
            initializer=keras.initializers.Constant(self.initial_weight),
            name="weight",
        )

    def call(self, inputs: Sequence[Tensor]) -> Tensor:
        e, m = inputs
        missing = e.shape[-1] - m.shape[-1]
        m = ops.pad(m, [(0, 0)] * (len(m.shape) - 1) + [(0, missing)])
        return e + ops.cast(self.weight, m.dtype) * m

    def compute_output_shape(self, input_shape: Sequence[Shape]) -> Shape:
        return input_shape[0]

    def get_config(self) -> dict:
        return {**super().get_config(), "initial_weight": self.initial_weight}
