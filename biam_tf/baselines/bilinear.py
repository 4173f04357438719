"""ESZSL and LabelEM (ALE): a bilinear form between the scene feature and a class embedding."""

from collections.abc import Iterable

import keras
import numpy as np
from keras import layers

from biam_tf.baselines.class_embedding_systems import (  # noqa: F401
    ESZSL,
    LABEL_EM,
    ESZSLSettings,
    LabelEMSettings,
)
from biam_tf.layers import RegionClassifier
from biam_tf.losses import weighted_ranking_loss
from biam_tf.models.system import HeadInputs, Losses


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


def build_label_em(inputs: HeadInputs, settings: LabelEMSettings) -> keras.KerasTensor:
    """Returns s = xᵀ W a, with the scene feature x."""
    del settings
    scores = RegionClassifier(name="bilinear")([inputs.scene_feature, inputs.class_embeddings])
    return layers.Activation("linear", dtype="float32", name="scores")(scores)


def label_em_losses(head: keras.Model, settings: LabelEMSettings) -> Losses:
    """Returns the weighted approximate ranking loss, averaged over an image's present classes."""
    del head
    return lambda labels, outputs: weighted_ranking_loss(labels, outputs["scores"], settings.margin)
