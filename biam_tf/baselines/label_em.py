"""LabelEM (ALE): a bilinear form between scene and class embedding, trained to rank."""

import dataclasses

import keras
from keras import layers

from biam_tf.layers import RegionClassifier
from biam_tf.losses import weighted_ranking_loss
from biam_tf.models.system import HeadInputs, Losses, System, require_setting


@dataclasses.dataclass(frozen=True)
class LabelEMSettings:
    """Settings of LabelEM.

    Attributes:
        margin: difference by which the score of a present class must exceed an absent one's.
    """

    margin: float = 1.0

    def __post_init__(self) -> None:
        require_setting(self.margin > 0, "margin", self.margin, "above 0")


def build(inputs: HeadInputs, settings: LabelEMSettings) -> keras.KerasTensor:
    """Returns s = xᵀ W a, with the scene feature x."""
    del settings
    scores = RegionClassifier(name="bilinear")([inputs.scene_feature, inputs.class_embeddings])
    return layers.Activation("linear", dtype="float32", name="scores")(scores)


def make_losses(head: keras.Model, settings: LabelEMSettings) -> Losses:
    """Returns the weighted approximate ranking loss, averaged over an image's present classes."""
    del head
    return lambda labels, outputs: weighted_ranking_loss(labels, outputs["scores"], settings.margin)


LABEL_EM = System(
    title="LabelEM",
    source=(
        "Akata et al., Label-embedding for image classification, PAMI 2016 (ALE); "
        "all absent classes are ranked, where the original samples"
    ),
    presets={"paper": LabelEMSettings()},
    build=build,
    make_losses=make_losses,
)
