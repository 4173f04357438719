"""Converts image-text models as Hugging Face publishes them to presets of KerasHub.

config.json               sizes; model_type is clip, metaclip_2 or siglip (also of SigLIP 2)
model.safetensors         the weights, by the names of the library transformers; or
model.safetensors.index.json, with the shards that it lists
preprocessor_config.json  mean and deviation of the pixels; without it, as published
tokenizer.json            the tokenizer of CLIP, and of SigLIP if it is one of unigrams
spiece.model, tokenizer.model, sentencepiece.bpe.model
                          the SentencePiece model of SigLIP, SigLIP 2, MetaCLIP 2

PyTorch is not needed: safetensors reads the weights as NumPy arrays. A setting that KerasHub's
model cannot have is an error, not a model that computes something else.
"""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from biam_tf.backbones.hugging_face_tokenizers import (
    clip_tokenizer,
    metaclip_2_tokenizer,
    read_json,
    siglip_tokenizer,
)
from biam_tf.backbones.hugging_face_weights import as_floats, read_arrays
from biam_tf.backbones.preset_folder import first_line, import_keras_hub
from biam_tf.errors import UserError
from biam_tf.files import replacing

CONFIG, PIXELS = "config.json", "preprocessor_config.json"
# Of the published models: mean and standard deviation of pixels from 0 to 1.
_PIXELS = {
    "clip": ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]),
    "siglip": ([0.5] * 3, [0.5] * 3),
}
_PIXELS["metaclip_2"] = _PIXELS["clip"]
_ACTIVATIONS = {"gelu_pytorch_tanh": "gelu_approximate", "gelu_new": "gelu_approximate"}
# What the configurations leave out where it is as in the first published model.
_CLIP_TEXT = {
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}
_SIGLIP_TEXT = {
    "vocab_size": 32000,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 64,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
}
_VISION = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
}
_CLIP_VISION = _VISION | {"patch_size": 32, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
_SIGLIP_VISION = _VISION | {
    "patch_size": 16,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
}
_DEFAULTS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "clip": {"text_config": _CLIP_TEXT, "vision_config": _CLIP_VISION},
    "metaclip_2": {"text_config": _CLIP_TEXT, "vision_config": _CLIP_VISION},
    "siglip": {"text_config": _SIGLIP_TEXT, "vision_config": _SIGLIP_VISION},
}
_NOT_WEIGHTS = ("position_ids",)


