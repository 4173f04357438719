"""The systems that a configuration can name: BiAM and the baselines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from biam_tf.errors import UserError, did_you_mean
from biam_tf.models.system import HeadInputs, System
from biam_tf.registries import Registry, import_late

if TYPE_CHECKING:  # names are checked without Keras
    import keras
    from numpy.typing import ArrayLike

    from biam_tf.backbones.classifier import BackboneClasses
    from biam_tf.backbones.joint_space import JointSpace
    from biam_tf.tensor_types import Shape

# A new system is one module of `biam_tf.baselines` and one line here. The settings are in modules
# `..._systems`, which import no Keras: wrong settings are answered at once.
SYSTEMS: Registry[System] = Registry(
    {
        "biam": "biam_tf.models.presets:BIAM",
        "conse": "biam_tf.baselines.class_embedding_systems:CONSE",
        "backbone_classes": "biam_tf.baselines.class_embedding_systems:BACKBONE_CLASSES",
        "clip": "biam_tf.baselines.image_text_systems:CLIP",
        "eszsl": "biam_tf.baselines.class_embedding_systems:ESZSL",
        "fast0tag": "biam_tf.baselines.class_embedding_systems:FAST0TAG",
        "fast0tag_linear": "biam_tf.baselines.class_embedding_systems:FAST0TAG_LINEAR",
        "label_em": "biam_tf.baselines.class_embedding_systems:LABEL_EM",
        "attention_per_label": "biam_tf.baselines.class_embedding_systems:ATTENTION_PER_LABEL",
        "attention_per_cluster": "biam_tf.baselines.class_embedding_systems:ATTENTION_PER_CLUSTER",
        "lesa": "biam_tf.baselines.class_embedding_systems:LESA",
        "sdl": "biam_tf.baselines.query_systems:SDL",
        "ml_decoder": "biam_tf.baselines.query_systems:ML_DECODER",
        "query_sharing": "biam_tf.baselines.query_systems:QUERY_SHARING",
        "mkt": "biam_tf.baselines.image_text_systems:MKT",
        "dual_prompt": "biam_tf.baselines.image_text_systems:DUAL_PROMPT",
        "ot_match": "biam_tf.baselines.image_text_systems:OT_MATCH",
        "logistic": "biam_tf.baselines.known_class_systems:LOGISTIC",
        "warp": "biam_tf.baselines.known_class_systems:WARP",
        "wsabie": "biam_tf.baselines.known_class_systems:WSABIE",
        "cnn_rnn": "biam_tf.baselines.known_class_systems:CNN_RNN",
    }
)


def register_layers() -> None:
    """Imports the layers of all systems and context blocks, so that Keras can read their models."""
    import biam_tf.layers  # noqa: F401

    for system in SYSTEMS.values():
        import_late(system.build)


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
    joint_space: JointSpace | None = None,
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
        joint_space: the space of images and texts that the features are in, which the system
            `clip` is built from. Defaults to `None`.
        **settings: settings that replace the preset's.

    Returns:
        A model with the inputs and the output `scores` of `build_head`.

    Raises:
        ValueError: a name or a setting is unknown or not valid, or does not fit the shapes.
    """
    system = find_system(name)
    inputs = HeadInputs.of_shapes(
        region_shape, scene_size, embedding_size, seen_embeddings, backbone_classes, joint_space
    )
    return inputs.model(system.build(inputs, system.settings(preset, **settings)))
