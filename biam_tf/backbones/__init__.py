"""Backbones: from photos to region features and a scene feature."""

from typing import TYPE_CHECKING

from biam_tf.registries import importing_from

if TYPE_CHECKING:
    from biam_tf.backbones.classifier import BackboneClasses, BackboneClassifier
    from biam_tf.backbones.folding import fold_batch_norms
    from biam_tf.backbones.registry import (
        BACKBONES,
        build_backbone,
        is_backbone,
        is_in_space_of_texts,
        is_pretrained,
        load_backbone,
        load_classifier,
        weights_fingerprint,
    )
    from biam_tf.backbones.spec import BackboneSpec

__all__ = [
    "BACKBONES",
    "BackboneClasses",
    "BackboneClassifier",
    "BackboneSpec",
    "build_backbone",
    "fold_batch_norms",
    "is_backbone",
    "is_in_space_of_texts",
    "is_pretrained",
    "load_backbone",
    "load_classifier",
    "weights_fingerprint",
]

# Names and settings are checked without Keras, which most of these modules import.
__getattr__ = importing_from(
    __name__,
    {
        "BACKBONES": "registry",
        "BackboneClasses": "classifier",
        "BackboneClassifier": "classifier",
        "BackboneSpec": "spec",
        "build_backbone": "registry",
        "fold_batch_norms": "folding",
        "is_backbone": "registry",
        "is_in_space_of_texts": "registry",
        "is_pretrained": "registry",
        "load_backbone": "registry",
        "load_classifier": "registry",
        "weights_fingerprint": "registry",
    },
)
