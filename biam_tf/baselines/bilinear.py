"""ESZSL and LabelEM (ALE): a bilinear form between the scene feature and a class embedding."""

import dataclasses
from collections.abc import Iterable

import keras
import numpy as np
from keras import layers

from biam_tf.layers import RegionClassifier
from biam_tf.losses import weighted_ranking_loss
from biam_tf.models.system import HeadInputs, Losses, System, require_setting


@dataclasses.dataclass(frozen=True)
class ESZSLSettings:
    """Settings of ESZSL.

    Attributes:
        gamma: regularization of the feature side, for scene features of unit length.
        lam: regularization of the class embedding side.
        frequency_power: a class's labels are weighted by its frequency to minus this power.
    """

    gamma: float = 10.0
    lam: float = 1.0
    frequency_power: float = 0.5

    def __post_init__(self) -> None:
        # Without regularization there may be no solution.
        for name in ("gamma", "lam"):
            require_setting(getattr(self, name) > 0, name, getattr(self, name), "above 0")


def build_eszsl(inputs: HeadInputs, settings: ESZSLSettings) -> keras.KerasTensor:
    """Returns s = xᵀ V a, with the scene feature x scaled to unit length."""
    del settings
    x = layers.UnitNormalization(name="unit_scene")(inputs.scene_feature)
    scores = RegionClassifier(name="bilinear")([x, inputs.class_embeddings])
    return layers.Activation("linear", dtype="float32", name="scores")(scores)


def fit_eszsl(
    head: keras.Model, settings: ESZSLSettings, batches: Iterable, seen_embeddings: np.ndarray
) -> None:
    """Solves for V in one pass over the examples.

    V = (XᵀX + gI)⁻¹ Xᵀ Y S (SᵀS + λI)⁻¹, the closed form of the paper, with examples in the
    rows of X, classes in the rows of S, and the setting `gamma` as g. Memory grows with the
    square of the length of a feature.
    """
    classes = np.asarray(seen_embeddings, np.float64)
    gram = products = positives = np.zeros(())  # broadcast in the first sum
    for inputs, labels in batches:
        x = np.asarray(inputs["scene_feature"], np.float64)
        x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
        present = (np.asarray(labels) > 0).astype(np.float64)
        gram = gram + x.T @ x
        products = products + x.T @ present
        positives = positives + present.sum(axis=0)
    weights = np.maximum(positives, 1.0) ** -settings.frequency_power
    left = np.linalg.solve(
        gram + settings.gamma * np.eye(len(gram)), (products * weights) @ classes
    )
    right = classes.T @ classes + settings.lam * np.eye(classes.shape[1])
    v = np.linalg.solve(right, left.T).T
    head.get_layer("bilinear").kernel.assign(v.T)


ESZSL = System(
    title="ESZSL",
    source=(
        "Romera-Paredes and Torr, An embarrassingly simple approach to zero-shot learning, ICML "
        "2015; with several labels per image, 0 or 1, weighted by class frequency, where the "
        "original has one label per image, -1 or 1"
    ),
    presets={"paper": ESZSLSettings()},
    build=build_eszsl,
    fit=fit_eszsl,
    classifier="bilinear",
)


@dataclasses.dataclass(frozen=True)
class LabelEMSettings:
    """Settings of LabelEM.

    Attributes:
        margin: difference by which the score of a present class must exceed an absent one's.
    """

    margin: float = 1.0

    def __post_init__(self) -> None:
        require_setting(self.margin > 0, "margin", self.margin, "above 0")


def build_label_em(inputs: HeadInputs, settings: LabelEMSettings) -> keras.KerasTensor:
    """Returns s = xᵀ W a, with the scene feature x."""
    del settings
    scores = RegionClassifier(name="bilinear")([inputs.scene_feature, inputs.class_embeddings])
    return layers.Activation("linear", dtype="float32", name="scores")(scores)


def label_em_losses(head: keras.Model, settings: LabelEMSettings) -> Losses:
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
    build=build_label_em,
    make_losses=label_em_losses,
    classifier="bilinear",
)
