"""QKS: a few learned queries attend to the regions; each class uses the one that suits it best."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import layers, ops

from biam_tf.baselines.lesa import ClassProducts, HighestScores
from biam_tf.baselines.query_decoder import (
    AttentionMaps,
    OneRowPerRegion,
    QueryDecoder,
    require_heads,
)
from biam_tf.losses.asymmetric import asymmetric_losses
from biam_tf.models.system import HeadInputs, System, require_at_least, require_share
from biam_tf.tensor_types import Shape, Tensor


@dataclasses.dataclass(frozen=True)
class QuerySharingSettings:
    """Settings of QKS.

    Number of queries and loss are those of the released code for NUS-WIDE.

    Attributes:
        queries: T, number of learned queries.
        channels: dimensions of queries and regions in the decoder.
        num_layers: layers of the decoder.
        num_heads: heads of the attention; a divisor of `channels`.
        feed_forward_units: hidden units of the feed-forward networks.
        dropout: dropout rate in the decoder.
        gamma_positive: focusing of present classes in the asymmetric loss.
        gamma_negative: focusing of absent classes.
        clip: shift of the probability of absent classes.
    """

    queries: int = 12
    channels: int = 512
    num_layers: int = 1
    num_heads: int = 8
    feed_forward_units: int = 2048
    dropout: float = 0.1
    gamma_positive: float = 0.0
    gamma_negative: float = 4.0
    clip: float = 0.05

    def __post_init__(self) -> None:
        require_at_least(self, 1, "queries", "channels", "num_layers", "num_heads")
        require_at_least(self, 1, "feed_forward_units")
        require_heads(self.num_heads, self.channels)
        require_at_least(self, 0, "gamma_positive", "gamma_negative")
        require_share(self, "dropout", "clip")


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
        # Not Keras's argmax, which treats -0 by an operation that ONNX lacks.
        chosen = ops.one_hot(
            tf.argmax(products, axis=1), attention.shape[-1], axis=1, dtype=self.compute_dtype
        )
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


QUERY_SHARING = System(
    title="QKS",
    source=(
        "Zhu et al., Query-based knowledge sharing for open-vocabulary multi-label classification, "
        "arXiv 2401.01181: label-agnostic query tokens that gather from the regions, shared by all "
        "labels, and classification by unnormalized products with the asymmetric loss in place of "
        "ranking. Its regions are those of a hidden layer of CLIP's image encoder and its classes "
        "are embedded by CLIP with a pool of prompts; here both are those of the configuration. "
        "Heads and hidden units of the decoder are those of ML-Decoder's layer; none was tuned."
    ),
    presets={"paper": QuerySharingSettings()},
    build=build_scores,
    make_losses=asymmetric_losses,
)
