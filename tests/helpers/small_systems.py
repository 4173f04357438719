"""Sizes of every system for a test, where the paper's would take seconds to build."""

import keras
import numpy as np

from biam_tf.backbones.classifier import BackboneClasses, BackboneClassifier, DenseLayer
from biam_tf.backbones.joint_space import JointSpace
from biam_tf.models.systems import build_system_head

SMALL = {
    "biam": {"channels": 8, "num_heads": 2, "top_k": 3},
    "fast0tag": {"channels": (16, 8)},
    "fast0tag_linear": {"svm_steps": 20},
    "attention_per_label": {"channels": 8, "joint_size": 6, "batch_norm_momentum": 0.5},
    "attention_per_cluster": {"channels": 8, "num_clusters": 3, "batch_norm_momentum": 0.5},
    "backbone_classes": {"kept_classes": 4, "top_k": 3},
    "clip": {"top_k": 3},
    "lesa": {"channels": 8, "num_attentions": 3, "batch_norm_momentum": 0.5},
    "sdl": {"vectors": 3},
    "ml_decoder": {"channels": 16, "num_heads": 2, "feed_forward_units": 16, "dropout": 0.0},
    "query_sharing": {"queries": 3, "channels": 8, "num_heads": 2, "feed_forward_units": 12},
    "mkt": {"top_k": 3, "channels": 6},
    "dual_prompt": {"channels": 8},
    "ot_match": {"channels": 8, "iterations": 4},
    "wsabie": {"dimension": 8},
    "cnn_rnn": {"label_size": 8, "units": 16, "max_labels": 3, "beams": 2},
}


SPACE = JointSpace(scale=5.0, bias=-1.5, fingerprint="0" * 16)


def small_backbone_classes(
    channels: int, scene: int, embedding: int, classes: int = 9
) -> BackboneClasses:
    """The classes of a backbone whose classifier and names are random."""
    rng = np.random.default_rng(5)

    def dense(inputs: int, units: int, relu6: bool = False) -> DenseLayer:
        kernel, bias = rng.normal(size=(inputs, units)), rng.normal(size=units)
        return DenseLayer(kernel.astype("float32"), bias.astype("float32"), relu6)

    classifier = BackboneClassifier(
        tuple(f"class {number}" for number in range(classes)),
        (dense(scene, classes),),
        (dense(channels, 12, relu6=True), dense(12, classes)),
    )
    return BackboneClasses(classifier, rng.normal(size=(classes, embedding)).astype("float32"))


def small_head(
    name: str,
    region_shape: tuple[int, int, int],
    scene: int,
    seen: np.ndarray,
    preset: str = "paper",
    **settings,
) -> keras.Model:
    """A small head of a system, none of whose weights are all zero."""
    keras.utils.set_random_seed(1)
    built = build_system_head(
        name,
        region_shape,
        scene,
        seen.shape[1],
        preset=preset,
        seen_embeddings=seen,
        backbone_classes=small_backbone_classes(region_shape[-1], scene, seen.shape[1]),
        joint_space=SPACE,
        **{**SMALL.get(name, {}), **settings},
    )
    for weight in built.weights:  # zeros at the start would make many a comparison empty
        if weight.dtype == "float32" and not np.any(weight.numpy()):
            weight.assign(np.random.default_rng(2).normal(0, 0.1, weight.shape))
    return built