def convert(folder: pathlib.Path, target: pathlib.Path) -> str:
    """Writes the preset of a model that Hugging Face publishes.

    Args:
        folder: with the model's files.
        target: the preset's folder to create.

    Returns:
        What was converted, in words.

    Raises:
        UserError: a file is missing or damaged, the model is of another architecture, or the
            target exists.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target} exists already; nothing was changed. Choose another folder")
    config = read_json(folder / CONFIG)
    kind = config.get("model_type") if isinstance(config, dict) else None
    if not isinstance(kind, str) or kind not in _DEFAULTS:
        raise UserError(
            f"{folder / CONFIG}: model_type is {kind!r}; models of the types clip, metaclip_2 "
            "and siglip are converted, which those of SigLIP 2 with a fixed picture size are, too"
        )
    model = _build(kind, config, folder / CONFIG)
    _Weights(*read_arrays(folder)).assign_all(kind, model)
    preprocessor = _preprocessor(kind, config, folder, model)
    with replacing(target) as partial:
        model.save_to_preset(str(partial))
        preprocessor.save_to_preset(str(partial))
    size, count = model.vision_encoder.image_shape[0], model.count_params()
    return f"{type(model).__name__}, {size}x{size} pixels, {count:,} parameters"


def _build(kind: str, config: Mapping[str, Any], path: pathlib.Path) -> keras.Model:
    models = import_keras_hub().models
    text, vision = (_part_of(kind, part, config, path) for part in ("text_config", "vision_config"))

    def sizes(part: Mapping[str, Any]) -> dict[str, Any]:
        activation = part["hidden_act"]
        return {
            "hidden_dim": part["hidden_size"],
            "num_layers": part["num_hidden_layers"],
            "num_heads": part["num_attention_heads"],
            "intermediate_dim": part["intermediate_size"],
            "intermediate_activation": _ACTIVATIONS.get(activation, activation),
        }

    pictures = {
        "patch_size": vision["patch_size"],
        "image_shape": (vision["image_size"], vision["image_size"], 3),
    }
    tokens = {
        "vocabulary_size": text["vocab_size"],
        "embedding_dim": text["hidden_size"],
        "max_sequence_length": text["max_position_embeddings"],
    }
    try:
        if kind == "siglip":
            projection = text.get("projection_size") or text["hidden_size"]
            return models.SigLIPBackbone(
                models.SigLIPVisionEncoder(**pictures, **sizes(vision)),
                models.SigLIPTextEncoder(**tokens, **sizes(text), projection_dim=projection),
            )
        name = "CLIP" if kind == "clip" else "MetaCLIP2"
        vision_encoder, text_encoder, backbone = (
            getattr(models, name + part) for part in ("VisionEncoder", "TextEncoder", "Backbone")
        )
        return backbone(
            vision_encoder(**pictures, **sizes(vision)),
            text_encoder(**tokens, **sizes(text)),
            _size(config.get("projection_dim", 512), "projection_dim", path),
        )
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: no model can be built ({first_line(error)})") from error


def _part_of(kind: str, part: str, config: Mapping[str, Any], path: pathlib.Path) -> dict[str, Any]:
    """Returns the settings of the text or image side, checked."""
    given, defaults = config.get(part) or {}, _DEFAULTS[kind][part]
    if not isinstance(given, dict):
        raise UserError(f"{path}: {part} is not a table of settings")
    settings = {**defaults, **given}
    for key, default in defaults.items():
        if isinstance(default, int):
            _size(settings[key], f"{part}.{key}", path)
    # Not settings of KerasHub's layers, or not of all of them.
    fixed = {"layer_norm_eps": defaults["layer_norm_eps"]}
    if kind == "metaclip_2" and part == "text_config":
        fixed["eos_token_id"] = 2
    for key, only in fixed.items():
        if settings.get(key, only) != only:
            raise UserError(
                f"{path}: {part}.{key} is {settings[key]!r}; KerasHub's model has {only!r} alone, "
                "so that this one cannot be converted"
            )
    return settings


def _size(value: Any, name: str, path: pathlib.Path) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError(f"{path}: {name} is {value!r}; expected a whole number, at least 1")
    return value


class _Weights:
    """The arrays of a checkpoint, which are assigned to the layers of KerasHub's model."""

    def __init__(self, arrays: Mapping[str, np.ndarray], path: pathlib.Path):
        self._arrays, self._path = arrays, path
        self._left = {n for n in arrays if not n.endswith(_NOT_WEIGHTS)}

    def assign_all(self, kind: str, model: keras.Model) -> None:
        """Assigns every weight.

        Raises:
            UserError: an array is missing, is not a part of the model, or has another shape.
        """
        vision, text = model.vision_encoder, model.text_encoder
        patches = vision.embedding.patch_embedding
        at = "vision_model.embeddings"
        self._set(patches.kernel, f"{at}.patch_embedding.weight", lambda x: x.transpose(2, 3, 1, 0))
        self._set(vision.embedding.position_embedding.embeddings, f"{at}.position_embedding.weight")
        if kind == "clip":
            # KerasHub's CLIP is built with zeros, and takes the numbers of positions from a file.
            ids = vision.embedding.position_ids
            ids.assign(np.arange(ids.shape[1])[None])
        embedding, at = text.embedding, "text_model.embeddings"
        self._set(embedding.token_embedding.embeddings, f"{at}.token_embedding.weight")
        places = embedding.position_embedding
        own = places.embeddings if kind == "siglip" else places.position_embeddings
        self._set(own, f"{at}.position_embedding.weight")
        assign_layer = self._siglip_layer if kind == "siglip" else self._clip_layer
        for part, name in ((vision, "vision_model"), (text, "text_model")):
            for number, layer in enumerate(part.encoder_layers):
                assign_layer(layer, f"{name}.encoder.layers.{number}")
        if kind != "siglip":
            is_clip = kind == "clip"
            norm = vision.layer_norm if is_clip else model.vision_post_layer_norm
            head = model.clip_head if is_clip else model.metaclip_2_head
            self._set(vision.embedding.class_embedding, "vision_model.embeddings.class_embedding")
            self._norm(vision.pre_layer_norm, "vision_model.pre_layrnorm")  # as it is spelled
            self._norm(norm, "vision_model.post_layernorm")
            self._norm(text.layer_norm, "text_model.final_layer_norm")
            self._dense(model.vision_projection, "visual_projection")
            self._dense(model.text_projection, "text_projection")
            self._set(head.logit_scale, "logit_scale", np.squeeze)
        else:
            self._set(patches.bias, "vision_model.embeddings.patch_embedding.bias")
            self._norm(vision.post_layer_norm, "vision_model.post_layernorm")
            self._norm(text.post_layer_norm, "text_model.final_layer_norm")
            self._dense(text.head, "text_model.head")
            self._pooling(vision.head, "vision_model.head")
            self._set(model.siglip_head.logit_scale, "logit_scale", np.squeeze)
            self._set(model.siglip_head.logit_bias, "logit_bias", np.squeeze)
        if self._left:
            listed = ", ".join(sorted(self._left)[:5])
            raise UserError(
                f"{self._path}: {len(self._left)} arrays have no place in the model of {CONFIG}, "
                f"such as {listed}; the files are of different models"
            )

    def _clip_layer(self, layer: keras.Layer, name: str) -> None:
        self._attention(layer.attention, f"{name}.self_attn", "out_proj")
        self._norm(layer.layer_norm_1, f"{name}.layer_norm1")
        self._norm(layer.layer_norm_2, f"{name}.layer_norm2")
        self._dense(layer.dense_1, f"{name}.mlp.fc1")
        self._dense(layer.dense_2, f"{name}.mlp.fc2")

    def _siglip_layer(self, layer: keras.Layer, name: str) -> None:
        self._attention(layer.self_attn, f"{name}.self_attn", "out_proj")
        self._norm(layer.layer_norm1, f"{name}.layer_norm1")
        self._norm(layer.layer_norm2, f"{name}.layer_norm2")
        self._dense(layer.mlp.fc1, f"{name}.mlp.fc1")
        self._dense(layer.mlp.fc2, f"{name}.mlp.fc2")

    def _pooling(self, head: keras.Layer, name: str) -> None:
        self._set(head.probe, f"{name}.probe")
        for row, part in enumerate(("query", "key", "value")):
            dense = getattr(head.attention, f"{part}_dense")
            self._set(
                dense.kernel,
                f"{name}.attention.in_proj_weight",
                _part(row, _transposed_as(dense.kernel)),
            )
            self._set(
                dense.bias,
                f"{name}.attention.in_proj_bias",
                _part(row, _as(dense.bias)),
            )
        self._out(head.attention, f"{name}.attention.out_proj")
        self._norm(head.layer_norm, f"{name}.layernorm")
        self._dense(head.mlp.fc1, f"{name}.mlp.fc1")
        self._dense(head.mlp.fc2, f"{name}.mlp.fc2")

    def _attention(self, attention: keras.Layer, name: str, out: str) -> None:
        for part in ("query", "key", "value"):
            dense = getattr(attention, f"{part}_dense")
            self._set(
                dense.kernel,
                f"{name}.{part[0]}_proj.weight",
                _transposed_as(dense.kernel),
            )
            self._set(
                dense.bias,
                f"{name}.{part[0]}_proj.bias",
                _as(dense.bias),
            )
        self._out(attention, f"{name}.{out}")

    def _out(self, attention: keras.Layer, name: str) -> None:
        dense = attention.output_dense
        self._set(dense.kernel, f"{name}.weight", _transposed_as(dense.kernel))
        self._set(dense.bias, f"{name}.bias")

    def _norm(self, layer: keras.Layer, name: str) -> None:
        self._set(layer.gamma, f"{name}.weight")
        self._set(layer.beta, f"{name}.bias")

    def _dense(self, layer: keras.Layer, name: str) -> None:
        self._set(layer.kernel, f"{name}.weight", np.transpose)
        if layer.bias is not None:
            self._set(layer.bias, f"{name}.bias")

    def _set(
        self,
        variable: keras.Variable,
        name: str,
        change: Callable[[np.ndarray], np.ndarray] = lambda x: x,
    ) -> None:
        if name not in self._arrays:
            raise UserError(
                f"{self._path}: has no array {name!r}, which the model of {CONFIG} needs"
            )
        try:
            value = change(as_floats(self._arrays[name]))
            if value.shape != tuple(variable.shape):
                raise ValueError(f"shape {value.shape}, not {tuple(variable.shape)}")
        except ValueError as error:
            raise UserError(f"{self._path}: {name!r} does not fit {CONFIG}: {error}") from error
        variable.assign(value)
        self._left.discard(name)


