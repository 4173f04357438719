"""Image backbones of KerasHub, from presets, which hold their settings and weights.

The files of a preset, and where they are looked for: `biam_tf.backbones.preset_folder`.
"""

import inspect
import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import layers

from biam_tf.backbones.classifier import BackboneClassifier
from biam_tf.backbones.joint_space import (
    is_image_text_model,
    joint_network,
    set_logits,
)
from biam_tf.backbones.preset_folder import (
    CONVERTER,
    PresetFolder,
    first_line,
    import_keras_hub,
)
from biam_tf.backbones.preset_network import (
    PresetNetwork,
    feature_function,
    last_output,
    token_grid,
)
from biam_tf.backbones.spec import JOINT, TOKENS, BackboneSpec


def read_spec(name: str, regions: str | None = None) -> BackboneSpec:
    """Finds the preset of the backbone `keras_hub:PRESET` and reads its settings.

    Args:
        name: PRESET is a folder, as `save_to_preset` writes it, or a name in KerasHub's list.
        regions: `"joint"` (features in the space of the text embeddings of an image-text model),
            `"tokens"` (the last tokens or feature map of the image network); `None`: `"joint"` for
            image-text models, `"tokens"` for others.

    Raises:
        UserError: KerasHub is not installed, or the preset is not on this machine or not that of
            an image backbone.
    """
    preset = _Preset(name, regions)
    return BackboneSpec(
        name=name,
        description=f"{preset.kind.__name__} of KerasHub, {preset.folder}",
        build=preset.build,
        default_image_size=preset.image_size,
        image_size_step=math.lcm(*preset.patch_size) if preset.patch_size else 1,
        load_preset=preset.load_backbone_weights,
        check_trainable=preset.check_trainable,
        regions=preset.regions,
        load_classifier=lambda file: preset.load_classifier(),
    )


class _Preset(PresetFolder):
    """A preset's folder, and the backbone that is built from it.

    The whole model is kept to load the weights, of which the backbone may be a part only: the
    image encoder of a model of images and texts.
    """

    def __init__(self, name: str, regions: str | None):
        super().__init__(name)
        encoder: dict[str, Any] = (self.config.get("vision_encoder") or {}).get(
            "config", self.config
        )
        patch_size = encoder.get("patch_size")
        self.patch_size = (patch_size,) * 2 if isinstance(patch_size, int) else patch_size
        self.positions = encoder.get("position_embedding_shape")
        self.converter = self._read_converter()
        self.image_size = self._default_image_size(encoder.get("image_shape"))
        joint = is_image_text_model(self.kind)
        self.regions = regions or (JOINT if joint else TOKENS)
        if self.regions == JOINT and not joint:
            raise self.error(
                f"regions {JOINT!r} are those of models of images and texts (CLIP, MetaCLIP 2, "
                f"SigLIP, SigLIP 2), and this is a {self.kind.__name__}; use {TOKENS!r}"
            )

    def build(self, image_size: int) -> keras.Model:
        """Builds the backbone with random weights.

        With regions `"joint"`, region features and scene feature are in the space of the model's
        text embeddings. Else `region_features` are the network's last feature map, or its tokens
        on their grid, without class, register and distillation tokens; `scene_feature` is the
        pooled output of the network, else its class token, else the mean of the regions.
        """
        network = self._build_network(image_size)
        grid, others = self._regions(network, image_size)
        # === Functional Model ===
        images = keras.Input((image_size, image_size, 3), dtype="float32", name="images")
        x = self._preprocessed(images)
        if self.regions == JOINT:
            outputs = joint_network(self._model, grid, others)(x)
        else:
            outputs = PresetNetwork(network, grid, others, name="network")(x)
        # A preset's name may have characters that are not valid in a model's.
        return keras.Model(images, outputs, name="keras_hub")

    def load_backbone_weights(self, model: keras.Model) -> None:
        """Loads the preset's weights into the last model of `build`."""
        size, hint = model.input_shape[1], ""
        if size != self.image_size:
            hint = f"; the weights may fit {self.image_size}x{self.image_size} pictures only"
        self.load_weights(self._model, f" for {size}x{size} pictures", hint)
        if self.regions == JOINT:
            set_logits(model.get_layer("network"), self._model)

    def load_classifier(self) -> BackboneClassifier:
        """Returns the classifier that was saved with the preset.

        Raises:
            UserError: there is none, or one that cannot be taken.
        """
        from biam_tf.backbones.keras_hub_classifiers import read_classifier

        if self.image_size is None:
            raise self.error("it has no default picture size, at which its classifier is tried")
        backbone = self.build(self.image_size)
        self.load_backbone_weights(backbone)
        return read_classifier(self.folder, backbone, self.name)

    def check_trainable(self, image_size: int) -> None:
        """Raises for a size at which a trained model would differ after saving and loading."""
        if self.positions and tuple(self.positions[:2]) != (image_size, image_size):
            raise self.error(
                f"{self.kind.__name__} cannot be trained on {image_size}x{image_size} pictures: "
                f"KerasHub stores its position embeddings for {self.positions[0]}x"
                f"{self.positions[1]} only and would interpolate the trained ones twice; use that "
                "image_size, or do not train the backbone"
            )

    def _build_network(self, image_size: int) -> keras.Model:
        """Returns the part of the preset's model whose input is pictures."""
        settings: dict[str, Any] = {}
        if "image_shape" in inspect.signature(self.kind).parameters:
            settings["image_shape"] = (image_size, image_size, 3)
        try:
            self._model = self.build_model(**settings)
        except (ValueError, TypeError, KeyError) as error:
            raise self.error(
                f"{self.kind.__name__} cannot be built for {image_size}x{image_size} pictures "
                f"({first_line(error)})"
            ) from error
        network = getattr(self._model, "vision_encoder", None) or self._model
        taken = [tensor.shape[1:] for tensor in network.inputs]
        if taken not in ([(image_size, image_size, 3)], [(None, None, 3)]):
            raise self.error(
                f"{self.kind.__name__} has inputs {', '.join(map(str, taken))} instead of pictures "
                f"({image_size}, {image_size}, 3)"
            )
        output = last_output(network)
        rank = len(output.shape) if isinstance(output, keras.KerasTensor) else None
        if rank not in (3, 4) and not (rank == 2 and hasattr(network, "head")):
            raise self.error(
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
            raise self.error(f"{self.kind.__name__}: {error}") from error
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
            converter = keras.saving.deserialize_keras_object(self.read(CONVERTER))
        except (ValueError, TypeError, KeyError) as error:
            raise self.error(
                f"{self.folder / CONVERTER} cannot be read ({first_line(error)})"
            ) from error
        if not isinstance(converter, import_keras_hub().layers.ImageConverter):
            raise self.error(f"{self.folder / CONVERTER} is not an image converter")
        return converter

    def _default_image_size(self, image_shape: Sequence[int | None] | None) -> int | None:
        size = self.converter.image_size or (image_shape or (None,))[:2]
        if len(set(size)) > 1:
            raise self.error(f"its pictures are of size {size}; only square ones are supported")
        return size[0]
