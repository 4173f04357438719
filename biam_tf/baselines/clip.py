"""Image-text models as taggers without training: regions and scene compared with texts.

With the unit vectors f_r of the regions, g of the scene and t_c of a class's text, all in the space
of the model, and the scale and bias of the model's logits::

    score_c = scale (w · mean of the `top_k` largest ⟨f_r, t_c⟩ over r + (1 - w) ⟨g, t_c⟩) + bias

With w = 0 this is the model's own logit for photo and text.
"""

import dataclasses
import itertools

import keras

from biam_tf.baselines.image_text_systems import ClipSettings
from biam_tf.layers import TopKSpatialPooling
from biam_tf.layers.image_text import ImageTextClassifier, RegionAndScene
from biam_tf.models.system import HeadInputs

# What is chosen from on validation photos, and what is used without labels.
TOP_KS, REGION_WEIGHTS = (1, 3, 10), (0.0, 0.25, 0.5, 0.75, 1.0)
TOP_K, REGION_WEIGHT = 3, 0.5


def build(inputs: HeadInputs, settings: ClipSettings) -> keras.KerasTensor:
    """Returns the scores.

    Raises:
        ValueError: the features are not in a space of images and texts, or the class embeddings
            are of another length.
    """
    space = inputs.joint_space
    if space is None and settings.scale is None:
        raise ValueError(
            "the system clip needs region features in the space of texts: set backbone.name to "
            "keras_hub:PRESET of an image-text model (CLIP, MetaCLIP 2, SigLIP, SigLIP 2), and "
            "backbone.regions to joint"
        )
    lengths = [
        tensor.shape[-1]
        for tensor in (inputs.region_features, inputs.scene_feature, inputs.class_embeddings)
    ]
    if len(set(lengths)) > 1:
        raise ValueError(
            "the system clip compares regions, scene and class embeddings of one space; they have "
            f"{lengths[0]}, {lengths[1]} and {lengths[2]} numbers"
        )
    scale, bias = settings.scale, settings.bias
    if scale is None:
        scale = 1.0 if space is None else space.scale
    if bias is None:
        bias = 0.0 if space is None else space.bias
    weight = REGION_WEIGHT if settings.region_weight is None else settings.region_weight
    # In float32 under any dtype policy: cosines of texts differ by hundredths.
    mix = RegionAndScene(scale, bias, weight, dtype="float32", name="region_and_scene")
    vectors = mix([inputs.region_features, inputs.scene_feature])
    classifier = ImageTextClassifier(dtype="float32", name="region_classifier", trainable=False)
    responses = classifier([vectors, inputs.class_embeddings])
    top_k = _default_top_k(inputs) if settings.top_k is None else settings.top_k
    return TopKSpatialPooling(top_k, dtype="float32", name="scores")(responses)


def _default_top_k(inputs: HeadInputs) -> int:
    height, width = inputs.region_features.shape[1:3]
    return TOP_K if height is None or width is None else min(TOP_K, height * width)


def candidates(settings: ClipSettings) -> list[ClipSettings]:
    """Returns settings without a `None` in `top_k` and `region_weight`, to choose from."""
    top_ks = TOP_KS if settings.top_k is None else (settings.top_k,)
    weights = REGION_WEIGHTS if settings.region_weight is None else (settings.region_weight,)
    found = []
    for weight, top_k in itertools.product(weights, top_ks):
        # Without a weight of the regions, their number is of no effect.
        if weight > 0 or top_k == top_ks[0]:
            found.append(dataclasses.replace(settings, top_k=top_k, region_weight=weight))
    return found
