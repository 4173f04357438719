"""Backbones: from photos to region features and a scene feature."""

from biam_tf.backbones.classifier import BackboneClasses, BackboneClassifier
from biam_tf.backbones.folding import fold_batch_norms
from biam_tf.backbones.registry import (
    BACKBONES,
    BackboneSpec,
    build_backbone,
    is_backbone,
    is_pretrained,
    load_backbone,
    load_classifier,
    weights_fingerprint,
)

__all__ = [
    "BACKBONES",
    "BackboneClasses",
    "BackboneClassifier",
    "BackboneSpec",
    "build_backbone",
    "fold_batch_norms",
    "is_backbone",
    "is_pretrained",
    "load_backbone",
    "load_classifier",
    "weights_fingerprint",
]
