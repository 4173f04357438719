"""ML-Decoder: class embeddings are queries that attend to the regions, but not to each other."""

import dataclasses

import keras
from keras import layers, ops

from biam_tf.baselines.lesa import HighestScores
from biam_tf.baselines.query_decoder import (
    AttentionMaps,
    OneRowPerRegion,
    QueryDecoder,
    require_heads,
)
from biam_tf.baselines.region_attention import require_at_least, require_share
from biam_tf.losses import asymmetric_loss
from biam_tf.models.system import HeadInputs, Losses, System
from biam_tf.tensor_types import Shape, Tensor


@dataclasses.dataclass(frozen=True)
class MlDecoderSettings:
    """Settings of ML-Decoder; the defaults are those of the released code for NUS-WIDE.

    Attributes:
        channels: dimensions of queries and regions.
        num_heads: heads of the attention; a divisor of `channels`.
        feed_forward_units: hidden units of the feed-forward network.
        dropout: dropout rate in the decoder, and of the queries.
        gamma_positive: focusing of present classes in the asymmetric loss.
        gamma_negative: focusing of absent classes.
        clip: shift of the probability of absent classes.
    """

    channels: int = 768
    num_heads: int = 8
    feed_forward_units: int = 2048
    dropout: float = 0.1
    gamma_positive: float = 0.0
    gamma_negative: float = 4.0
    clip: float = 0.05

    def __post_init__(self) -> None:
        require_at_least(self, 1, "channels", "num_heads", "feed_forward_units")
        require_heads(self.num_heads, self.channels)
        require_at_least(self, 0, "gamma_positive", "gamma_negative")
        require_share(self, "dropout", "clip")


@keras.saving.register_keras_serializable(package="biam_tf")
class SharedScore(layers.Layer):
    """The score w · q_c + b of each decoded query (batch, classes, channels), one w for all."""

    def build(self, input_shape: Shape) -> None:
        self.score = layers.Dense(1, dtype=self.dtype_policy, name="score")
        self.score.build(input_shape)

    def call(self, decoded: Tensor) -> Tensor:
        return ops.squeeze(self.score(decoded), axis=-1)[:, None, :]

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], 1, input_shape[1])


def build_scores(inputs: HeadInputs, settings: MlDecoderSettings) -> keras.KerasTensor:
    """Returns the scores (batch, classes), float32.

    With regions f_r = relu(W x_r + b) and the query q_c = relu(V a_c + v) of each class::

        h_c = decoder layer of the query q_c over the regions f   (`QueryDecoder`)
        score_c = w · h_c + b

    The response maps are the attention of each class to the regions, the mean over the heads.
    Memory grows with photos times classes times `feed_forward_units`.
    """
    regions = layers.Dense(settings.channels, activation="relu", name="region_embedding")(
        inputs.region_features
    )
    queries = layers.Dense(settings.channels, activation="relu", name="class_queries")(
        inputs.class_embeddings
    )
    decoder = QueryDecoder(
        settings.num_heads, settings.feed_forward_units, settings.dropout, name="decoder"
    )
    decoded, attention = decoder([queries, OneRowPerRegion(name="regions")(regions)])
    response_maps = AttentionMaps(name="response_maps")([attention, regions])
    scores = SharedScore(name="class_scores")(decoded)
    return HighestScores(dtype="float32", name="scores")([scores, response_maps])


def make_losses(head: keras.Model, settings: MlDecoderSettings) -> Losses:
    """Returns the asymmetric loss, summed over the classes of a photo."""
    del head
    return lambda labels, outputs: asymmetric_loss(
        labels,
        outputs["scores"],
        settings.gamma_positive,
        settings.gamma_negative,
        settings.clip,
    )


ML_DECODER = System(
    title="ML-Decoder",
    source=(
        "Ridnik et al., ML-Decoder: scalable and versatile classification head, WACV 2023, with "
        "the word queries of its zero-shot model, in the form of its released code "
        "(github.com/Alibaba-MIIL/ML_Decoder, src_files/ml_decoder/ml_decoder.py and "
        "train_zsl_nus.py). It trains the backbone (TResNet-L), with averaged weights, RandAugment "
        "and Cutout; here backbone, optimizer and averaging are those of the configuration. The "
        "dropout of a class's query is the same for all photos of a step. The paper's query "
        "augmentations are not in the released code and are left out."
    ),
    presets={
        "paper": MlDecoderSettings(),
        "small": MlDecoderSettings(channels=256, feed_forward_units=512),
    },
    build=build_scores,
    make_losses=make_losses,
)