_Change = Callable[[np.ndarray], np.ndarray]


def _as(variable: keras.Variable) -> _Change:
    return lambda x: x.reshape(variable.shape)


def _transposed_as(variable: keras.Variable) -> _Change:
    return lambda x: x.T.reshape(variable.shape)


def _part(row: int, change: _Change) -> _Change:
    """Changes one third of an array: queries, keys and values are stored in one."""
    return lambda x: change(np.split(x, 3)[row])


def _preprocessor(
    kind: str, config: Mapping[str, Any], folder: pathlib.Path, model: keras.Model
) -> Any:
    hub = import_keras_hub()
    converting = {
        "image_size": model.vision_encoder.image_shape[:2],
        "interpolation": "bicubic",
        **_scaling(kind, folder),
    }
    text = model.text_encoder
    length = {"sequence_length": text.max_sequence_length}
    if kind == "clip":
        tokenizer = clip_tokenizer(folder, config)
        make, converter = hub.models.CLIPPreprocessor, hub.layers.CLIPImageConverter
    elif kind == "metaclip_2":
        tokenizer = metaclip_2_tokenizer(folder)
        make = hub.models.MetaCLIP2CausalLMPreprocessor
        # As the library transformers reads texts.
        converter, length["to_lower"] = hub.layers.MetaCLIP2ImageConverter, False
    else:
        tokenizer = siglip_tokenizer(folder)
        make, converter = hub.models.SigLIPPreprocessor, hub.layers.SigLIPImageConverter
    if tokenizer.vocabulary_size() > text.vocabulary_size:
        raise UserError(
            f"{folder}: the tokenizer has {tokenizer.vocabulary_size():,} tokens, and the model of "
            f"{CONFIG} {text.vocabulary_size:,}; the files are of different models"
        )
    return make(tokenizer, converter(**converting), **length)


def _scaling(kind: str, folder: pathlib.Path) -> dict[str, list[float]]:
    """Returns scale and offset of the pixels' channels."""
    path = folder / PIXELS
    found = read_json(path) if path.is_file() else {}
    try:
        mean, deviation = (
            np.broadcast_to(np.asarray(found.get(key, default), np.float64), 3)
            for key, default in zip(("image_mean", "image_std"), _PIXELS[kind], strict=True)
        )
        factor = float(found.get("rescale_factor", 1 / 255))
        if not (np.isfinite([*mean, *deviation, factor]).all() and (deviation > 0).all()):
            raise ValueError("mean, deviation and factor are numbers, and deviations above 0")
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({first_line(error)})") from error
    return {"scale": (factor / deviation).tolist(), "offset": (-mean / deviation).tolist()}
