"""Image backbones of KerasHub, from presets, which hold their settings and weights.

A preset is a folder: the user's, or that of a listed name in the cache of kagglehub. Nothing is
downloaded here: the error for a preset that is not on this machine says how to get it.
"""

import inspect
import json
import math
import os
import pathlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import keras
import tensorflow as tf
from keras import layers

from biam_tf.backbones.preset_network import (
    PresetNetwork,
    feature_function,
    last_output,
    token_grid,
)
from biam_tf.backbones.spec import BackboneSpec
from biam_tf.errors import UserError, did_you_mean

PREFIX = "keras_hub:"
MODEL, CONVERTER = "config.json", "image_converter.json"
WEIGHTS = ("model.weights.h5", "model.weights.json")  # the latter lists several files


def import_keras_hub() -> ModuleType:
    """Returns the package, whose import registers its layers with Keras.

    Raises:
        UserError: the package, or one of its dependencies, is not installed.
    """
    try:
        import keras_hub
    except ImportError as error:
        raise UserError(
            f"backbones {PREFIX}PRESET need the package keras-hub ({error}); run "
            "pip install 'biam-tf[keras-hub]'"
        ) from error
    return keras_hub


def read_spec(name: str) -> BackboneSpec:
    """Finds the preset of the backbone `keras_hub:PRESET` and reads its settings.

    Args:
        name: PRESET is a folder, as `save_to_preset` writes it, or a name in KerasHub's list.

    Raises:
        UserError: KerasHub is not installed, or the preset is not on this machine or not that of
            an image backbone.
    """
    preset = _Preset(name)
    return BackboneSpec(
        name=name,
        description=f"{preset.kind.__name__} of KerasHub, {preset.folder}",
        build=preset.build,
        default_image_size=preset.image_size,
        image_size_step=math.lcm(*preset.patch_size) if preset.patch_size else 1,
        load_preset=preset.load_weights,
        check_trainable=preset.check_trainable,
    )


