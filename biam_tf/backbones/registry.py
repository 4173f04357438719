"""The backbones by name, and how they are built.

A new backbone is one module with its `BackboneSpec` and one item of `BACKBONES`, or, outside of
this package, one line: `BACKBONES["my_backbone"] = my_module.SPEC`.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import re
import zipfile
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from biam_tf.errors import UserError, did_you_mean
from biam_tf.files import read_model
from biam_tf.registries import Registry

if TYPE_CHECKING:  # names are checked without Keras
    import keras

    from biam_tf.backbones.classifier import BackboneClassifier
    from biam_tf.backbones.spec import BackboneSpec

BACKBONES: Registry[BackboneSpec] = Registry(
    {
        name: f"biam_tf.backbones.{name}:SPEC"
        for name in ("vgg19", "resnet50", "efficientnet_lite0", "small")
    }
)
# Of these, the ones with ImageNet weights, which is asked before a backbone is imported.
_WITH_IMAGENET = {"vgg19": True, "resnet50": False, "efficientnet_lite0": True, "small": False}
_PRESET_PREFIX = "keras_hub:"


def build_backbone(
    name: str,
    image_size: int | None = None,
    weights: str | os.PathLike | None = "default",
    trainable: bool = False,
    regions: str | None = None,
) -> keras.Model:
    """Builds the backbone `name`, which includes its preprocessing.

    Args:
        name: a name in `BACKBONES`, or `keras_hub:PRESET` for an image backbone of KerasHub:
            PRESET is the folder of a preset, or its name if it is in the cache of kagglehub.
        image_size: side S of the square pictures. Defaults to `None`: the backbone's own.
        weights: `"default"` (or `None`: those of the preset, or pretrained if there are any, else
            random), `"imagenet"`, `"none"` (random), or a file: one written by `save_weights`
            (`.weights.h5`) or `save` (`.keras`) of the same backbone, or one in the format of its
            published weights (`vgg19`: the `.h5` of keras.applications; `efficientnet_lite0`,
            `resnet50`: a `.pth`). Defaults to `"default"`.
        trainable: whether training changes it. If not, its batch normalization stays in
            inference mode too. Defaults to `False`.
        regions: of a model of images and texts, `"joint"` (features in the space of its text
            embeddings) or `"tokens"` (the last tokens of its image encoder). Defaults to `None`:
            `"joint"` for such a model; others have `"tokens"` alone.

    Returns:
        A `keras.Model` from `images` `(batch, S, S, 3)`, raw RGB values 0 to 255, to a
        dictionary of `region_features` `(batch, height, width, channels)` and `scene_feature`
        `(batch, scene_size)`. It contains no Python code of its own and can be saved as `.keras`,
        which `load_backbone` reads.

    Raises:
        UserError: the name is unknown, the picture size is not possible, or the weights are
            missing or do not fit.
    """
    spec = _find_spec(name, regions)
    image_size = _checked_image_size(
        spec, spec.default_image_size if image_size is None else image_size
    )
    if trainable and spec.check_trainable:
        spec.check_trainable(image_size)
    load = _weights_loader(spec, "default" if weights is None else weights)
    model = spec.build(image_size)
    load(model)
    model.trainable = trainable
    return model


def load_classifier(name: str, weights: str | os.PathLike | None = "default") -> BackboneClassifier:
    """Returns the classifier that was trained together with a backbone's weights.

    Args:
        name: as for `build_backbone`.
        weights: likewise.

    Raises:
        UserError: the backbone or these weights come without one, or are not on this machine.
    """
    spec = _find_spec(name)
    weights = "default" if weights is None else weights
    own = "default" if spec.load_preset else "imagenet"
    if spec.load_classifier is None:
        have = ", ".join(n for n, other in BACKBONES.items() if other.load_classifier)
        raise UserError(
            f"backbone {name}: it has no classifier of its own; backbones with one: {have}"
        )
    if weights in ("default", own):
        return spec.load_classifier(None)
    path = pathlib.Path(weights)
    if weights == "none" or not path.is_file() or path.suffix not in spec.published_files:
        kinds = " or ".join(spec.published_files)
        raise UserError(
            f"backbone {name}: weights {str(weights)!r} come without the classifier that was "
            f"trained with them; use {own!r}{f', or a {kinds} file' if kinds else ''}"
        )
    return spec.load_classifier(path)


def load_backbone(name: str, path: str | os.PathLike) -> keras.Model:
    """Reads a backbone that was saved as `.keras`.

    Args:
        name: the name it was built with.
        path: the file.

    Raises:
        UserError: its layers are those of KerasHub, which is not installed, or the file is
            damaged.
    """
    if _is_preset(name):
        from biam_tf.backbones.joint_space import JointSpaceNetwork  # noqa: F401
        from biam_tf.backbones.preset_folder import import_keras_hub
        from biam_tf.backbones.preset_network import PresetNetwork  # noqa: F401

        import_keras_hub()  # registers its layers, as the modules above do theirs
    return read_model(path, "bring it back from a copy, or train again")


def is_backbone(name: str) -> bool:
    """Whether there is a backbone of this name; presets of KerasHub are not checked to exist."""
    return name in BACKBONES or _is_preset(name)


def is_pretrained(name: str) -> bool:
    """Whether the weights `"default"` of the backbone `name` are pretrained; reads no file."""
    if name in _WITH_IMAGENET:
        return _WITH_IMAGENET[name]
    return _is_preset(name) or BACKBONES[name].load_imagenet is not None


def is_in_space_of_texts(name: str, regions: str | None = None) -> bool:
    """Whether a backbone's features are in the space of an image-text model's text embeddings.

    Args:
        name: of the backbone.
        regions: as for `build_backbone`.

    Raises:
        UserError: there is no such backbone, or not with these regions.
    """
    return _is_preset(name) and _find_spec(name, regions).regions == "joint"


def _is_preset(name: str) -> bool:
    """Whether `name` has the form `keras_hub:PRESET`."""
    return name.startswith(_PRESET_PREFIX)


def _find_spec(name: str, regions: str | None = None) -> BackboneSpec:
    if _is_preset(name):
        from biam_tf.backbones.keras_hub_presets import read_spec

        return read_spec(name, regions)
    if name not in BACKBONES:
        raise UserError(f"backbone {name!r} is unknown{did_you_mean(name, BACKBONES)}")
    spec = BACKBONES[name]
    if regions not in (None, spec.regions):
        raise UserError(
            f"backbone {name}: regions {regions!r} are those of presets of image-text models, such "
            "as keras_hub:siglip2_base_patch16_224"
        )
    return spec


def _checked_image_size(spec: BackboneSpec, image_size: int | None) -> int:
    if image_size is None:
        raise UserError(f"backbone {spec.name}: it has no default picture size; set image_size")
    valid = isinstance(image_size, int) and image_size >= spec.image_size_step
    if spec.fixed_image_size:
        if image_size != spec.default_image_size:
            raise UserError(
                f"backbone {spec.name}: image_size {image_size!r} is not possible: "
                f"{spec.fixed_image_size}; use {spec.default_image_size}, or another backbone "
                "for another size"
            )
    elif not valid or image_size % spec.image_size_step:
        raise UserError(
            f"backbone {spec.name}: image_size must be a multiple of {spec.image_size_step}; "
            f"got {image_size!r}"
        )
    return image_size


def _weights_loader(
    spec: BackboneSpec, weights: str | os.PathLike
) -> Callable[[keras.Model], None]:
    """Returns the function that loads `weights` into the model; a wrong name raises here."""
    if weights == "default" and spec.load_preset:
        return spec.load_preset
    if weights == "default":
        weights = "imagenet" if spec.load_imagenet else "none"
    if weights == "none":
        return lambda model: None
    if weights == "imagenet":
        if spec.load_imagenet is None:
            preset = "'default' (the preset's), " if spec.load_preset else ""
            raise UserError(
                f"backbone {spec.name} has no ImageNet weights; use weights {preset}'none' "
                "(random) or a file"
            )
        return spec.load_imagenet

    path = pathlib.Path(weights)
    if not path.is_file():
        known = ("default", "imagenet", "none")
        hint = did_you_mean(str(weights), known) if len(path.parts) == 1 else ""
        raise UserError(f"backbone {spec.name}: weights {str(weights)!r}: no such file{hint}")
    if path.name.endswith((".weights.h5", ".keras")):
        return lambda model: _load_keras_weights(model, path)
    load_file = spec.load_file
    if load_file is not None and path.suffix in spec.published_files:
        return lambda model: load_file(model, path)
    kinds = ", ".join((".weights.h5", ".keras", *spec.published_files))
    raise UserError(
        f"backbone {spec.name}: weights {str(path)!r}: unknown format; it can read {kinds}"
    )


def _load_keras_weights(model: keras.Model, path: pathlib.Path) -> None:
    try:
        model.load_weights(path)
    except (ValueError, OSError, KeyError, zipfile.BadZipFile) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{path}: not weights of the backbone {model.name!r} ({reason})") from error


def weights_fingerprint(model: keras.Model) -> str:
    """Returns 16 hexadecimal digits that identify these weights.

    They are computed from the names, the shapes and every bit of the weights, so that features
    stored under one fingerprint are never used as those of another backbone, and from scale and
    offset of the pixels, which a preset's files define like its weights.
    """
    import keras

    from biam_tf.backbones.joint_space import JointSpaceNetwork
    from biam_tf.backbones.preset_network import PresetNetwork

    digest = hashlib.sha256()
    for weight in model.weights:
        array = keras.ops.convert_to_numpy(weight)
        # Keras numbers unnamed layers by how many were built before in the same process.
        path = re.sub(r"_\d+(?=/|$)", "", weight.path)
        digest.update(f"{path} {array.dtype.name} {array.shape}\n".encode())
        digest.update(array.tobytes())
    if any(isinstance(layer, (PresetNetwork, JointSpaceNetwork)) for layer in model.layers):
        for layer in model.layers:
            if isinstance(layer, keras.layers.Rescaling):
                digest.update(np.float64(layer.scale).tobytes())
                digest.update(np.float64(layer.offset).tobytes())
    return digest.hexdigest()[:16]
