"""QKS: a few learned queries attend to the regions; each class uses the one that suits it best."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers, ops

from biam_tf.baselines.lesa import ClassProducts, HighestScores
from biam_tf.baselines.query_decoder import (
    AttentionMaps,
    OneRowPerRegion,
    QueryDecoder,
)
from biam_tf.baselines.query_systems import QuerySharingSettings
from biam_tf.models.system import HeadInputs
from biam_tf.tensor_types import Shape, Tensor
from biam_tf.ways_to_compute import index_of_largest


@keras.saving.register_keras_serializable(package="biam_tf")
class LearnedQueries(layers.Layer):
    """T trained vectors `(T, channels)`, the same for all photos.

    It is called on any tensor of the model, whose value it ignores; the call connects the queries
    to a functional model.

    Args:
        queries: int, T.
        channels: int, their length.
    """

    def __init__(self, queries: int, channels: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.queries = queries
        self.channels = channels
        self.vectors = self.add_weight(
            shape=(queries, channels),
            initializer=keras.initializers.RandomNormal(stddev=1.0),
            name="vectors",
        )

    def call(self, inputs: Tensor) -> Tensor:
        del inputs  # connects the queries to the graph
        return ops.cast(self.vectors, self.compute_dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        del input_shape
        return (self.queries, self.channels)

    def get_config(self) -> dict:
        return {**super().get_config(), "queries": self.queries, "channels": self.channels}


@keras.saving.register_keras_serializable(package="biam_tf")
class ChosenAttention(layers.Layer):
    """The attention of the query that each class scores highest with.

    Input shape:
        A list of products `(batch, queries, classes)` and attention `(batch, height, width,
        queries)`.

    Output shape:
        `(batch, height, width, classes)`.
    """

    def call(self, inputs: Sequence[Tensor]) -> Tensor:
        products, attention = inputs
        winners = index_of_largest(products, axis=1)
        chosen = ops.one_hot(winners, attention.shape[-1], axis=1, dtype=self.compute_dtype)
        return ops.einsum("bhwt,btc->bhwc", attention, chosen)

    def compute_output_shape(self, input_shape: Sequence[Shape]) -> Shape:
        products_shape, attention_shape = input_shape
        return (*attention_shape[:3], products_shape[2])


def build_scores(inputs: HeadInputs, settings: QuerySharingSettings) -> keras.KerasTensor:
    """Returns the scores (batch, classes), float32.

    With regions f_r = W x_r + b and learned queries q_1 … q_T::

        h = decoder layers of the queries q over the regions f, with self-attention (`QueryDecoder`)
        v_t = V h_t + v,   score_c = max_t v_t · a_c

    The length of v_t counts: it is not normalized. The response maps are the attention of the
    chosen query in the last layer, the mean over the heads.
    """
    regions = layers.Dense(settings.channels, name="region_embedding")(inputs.region_features)
    rows = OneRowPerRegion(name="regions")(regions)
    decoded = LearnedQueries(settings.queries, settings.channels, name="queries")(rows)
    for number in range(1, settings.num_layers + 1):
        decoder = QueryDecoder(
            settings.num_heads,
            settings.feed_forward_units,
            settings.dropout,
            self_attention=True,
            name=f"decoder_{number}",
        )
        decoded, attention = decoder([decoded, rows])
    vectors = layers.Dense(inputs.class_embeddings.shape[-1], name="query_vectors")(decoded)
    products = ClassProducts(name="products")([vectors, inputs.class_embeddings])
    by_query = AttentionMaps(name="attention")([attention, regions])
    response_maps = ChosenAttention(name="response_maps")([products, by_query])
    return HighestScores(dtype="float32", name="scores")([products, response_maps])
