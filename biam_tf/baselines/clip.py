"""Image-text models as taggers without training: regions and scene compared with texts.

With the unit vectors f_r of the regions, g of the scene and t_c of a class's text, all in the space
of the model, and the scale and bias of the model's logits::

    score_c = scale (w · mean of the `top_k` largest ⟨f_r, t_c⟩ over r + (1 - w) ⟨g, t_c⟩) + bias

With w = 0 this is the model's own logit for photo and text.
"""

import dataclasses
import itertools

import keras

from biam_tf.layers import TopKSpatialPooling
from biam_tf.layers.image_text import ImageTextClassifier, RegionAndScene
from biam_tf.models.system import HeadInputs, System, require_setting

# What is chosen from on validation photos, and what is used without labels.
TOP_KS, REGION_WEIGHTS = (1, 3, 10), (0.0, 0.25, 0.5, 0.75, 1.0)
TOP_K, REGION_WEIGHT = 3, 0.5


@dataclasses.dataclass(frozen=True)
class ClipSettings:
    """Settings of `clip`.

    Attributes:
        top_k: regions averaged for each class, at most h*w. `None`: chosen on the validation
            photos, and 3 without labels.
        region_weight: w, from 0 (the scene alone) to 1 (regions alone). `None`: chosen on the
            validation photos, and 0.5 without labels.
        scale: the logit of a cosine of 1, without the bias. `None`: the model's.
        bias: added to every score. `None`: the model's.
    """

    top_k: int | None = None
    region_weight: float | None = None
    scale: float | None = None
    bias: float | None = None

    def __post_init__(self) -> None:
        top_k, weight, scale = self.top_k, self.region_weight, self.scale
        require_setting(top_k is None or top_k >= 1, "top_k", top_k, "at least 1")
        require_setting(weight is None or 0 <= weight <= 1, "region_weight", weight, "from 0 to 1")
        require_setting(scale is None or scale > 0, "scale", scale, "above 0")


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


CLIP = System(
    title="CLIP, without training",
    source=(
        "Radford et al., Learning transferable visual models from natural language supervision, "
        "ICML 2021; with regions as in Zhou et al., Extract free dense labels from CLIP, ECCV "
        "2022, and BiAM's top-k pooling; also for SigLIP (Zhai et al., ICCV 2023)"
    ),
    presets={
        "paper": ClipSettings(),
        "scene": ClipSettings(top_k=1, region_weight=0.0),
    },
    build=build,
    trained=False,
    classifier="region_classifier",
    uses_joint_space=True,
    candidates=candidates,
)
