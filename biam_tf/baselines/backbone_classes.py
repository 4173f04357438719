"""A tagger without training: CONSE over the classes that a pretrained backbone knows, per region.

With the logits z_r of a region r over the K classes of the backbone, and the embeddings e_k of
their names with the mean μ::

    p_k = softmax_k(z_r / temperature), 0 except for the `kept_classes` most probable
    m_r = Σ_k p_k (e_k - μ) / |Σ_k p_k (e_k - μ)|
    response_rc = m_r · (a_c - μ),   score_c = mean of the `top_k` strongest responses

The mixture is that of CONSE (Norouzi et al., ICLR 2014), which takes it of the whole picture; the
pooling is that of BiAM (section 2.1). A response is linear in the class embedding a_c, as BiAM's.
"""

from typing import Any

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import ArrayLike

from biam_tf.backbones.classifier import BackboneClasses, DenseLayer
from biam_tf.baselines.class_embedding_systems import (  # noqa: F401
    BACKBONE_CLASSES,
    BackboneClassesSettings,
)
from biam_tf.layers import RegionClassifier, TopKSpatialPooling
from biam_tf.layers.bound_class_embeddings import array_initializer
from biam_tf.models.system import HeadInputs
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
        super().__init__(**kwargs)
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
        # Lengths cancel: the probabilities need not sum to 1.
        weights = ops.exp((logits - ops.max(logits, axis=-1, keepdims=True)) / self.temperature)
        if self.kept_classes < self.matrix.shape[0]:
            # A product with all rows is faster than gathering the rows of every region.
            least = ops.top_k(logits, self.kept_classes)[0][..., -1:]
            weights = ops.where(logits >= least, weights, 0.0)
        return ops.normalize(ops.matmul(weights, self.matrix), axis=-1)

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


def build(inputs: HeadInputs, settings: BackboneClassesSettings) -> keras.KerasTensor:
    """Returns the scores; all weights are those of the backbone's classifier and of the names.

    Raises:
        ValueError: the backbone's classes are missing, or its classifier cannot be applied to
            regions or takes other features.
    """
    classes = inputs.require_backbone_classes("backbone_classes")
    if settings.classify == "regions":
        features, dense = inputs.region_features, classes.classifier.region_layers
        if dense is None:
            raise ValueError(
                "the backbone's classifier takes the scene feature, not single regions; set "
                "classify to 'scene'"
            )
    else:
        features, dense = inputs.scene_feature, classes.classifier.scene_layers
    # All in float32 under any dtype policy: cosines of names differ by hundredths.
    mixed = _mixture(_logits(features, dense), classes, settings)
    classifier = _classifier(settings)
    responses = classifier([mixed, inputs.class_embeddings])
    if classifier.bias is not None:
        classifier.bias.assign(-np.mean(classes.embeddings, axis=0))
    if settings.classify == "regions":
        return TopKSpatialPooling(settings.top_k, dtype="float32", name="scores")(responses)
    return layers.Activation("linear", dtype="float32", name="scores")(responses)


def _logits(features: keras.KerasTensor, dense: tuple[DenseLayer, ...]) -> keras.KerasTensor:
    for number, arrays in enumerate(dense):
        inputs, units = arrays.kernel.shape
        if features.shape[-1] != inputs:
            raise ValueError(
                f"the backbone's classifier takes features of length {inputs}; got "
                f"{features.shape[-1]}"
            )
        name = f"backbone_classifier_{number}"
        layer = layers.Dense(units, trainable=False, dtype="float32", name=name)
        features = layer(features)
        layer.set_weights([arrays.kernel, arrays.bias])
        if arrays.relu6:
            relu6 = layers.ReLU(max_value=6.0, dtype="float32", name=f"backbone_relu6_{number}")
            features = relu6(features)
    return features


def _mixture(
    logits: keras.KerasTensor, classes: BackboneClasses, settings: BackboneClassesSettings
) -> keras.KerasTensor:
    embeddings = np.asarray(classes.embeddings, np.float32)
    if settings.center_embeddings:
        embeddings = embeddings - embeddings.mean(axis=0)
    mixture = EmbeddingMixture(
        embeddings,
        min(settings.kept_classes, len(embeddings)),
        settings.temperature,
        dtype="float32",
        trainable=False,
        name="mixture",
    )
    return mixture(logits)


def _classifier(settings: BackboneClassesSettings) -> RegionClassifier:
    """Returns the product with a_c - μ: that of `RegionClassifier` with W = 1 and b = -μ."""
    return RegionClassifier(
        use_bias=settings.center_embeddings,
        kernel_initializer="identity",
        trainable=False,
        dtype="float32",
        name="region_classifier",
    )
