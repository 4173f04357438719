"""What an index stores of photos, computed by an exported model."""

import dataclasses
import functools
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from biam_tf.arrays import open_npz
from biam_tf.class_sides import ClassSide, LearnedClasses, LinearClasses, load_class_side
from biam_tf.errors import UserError
from biam_tf.photos import PhotoError, as_sent
from serving.indexing.manifest import NEVER_READ_NS, IndexedPhoto, IndexManifest, digest_of
from serving.rpc.version_folders import CLASS_SIDE

if TYPE_CHECKING:
    import tensorflow as tf

_PROBED_CLASSES = 64
_POOLING_TOLERANCE = 1e-3

# Encoded photos (B,) to what is stored of them, (B, h w, d).
Store = Callable[[Sequence[bytes]], np.ndarray]


@dataclasses.dataclass(frozen=True)
class ScoringRule:
    """How a model's scores follow from what is stored of a photo.

    Attributes:
        grid: (h, w), the regions of a photo.
        pooled: k; the score of a class is the mean of its k strongest responses.
        class_side: from class embeddings to the vectors that those of regions are multiplied with.
        region_shape: (h, w, channels) of region features, if features are stored; else None.
    """

    grid: tuple[int, int]
    pooled: int
    class_side: ClassSide
    region_shape: tuple[int, int, int] | None = None

    @classmethod
    def of_index(cls, manifest: IndexManifest, folder: pathlib.Path) -> "ScoringRule":
        """Returns the rule of an index."""
        side = manifest.read_class_side(folder)
        return cls(manifest.grid, manifest.pooled, side, manifest.region_shape)


