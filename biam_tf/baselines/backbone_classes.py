"""A tagger without training: CONSE over the classes that a pretrained backbone knows, per region.

With the logits z_r of a region r over the K classes of the backbone, and the embeddings e_k of
their names with the mean μ::

    p_k = softmax_k(z_r / temperature), 0 except for the `kept_classes` most probable
    m_r = Σ_k p_k (e_k - μ) / |Σ_k p_k (e_k - μ)|
    response_rc = m_r · (a_c - μ),   score_c = mean of the `top_k` strongest responses

The mixture is that of CONSE (Norouzi et al., ICLR 2014), which takes it of the whole picture; the
pooling is that of BiAM (section 2.1). A response is linear in the class embedding a_c, as BiAM's.
"""

import keras
import numpy as np
from keras import layers

from biam_tf.baselines.class_embedding_systems import (  # noqa: F401
    BACKBONE_CLASSES,
    BackboneClassesSettings,
)
from biam_tf.layers import EmbeddingMixture as EmbeddingMixture  # public here, too
from biam_tf.layers import RegionClassifier, TopKSpatialPooling
from biam_tf.models.backbone_direction import recognize
from biam_tf.models.system import HeadInputs


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
    mixed = recognize(
        features,
        dense,
        classes,
        settings.kept_classes,
        settings.temperature,
        settings.center_embeddings,
        dtype="float32",
    ).direction
    classifier = _classifier(settings)
    responses = classifier([mixed, inputs.class_embeddings])
    if classifier.bias is not None:
        classifier.bias.assign(-np.mean(classes.embeddings, axis=0))
    if settings.classify == "regions":
        return TopKSpatialPooling(settings.top_k, dtype="float32", name="scores")(responses)
    return layers.Activation("linear", dtype="float32", name="scores")(responses)


def _classifier(settings: BackboneClassesSettings) -> RegionClassifier:
    """Returns the product with a_c - μ: that of `RegionClassifier` with W = 1 and b = -μ."""
    return RegionClassifier(
        use_bias=settings.center_embeddings,
        kernel_initializer="identity",
        trainable=False,
        dtype="float32",
        name="region_classifier",
    )
