"""The backbones by name, and the one way to build them."""

import hashlib
import os
import pathlib
import re
import zipfile
from collections.abc import Mapping
from types import MappingProxyType

import keras
import numpy as np

from biam_tf.backbones import efficientnet_lite0, keras_hub_presets, resnet50, small, vgg19
from biam_tf.backbones.preset_network import PresetNetwork
from biam_tf.backbones.spec import BackboneSpec
from biam_tf.errors import UserError, did_you_mean

BACKBONES: Mapping[str, BackboneSpec] = MappingProxyType(
    {spec.name: spec for spec in (vgg19.SPEC, resnet50.SPEC, efficientnet_lite0.SPEC, small.SPEC)}
)


def build_backbone(
    name: str,
    image_size: int | None = None,
    weights: str | os.PathLike | None = "default",
    trainable: bool = False,
) -> keras.Model:
    """Builds the backbone `name`, which owns its preprocessing.

    Args:
        name: a name in `BACKBONES`, or `keras_hub:PRESET` for an image backbone of KerasHub:
            PRESET is a preset's folder, or its name where kagglehub has it in its cache.
        image_size: side S of the square pictures; `None`: the backbone's own.
        weights: `"default"` (or `None`: the preset's, or pretrained where there are such, else
            random), `"imagenet"`, `"none"` (random), or a file: one written by `save_weights`
            (`.weights.h5`) or `save` (`.keras`) of the same backbone, or one in the form its
            pretrained weights are published in (`vgg19`: the `.h5` of keras.applications;
            `efficientnet_lite0`, `resnet50`: a `.pth`).
        trainable: whether training changes it. If not, its batch normalization stays in
            inference mode too.

    Returns:
        A `keras.Model` from `images` `(batch, S, S, 3)`, raw RGB values 0 to 255, to a
        dictionary of `region_features` `(batch, height, width, channels)` and `scene_feature`
        `(batch, scene_size)`. It contains no Python code of its own and is saved as `.keras`,
        which `load_backbone` reads.

    Raises:
        UserError: an unknown name, a picture size it can't take, weights that are not there or
            do not fit.
    """
    spec = _find_spec(name)
    image_size = spec.default_image_size if image_size is None else image_size
    _check_image_size(spec, image_size)
    if trainable and spec.check_trainable:
        spec.check_trainable(image_size)
    load = _weights_loader(spec, "default" if weights is None else weights)
    model = spec.build(image_size)
    load(model)
    model.trainable = trainable
    return model


def load_backbone(name: str, path: str | os.PathLike) -> keras.Model:
    """Reads a backbone that was saved as `.keras`.

    Args:
        name: what it was built with.
        path: the file.

    Raises:
        UserError: its layers are KerasHub's, which is not installed.
    """
    if keras_hub_presets.is_preset(name):
        keras_hub_presets.import_keras_hub()  # without it, Keras does not know the layers
    return keras.models.load_model(path)


def is_backbone(name: str) -> bool:
    """Whether there is a backbone of this name; presets of KerasHub are not looked for."""
    return name in BACKBONES or keras_hub_presets.is_preset(name)


def is_pretrained(name: str) -> bool:
    """Whether the weights `"default"` of the backbone `name` are not random; reads no file."""
    return keras_hub_presets.is_preset(name) or BACKBONES[name].load_imagenet is not None


def _find_spec(name: str) -> BackboneSpec:
    if keras_hub_presets.is_preset(name):
        return keras_hub_presets.read_spec(name)
    if name not in BACKBONES:
        raise UserError(f"backbone {name!r} is unknown{did_you_mean(name, BACKBONES)}")
    return BACKBONES[name]


def _check_image_size(spec: BackboneSpec, image_size: int | None) -> None:
    if image_size is None:
        raise UserError(f"backbone {spec.name}: it names no size of pictures; set image_size")
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


def _weights_loader(spec: BackboneSpec, weights: str | os.PathLike):
    """Returns the function that puts `weights` into the model; a wrong name fails here."""
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
    if path.suffix in spec.published_files:
        return lambda model: spec.load_file(model, path)
    kinds = ", ".join((".weights.h5", ".keras", *spec.published_files))
    raise UserError(
        f"backbone {spec.name}: weights {str(path)!r}: unknown kind of file; it can read {kinds}"
    )


def _load_keras_weights(model: keras.Model, path: pathlib.Path) -> None:
    try:
        model.load_weights(path)
    except (ValueError, OSError, KeyError, zipfile.BadZipFile) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"{path}: these are not weights of the backbone {model.name!r} ({reason})"
        ) from error


def weights_fingerprint(model: keras.Model) -> str:
    """Returns 16 hexadecimal digits that tell these weights from any others.

    The names of the weights, their shapes and every bit of their values go into it, so that
    features stored under one fingerprint are never taken for another backbone's. So do scale and
    offset of a preset's pixels, which a file says as it says the weights.
    """
    digest = hashlib.sha256()
    for weight in model.weights:
        array = keras.ops.convert_to_numpy(weight)
        # What nobody named, Keras numbers by what was built before in the same process.
        path = re.sub(r"_\d+(?=/|$)", "", weight.path)
        digest.update(f"{path} {array.dtype.name} {array.shape}\n".encode())
        digest.update(array.tobytes())
    if any(isinstance(layer, PresetNetwork) for layer in model.layers):
        for layer in model.layers:
            if isinstance(layer, keras.layers.Rescaling):
                digest.update(np.float64(layer.scale).tobytes())
                digest.update(np.float64(layer.offset).tobytes())
    return digest.hexdigest()[:16]
