"""The systems that a configuration can name: BiAM and the baselines."""

from typing import Any

import keras
from numpy.typing import ArrayLike

from biam_tf.backbones.classifier import BackboneClasses
from biam_tf.baselines.attention_per_cluster import ATTENTION_PER_CLUSTER
from biam_tf.baselines.attention_per_label import ATTENTION_PER_LABEL
from biam_tf.baselines.backbone_classes import BACKBONE_CLASSES
from biam_tf.baselines.bilinear import ESZSL, LABEL_EM
from biam_tf.baselines.cnn_rnn import CNN_RNN
from biam_tf.baselines.conse import CONSE
from biam_tf.baselines.fast0tag import FAST0TAG, FAST0TAG_LINEAR
from biam_tf.baselines.lesa import LESA
from biam_tf.baselines.linear import LOGISTIC, WARP
from biam_tf.baselines.wsabie import WSABIE
from biam_tf.errors import UserError, did_you_mean
from biam_tf.models.head import BIAM
from biam_tf.models.system import HeadInputs, System
from biam_tf.tensor_types import Shape

# A new system is one module of `biam_tf.baselines` and one line here.
SYSTEMS: dict[str, System] = {
    "biam": BIAM,
    "conse": CONSE,
    "backbone_classes": BACKBONE_CLASSES,
    "eszsl": ESZSL,
    "fast0tag": FAST0TAG,
    "fast0tag_linear": FAST0TAG_LINEAR,
    "label_em": LABEL_EM,
    "attention_per_label": ATTENTION_PER_LABEL,
    "attention_per_cluster": ATTENTION_PER_CLUSTER,
    "lesa": LESA,
    "logistic": LOGISTIC,
    "warp": WARP,
    "wsabie": WSABIE,
    "cnn_rnn": CNN_RNN,
}


def find_system(name: str) -> System:
    """Returns the system of a name.

    Raises:
        UserError: there is none; the message suggests the nearest name.
    """
    if name not in SYSTEMS:
        raise UserError(f"system {name!r} is unknown{did_you_mean(name, SYSTEMS)}")
    return SYSTEMS[name]


def build_system_head(
    name: str,
    region_shape: Shape,
    scene_size: int,
    embedding_size: int,
    *,
    preset: str = "paper",
    seen_embeddings: ArrayLike | None = None,
    backbone_classes: BackboneClasses | None = None,
    **settings: Any,
) -> keras.Model:
    """Builds the head of any system; `build_head` is that of BiAM.

    Args:
        name: a key of `SYSTEMS`.
        region_shape: `(height, width, channels)` of the region features.
        scene_size: length of the scene feature.
        embedding_size: length of a class embedding.
        preset: one of the system's presets. Defaults to `"paper"`.
        seen_embeddings: `(seen classes, embedding_size)`, the classes it will be trained on, which
            some systems are built from. Defaults to `None`.
        backbone_classes: the classes that the backbone was trained on, which the system
            `backbone_classes` is built from. Defaults to `None`.
        **settings: settings that replace the preset's.

    Returns:
        A model with the inputs and the output `scores` of `build_head`.

    Raises:
        ValueError: a name or a setting is unknown or not valid, or does not fit the shapes.
    """
    system = find_system(name)
    inputs = HeadInputs.of_shapes(
        region_shape, scene_size, embedding_size, seen_embeddings, backbone_classes
    )
    return inputs.model(system.build(inputs, system.settings(preset, **settings)))
