"""Attention per Label: each class has its own attention over the regions."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers, ops

from biam_tf.baselines.class_embedding_systems import (  # noqa: F401
    ATTENTION_PER_LABEL,
    AttentionPerLabelSettings,
)
from biam_tf.baselines.region_attention import (
    attend,
    embed_regions,
)
from biam_tf.layers import RegionClassifier
from biam_tf.layers.region_classifier import match_classes
from biam_tf.models.system import HeadInputs
from biam_tf.tensor_types import Shape, Tensor


@keras.saving.register_keras_serializable(package="biam_tf")
class LowRankBilinearAttention(layers.Layer):
    """Attention logits of every class at every region.

    Those of bilinear attention networks (Kim, Jun & Zhang, NeurIPS 2018, section 3)::

        logit_rc = pᵀ ( ReLU(U f_r + u) ∘ ReLU(V a_c + v) )

    with ∘ the elementwise product; ReLU, biases and dropout are as in the authors' code. That
    code pairs regions with the words of a question, with one softmax over all pairs; here they are
    paired with class embeddings, and the softmax that follows is over the regions of each class.

    Args:
        joint_size: int, length of p.
        dropout: float, dropout rate on f_r and a_c. Defaults to `0.0`.

    Input shape:
        A list of features `(batch, height, width, channels)` and class embeddings
        `(classes, embedding_size)`, without a batch axis.

    Output shape:
        `(batch, height, width, classes)`.
    """

    def __init__(self, joint_size: int, dropout: float = 0.0, **kwargs: Any):
        super().__init__(**kwargs)
        self.joint_size = joint_size
        self.dropout = dropout
        self.region_dropout = layers.Dropout(dropout, dtype=self.dtype_policy)
        self.class_dropout = layers.Dropout(dropout, dtype=self.dtype_policy)
        self.region_projection = self._projection("region_projection")
        self.class_projection = self._projection("class_projection")

    def _projection(self, name: str) -> layers.Dense:
        return layers.Dense(self.joint_size, activation="relu", dtype=self.dtype_policy, name=name)

    def build(self, input_shape: Sequence[Shape]) -> None:
        features_shape, embeddings_shape = input_shape
        self.region_projection.build(features_shape)
        self.class_projection.build(embeddings_shape)
        self.p = self.add_weight(
            shape=(self.joint_size,),
            # The sum of all terms starts about as large as one term.
            initializer=keras.initializers.RandomNormal(stddev=self.joint_size**-0.5),
            name="p",
        )

    def call(self, inputs: Sequence[Tensor], training: bool | None = None) -> Tensor:
        f, class_embeddings = inputs
        regions = self.region_projection(self.region_dropout(f, training=training))
        classes = self.class_projection(self.class_dropout(class_embeddings, training=training))
        return match_classes(regions, classes * ops.cast(self.p, self.compute_dtype))

    def compute_output_shape(self, input_shape: Sequence[Shape]) -> Shape:
        features_shape, embeddings_shape = input_shape
        return (*features_shape[:-1], embeddings_shape[0])

    def get_config(self) -> dict:
        return {**super().get_config(), "joint_size": self.joint_size, "dropout": self.dropout}


def build_scores(inputs: HeadInputs, settings: AttentionPerLabelSettings) -> keras.KerasTensor:
    """Returns the scores (batch, classes), float32."""
    f = embed_regions(inputs.region_features, settings.channels, settings.batch_norm_momentum)
    bilinear = LowRankBilinearAttention(
        settings.joint_size, settings.dropout, name="attention_logits"
    )
    logits = bilinear([f, inputs.class_embeddings])
    attention = layers.Softmax(axis=(1, 2), name="attention")(logits)
    responses = RegionClassifier(name="region_responses")([f, inputs.class_embeddings])
    return attend(attention, responses)