class _Preset:
    """A preset's folder, and the model of KerasHub that is built from it.

    The whole model is kept to load the weights, of which the backbone may be a part only: the
    image encoder of a model of images and texts.
    """

    def __init__(self, name: str):
        self.name = name
        self.folder = _find_folder(name)
        model = self._read(MODEL)
        if not isinstance(model, dict) or "registered_name" not in model:
            raise self._error(
                f"{self.folder / MODEL} is not part of a KerasHub preset; load the model with "
                "KerasHub and write it with save_to_preset"
            )
        self.kind = keras.saving.get_registered_object(model["registered_name"])
        if not inspect.isclass(self.kind):
            raise self._error(
                f"this KerasHub has no {model['registered_name']}; a newer version may have it"
            )
        fields: dict[str, Any] = model["config"]
        encoder: dict[str, Any] = (fields.get("vision_encoder") or {}).get("config", fields)
        patch_size = encoder.get("patch_size")
        self.patch_size = (patch_size,) * 2 if isinstance(patch_size, int) else patch_size
        self.positions = encoder.get("position_embedding_shape")
        self.converter = self._read_converter()
        self.image_size = self._default_image_size(encoder.get("image_shape"))

    def build(self, image_size: int) -> keras.Model:
        """Builds the backbone with random weights.

        `region_features` are the network's last feature map, or its tokens on their grid, without
        class, register and distillation tokens. `scene_feature` is the pooled output of the
        network, else its class token, else the mean of the regions.
        """
        network = self._build_network(image_size)
        grid, others = self._regions(network, image_size)
        # === Functional Model ===
        images = keras.Input((image_size, image_size, 3), dtype="float32", name="images")
        x = self._preprocessed(images)
        outputs = PresetNetwork(network, grid, others, name="network")(x)
        # A preset's name may have characters that are not valid in a model's.
        return keras.Model(images, outputs, name="keras_hub")

    def load_weights(self, model: keras.Model) -> None:
        """Loads the preset's weights into the last model of `build`."""
        file = next((self.folder / name for name in WEIGHTS if (self.folder / name).exists()), None)
        if file is None:
            raise self._error(f"no weights in {self.folder}; expected {' or '.join(WEIGHTS)}")
        try:
            self._model.load_weights(file)
        except (ValueError, OSError, KeyError) as error:
            size, hint = model.input_shape[1], ""
            if size != self.image_size:
                hint = f"; the weights may fit {self.image_size}x{self.image_size} pictures only"
            raise self._error(
                f"{file} does not fit {self.kind.__name__} for {size}x{size} pictures{hint} "
                f"({_first_line(error)})"
            ) from error

    def check_trainable(self, image_size: int) -> None:
        """Raises for a size at which a trained model would differ after saving and loading."""
        if self.positions and tuple(self.positions[:2]) != (image_size, image_size):
            raise self._error(
                f"{self.kind.__name__} cannot be trained on {image_size}x{image_size} pictures: "
                f"KerasHub stores its position embeddings for {self.positions[0]}x"
                f"{self.positions[1]} only and would interpolate the trained ones twice; use that "
                "image_size, or do not train the backbone"
            )

    def _build_network(self, image_size: int) -> keras.Model:
        """Returns the part of the preset's model whose input is pictures."""
        # The current policy, whatever the dtype of the stored weights.
        settings: dict[str, Any] = {"dtype": keras.config.dtype_policy().name}
        if "image_shape" in inspect.signature(self.kind).parameters:
            settings["image_shape"] = (image_size, image_size, 3)
        try:
            # An absolute path is not a name in KerasHub's list, so that nothing is downloaded.
            self._model = import_keras_hub().models.Backbone.from_preset(
                str(self.folder.absolute()), load_weights=False, **settings
            )
        except (ValueError, TypeError, KeyError) as error:
            raise self._error(
                f"{self.kind.__name__} cannot be built for {image_size}x{image_size} pictures "
                f"({_first_line(error)})"
            ) from error
        network = getattr(self._model, "vision_encoder", None) or self._model
        taken = [tensor.shape[1:] for tensor in network.inputs]
        if taken not in ([(image_size, image_size, 3)], [(None, None, 3)]):
            raise self._error(
                f"{self.kind.__name__} has inputs {', '.join(map(str, taken))} instead of pictures "
                f"({image_size}, {image_size}, 3)"
            )
        output = last_output(network)
        rank = len(output.shape) if isinstance(output, keras.KerasTensor) else None
        if rank not in (3, 4) and not (rank == 2 and hasattr(network, "head")):
            raise self._error(
                f"{self.kind.__name__} outputs neither a feature map nor tokens, and so no regions"
            )
        return network

    def _regions(self, network: keras.Model, image_size: int) -> tuple[tuple[int, int], int]:
        """Returns the grid of regions, and the number of tokens before it."""
        # Traced, because some of KerasHub's layers declare wrong shapes.
        picture = tf.TensorSpec((1, image_size, image_size, 3), network.inputs[0].dtype)
        features = feature_function(network)
        traced = tf.function(features, autograph=False).get_concrete_function(picture)
        shape = traced.output_shapes["features"]
        if len(shape) == 4:
            return tuple(shape[1:3]), 0
        try:
            grid = token_grid(shape[1], image_size, self.patch_size)
        except ValueError as error:
            raise self._error(f"{self.kind.__name__}: {error}") from error
        return grid, shape[1] - math.prod(grid)

    def _preprocessed(self, images: keras.KerasTensor) -> keras.KerasTensor:
        """Returns the pictures scaled and shifted as in the network's training.

        They are not resized: photos are resized in one way for all backbones.
        """
        scale, offset = self.converter.scale, self.converter.offset
        if scale is None and offset is None:
            return images
        return layers.Rescaling(
            1.0 if scale is None else scale,
            offset=0.0 if offset is None else offset,
            dtype="float32",
            name="rescaling",
        )(images)

    def _read_converter(self) -> Any:
        try:
            converter = keras.saving.deserialize_keras_object(self._read(CONVERTER))
        except (ValueError, TypeError, KeyError) as error:
            raise self._error(
                f"{self.folder / CONVERTER} cannot be read ({_first_line(error)})"
            ) from error
        if not isinstance(converter, import_keras_hub().layers.ImageConverter):
            raise self._error(f"{self.folder / CONVERTER} is not an image converter")
        return converter

    def _default_image_size(self, image_shape: Sequence[int | None] | None) -> int | None:
        size = self.converter.image_size or (image_shape or (None,))[:2]
        if len(set(size)) > 1:
            raise self._error(f"its pictures are of size {size}; only square ones are supported")
        return size[0]

    def _read(self, name: str) -> Any:
        file = self.folder / name
        try:
            return json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise self._error(
                f"{self.folder} has no {name}; a preset has {MODEL}, {CONVERTER} and weights, "
                "written by save_to_preset of a model of KerasHub and of its image converter"
            ) from None
        except (OSError, ValueError) as error:
            raise self._error(f"{file} cannot be read ({error})") from error

    def _error(self, problem: str) -> UserError:
        return UserError(f"backbone {self.name}: {problem}")


def _find_folder(name: str) -> pathlib.Path:
    preset = name.removeprefix(PREFIX)
    listed = import_keras_hub().models.Backbone.presets
    folder = pathlib.Path(os.path.expanduser(preset))
    if preset and folder.is_dir():
        return folder
    if preset not in listed:
        hint = did_you_mean(preset, listed) if preset and len(folder.parts) == 1 else ""
        raise UserError(
            f"backbone {name}: {preset!r} is neither a folder nor the name of a preset of the "
            f"installed KerasHub{hint}"
        )
    handle = listed[preset]["kaggle_handle"].removeprefix("kaggle://")
    cache = pathlib.Path(os.environ.get("KAGGLEHUB_CACHE", "~/.cache/kagglehub")).expanduser()
    folder = cache / "models" / handle
    if not folder.is_dir():
        raise UserError(
            f"backbone {name}: the preset is not on this machine ({folder}), and is not "
            "downloaded automatically. Download it with\n"
            f"  python -c \"import kagglehub; print(kagglehub.model_download('{handle}'))\"\n"
            f"on a machine with internet access, copy the folder that it prints, and name it as "
            f"{PREFIX}FOLDER"
        )
    return folder


def _first_line(error: Exception) -> str:
    return (str(error).strip() or repr(error)).splitlines()[0]
