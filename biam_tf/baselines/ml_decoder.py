"""ML-Decoder: class embeddings are queries that attend to the regions, but not to each other."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import layers, ops

from biam_tf.baselines.query_decoder import (
    AttentionMaps,
    OneRowPerRegion,
    QueryDecoder,
)
from biam_tf.baselines.query_systems import MlDecoderSettings
from biam_tf.models.system import HeadInputs
from biam_tf.tensor_types import Shape, Tensor
from biam_tf.ways_to_compute import in_blocks


@keras.saving.register_keras_serializable(package="biam_tf")
class ClassDecoder(layers.Layer):
    """Decodes the query of each class over the regions and scores it, with one w for all classes::

        h_c = decoder layer of the query q_c over the regions f   (`QueryDecoder`)
        score_c = w · h_c + b

    In inference, classes are decoded in blocks, in memory that does not grow with the number of
    classes times the hidden units.

    Args:
        num_heads: int, heads of the attention.
        feed_forward_units: int, hidden units of the feed-forward network.
        dropout: float, dropout rate. Defaults to `0.0`.
        numbers_at_a_time: int, hidden numbers (images x classes x units) of a block of classes.
            Defaults to `2**23`: 32 MB in float32.

    Input shape:
        A list of class queries `(classes, channels)`, without a batch axis, and regions `(batch,
        regions, channels)`.

    Output shape:
        A tuple of scores `(batch, classes)` and attention `(batch, classes, regions)`.
    """

    def __init__(
        self,
        num_heads: int,
        feed_forward_units: int,
        dropout: float = 0.0,
        numbers_at_a_time: int = 1 << 23,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.numbers_at_a_time = numbers_at_a_time
        self.decoder = QueryDecoder(
            num_heads, feed_forward_units, dropout, dtype=self.dtype_policy, name="decoder"
        )
        self.score = layers.Dense(1, dtype=self.dtype_policy, name="score")

    def build(self, input_shape: Sequence[Shape]) -> None:
        self.decoder.build(input_shape)
        self.score.build((None, None, input_shape[1][-1]))

    def call(self, inputs: Sequence[Tensor], training: bool | None = None) -> tuple[Tensor, Tensor]:
        queries, regions = inputs
        images, classes = regions.shape[0], queries.shape[0]
        units = max(self.decoder.feed_forward_units, queries.shape[-1])
        known = images is not None and classes is not None
        if training or not in_blocks():
            return self._decode(queries, regions, training)
        if known and images * classes * units <= self.numbers_at_a_time:
            return self._decode(queries, regions, training)
        width = tf.maximum(
            1, self.numbers_at_a_time // (tf.maximum(1, tf.shape(regions)[0]) * units)
        )
        return self._decode_in_blocks(queries, regions, width)

    def _decode(
        self, queries: Tensor, regions: Tensor, training: bool | None
    ) -> tuple[Tensor, Tensor]:
        decoded, attention = self.decoder([queries, regions], training=training)
        return ops.squeeze(self.score(decoded), axis=-1), attention

    def _decode_in_blocks(
        self, queries: Tensor, regions: Tensor, width: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        count = tf.shape(queries)[0]
        blocks = (count + width - 1) // width
        images, places = regions.shape[:2]
        # Classes are the first axis, along which the blocks are concatenated.
        shapes = ((None, images), (None, images, places))
        arrays = [
            tf.TensorArray(self.compute_dtype, blocks, infer_shape=False, element_shape=shape)
            for shape in shapes
        ]

        def of_block(
            block: tf.Tensor, scores: tf.TensorArray, attention: tf.TensorArray
        ) -> tuple[tf.Tensor, tf.TensorArray, tf.TensorArray]:
            part = queries[block * width : (block + 1) * width]
            own, attended = self._decode(part, regions, training=False)
            scores = scores.write(block, tf.transpose(own))
            return block + 1, scores, attention.write(block, tf.transpose(attended, (1, 0, 2)))

        _, scores, attention = tf.while_loop(
            lambda block, *_: block < blocks, of_block, (0, *arrays), parallel_iterations=1
        )
        return tf.transpose(scores.concat()), tf.transpose(attention.concat(), (1, 0, 2))

    def compute_output_shape(self, input_shape: Sequence[Shape]) -> tuple[Shape, Shape]:
        (classes, _), (batch, regions, _) = input_shape
        return (batch, classes), (batch, classes, regions)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "num_heads": self.decoder.num_heads,
            "feed_forward_units": self.decoder.feed_forward_units,
            "dropout": self.decoder.dropout,
            "numbers_at_a_time": self.numbers_at_a_time,
        }


@keras.saving.register_keras_serializable(package="biam_tf")
class WithMaps(layers.Layer):
    """Returns scores in float32; the second input, response maps, is only connected to the model.

    A traced function does not compute maps that it does not return.
    """

    def call(self, inputs: Sequence[Tensor]) -> Tensor:
        scores, _ = inputs
        return ops.cast(scores, self.compute_dtype) + 0.0

    def compute_output_shape(self, input_shape: Sequence[Shape]) -> Shape:
        return input_shape[0]


def build_scores(inputs: HeadInputs, settings: MlDecoderSettings) -> keras.KerasTensor:
    """Returns the scores (batch, classes), float32.

    With regions f_r = relu(W x_r + b) and the query q_c = relu(V a_c + v) of each class, decoded
    and scored by `ClassDecoder`. The response maps are the attention of each class to the regions,
    the mean over the heads.
    """
    regions = layers.Dense(settings.channels, activation="relu", name="region_embedding")(
        inputs.region_features
    )
    queries = layers.Dense(settings.channels, activation="relu", name="class_queries")(
        inputs.class_embeddings
    )
    decoder = ClassDecoder(
        settings.num_heads, settings.feed_forward_units, settings.dropout, name="class_decoder"
    )
    scores, attention = decoder([queries, OneRowPerRegion(name="regions")(regions)])
    response_maps = AttentionMaps(name="response_maps")([attention, regions])
    return WithMaps(dtype="float32", name="scores")([scores, response_maps])