class RegionEmbedder:
    """An exported model that computes what an index stores.

    There are three forms, of which the first that gives the model's own scores is used:

    - the vectors of regions that its signature `region_vectors` returns;
    - scores that are linear in the class embeddings tell these vectors: the responses of a region
      to the rows of an identity matrix, minus its response to a row of zeros (the bias);
    - the features, for scores that are no products: the signature `rescore` then scores them.

    Args:
        folder: the version's folder.

    Attributes:
        folder: the version's folder.
        vocabulary_file: the classes that the model was trained with.
        embedding_size: d_a, length of a class embedding.

    Raises:
        UserError: the folder holds no exported tagger.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        from biam_tf.text_operations import load_saved_model

        self.folder = folder
        try:
            self._loaded = load_saved_model(folder)
        except (OSError, ValueError) as error:
            raise UserError(f"{folder} is no exported model: {error}") from error
        self._signatures = self._loaded.signatures
        # Without response maps the whole photo counts as one region.
        self._signature = self._signatures.get("explain") or self._signatures.get("serving_default")
        inputs = self._signature.structured_input_signature[1] if self._signature else {}
        if set(inputs) != {"images", "class_embeddings"}:
            raise UserError(f"{folder} is no exported tagger: no signature scores photos")
        self.vocabulary_file = folder / "assets.extra" / "vocabulary.npz"
        try:
            with open_npz(self.vocabulary_file) as vocabulary:
                self.embedding_size = vocabulary["embeddings"].shape[1]
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{self.vocabulary_file} can't be read: {error}") from error

    def score(
        self, photos: Sequence[bytes], class_embeddings: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns scores (B, C) and response maps (B, h, w, C) of encoded photos.

        Raises:
            tf.errors.InvalidArgumentError: a photo is broken.
        """
        import tensorflow as tf

        outputs = self._signature(
            images=tf.constant(list(photos)),
            class_embeddings=tf.constant(class_embeddings, tf.float32),
        )
        scores = outputs["scores"].numpy()
        if "response_maps" not in outputs:
            return scores, scores[:, None, None]
        return scores, outputs["response_maps"].numpy()

    def embed(self, photos: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
        """Returns region embeddings (B, h, w, d_a) and biases (B, h, w); raises as `score`."""
        _, maps = self.score(photos, np.eye(self.embedding_size + 1, self.embedding_size))
        bias = maps[..., -1]
        return maps[..., :-1] - bias[..., None], bias

    def storing(self, rule: ScoringRule) -> Store:
        """Returns the function from encoded photos to what an index of this rule stores of them.

        The function raises `tf.errors.InvalidArgumentError` if a photo is broken.
        """
        if rule.region_shape is not None:
            return self._features
        if isinstance(rule.class_side, LinearClasses):
            return functools.partial(self._by_identity, rule.class_side.has_bias)
        return self._by_signature

    def _features(self, photos: Sequence[bytes]) -> np.ndarray:
        import tensorflow as tf

        outputs = self._signatures["features"](images=tf.constant(list(photos)))
        names = ("region_features", "scene_feature")
        flat = [outputs[name].numpy().reshape(len(photos), -1) for name in names]
        return np.concatenate(flat, axis=1)[:, None]

    def _by_identity(self, with_bias: bool, photos: Sequence[bytes]) -> np.ndarray:
        embeddings, bias = self.embed(photos)
        if with_bias:
            embeddings = np.concatenate([embeddings, bias[..., None]], axis=-1)
        return embeddings.reshape(len(photos), -1, embeddings.shape[-1])

    def _by_signature(self, photos: Sequence[bytes]) -> np.ndarray:
        vectors = self._region_vectors(photos)
        return vectors.reshape(len(photos), -1, vectors.shape[-1])

    def _region_vectors(self, photos: Sequence[bytes]) -> np.ndarray:
        import tensorflow as tf

        outputs = self._signatures["region_vectors"](images=tf.constant(list(photos)))
        return outputs["region_vectors"].numpy()

    def embed_readable(
        self, folder: pathlib.Path, photos: Sequence[IndexedPhoto], store: Store
    ) -> tuple[dict[IndexedPhoto, np.ndarray], dict[IndexedPhoto, str]]:
        """Computes what is stored of photo files, leaving out unreadable ones.

        Args:
            folder: the photos' folder.
            photos: the photos.
            store: of `storing`.

        Returns:
            Arrays (h w, d) float16 of the readable photos, with the digest of their contents, in
            their order, and the reason for each unreadable one.
        """
        contents: dict[IndexedPhoto, bytes] = {}
        broken: dict[IndexedPhoto, str] = {}
        for photo in photos:
            try:
                read = (folder / photo.path).read_bytes()
                photo = dataclasses.replace(photo, digest=digest_of(read))
                contents[photo] = as_sent(read)
            except PhotoError as error:
                broken[photo] = str(error)
            except OSError as error:
                # Of the disk or of permissions, not of the photo: it is tried again.
                photo = dataclasses.replace(photo, changed_ns=NEVER_READ_NS)
                broken[photo] = f"can't be read ({error.strerror or error})"
        return self._store_readable(contents, store, broken)

    def _store_readable(
        self, contents: dict[IndexedPhoto, bytes], store: Store, broken: dict[IndexedPhoto, str]
    ) -> tuple[dict[IndexedPhoto, np.ndarray], dict[IndexedPhoto, str]]:
        if not contents:
            return {}, broken
        try:
            with np.errstate(over="ignore"):  # overflow becomes infinity, which is checked later
                stored = store(list(contents.values())).astype(np.float16)
            return dict(zip(contents, stored, strict=True)), broken
        except invalid_argument_error() as error:
            if len(contents) == 1:
                reason = re.search(r"images\[0\]: ([^\]\n]*)", error.message)
                said = reason[1] if reason else "not a whole photo"
                return {}, broken | dict.fromkeys(contents, said)
        # One of them is broken: try each alone.
        found: dict[IndexedPhoto, np.ndarray] = {}
        for photo, content in contents.items():
            own, reasons = self._store_readable({photo: content}, store, {})
            found |= own
            broken |= reasons
        return found, broken

    def scoring_rule(self, folder: pathlib.Path, photos: Sequence[IndexedPhoto]) -> ScoringRule:
        """Returns the model's rule, found from the scores of the first readable photo.

        Raises:
            UserError: no photo can be read, or the model has no signature that tells what its
                scores follow from.
        """
        content = self._first_readable(folder, photos)
        for rule in (self._rule_of_signature, self._rule_of_identity, self._rule_of_features):
            found = rule([content])
            if found is not None:
                return found
        raise UserError(
            f"{self.folder}: its scores are not the mean of the strongest regions, or not "
            "linear in the class embeddings, and it has no signatures features and rescore; it "
            "can't be indexed. Export the run again: python -m serving.export"
        )

    def _first_readable(self, folder: pathlib.Path, photos: Sequence[IndexedPhoto]) -> bytes:
        reasons: list[str] = []
        for photo in photos:
            try:
                content = as_sent((folder / photo.path).read_bytes())
                # Of the signatures that take photos, each decodes them alike.
                if "features" in self._signatures:
                    self._features([content])
                else:
                    self.embed([content])
                return content
            except (PhotoError, OSError) as error:
                reasons.append(f"{photo.path}: {getattr(error, 'strerror', None) or error}")
            except invalid_argument_error() as error:
                reasons.append(f"{photo.path}: {error.message.splitlines()[0]}")
        listed = "".join(f"\n  {reason}" for reason in reasons[:3])
        raise UserError(f"{folder}: none of its {len(photos)} photos can be read{listed}")

    def _rule_of_signature(self, photo: Sequence[bytes]) -> ScoringRule | None:
        if "region_vectors" not in self._signatures or not (self.folder / CLASS_SIDE).is_file():
            return None
        side = load_class_side(self.folder / CLASS_SIDE)
        vectors = self._region_vectors(photo)
        classes = side.embeddings if isinstance(side, LearnedClasses) else self._random()
        classes = classes[:_PROBED_CLASSES]
        h, w = vectors.shape[1:3]
        responses = vectors.reshape(h * w, -1) @ side.vectors(classes).T
        pooled = pooled_regions(responses, self.score(photo, classes)[0][0])
        return None if pooled is None else ScoringRule((h, w), pooled, side)

    def _rule_of_identity(self, photo: Sequence[bytes]) -> ScoringRule | None:
        try:
            embeddings, bias = self.embed(photo)
        except invalid_argument_error() as error:
            if "class_embeddings: " in error.message:  # it scores only its own classes
                return None
            raise
        classes = self._random()
        scores, _ = self.score(photo, classes)
        h, w = bias.shape[1:]
        responses = embeddings.reshape(h * w, -1) @ classes.T + bias.reshape(h * w, 1)
        pooled = pooled_regions(responses, scores[0])
        if pooled is None:
            return None
        return ScoringRule((h, w), pooled, LinearClasses(self.embedding_size, bool(np.any(bias))))

    def _rule_of_features(self, photo: Sequence[bytes]) -> ScoringRule | None:
        import tensorflow as tf

        if not {"features", "rescore"} <= set(self._signatures):
            return None
        shape = self._signatures["features"](images=tf.constant(list(photo)))["region_features"]
        h, w, channels = map(int, shape.shape[1:])
        return ScoringRule((1, 1), 1, LinearClasses(self.embedding_size), (h, w, channels))

    def _random(self) -> np.ndarray:
        classes = np.random.default_rng(0).normal(size=(_PROBED_CLASSES, self.embedding_size))
        return classes / np.linalg.norm(classes, axis=1, keepdims=True)


def pooled_regions(responses: np.ndarray, scores: np.ndarray) -> int | None:
    """Returns k such that each score is the mean of the k strongest responses of its class.

    Args:
        responses: (regions, C) of one photo.
        scores: (C,) of the same photo and classes.

    Returns:
        k; None if no k fits the scores.
    """
    strongest = -np.sort(-responses, axis=0)
    means = np.cumsum(strongest, axis=0) / np.arange(1, len(responses) + 1)[:, None]
    errors = np.abs(means - scores).max(axis=1)
    k = int(np.argmin(errors)) + 1
    fits = errors[k - 1] <= _POOLING_TOLERANCE * max(1.0, float(np.abs(scores).max()))
    return k if fits else None


def invalid_argument_error() -> type["tf.errors.InvalidArgumentError"]:
    """Returns TensorFlow's error of a broken photo; TensorFlow is imported only when needed."""
    import tensorflow as tf

    return tf.errors.InvalidArgumentError
