"""Region embeddings of photos, computed by an exported model."""

import dataclasses
import os
import pathlib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from biam_tf.arrays import open_npz
from biam_tf.errors import UserError
from biam_tf.photos import PhotoError, as_sent
from serving.indexing.photo_index import IndexedPhoto

if TYPE_CHECKING:
    import tensorflow as tf

_PROBED_CLASSES = 64
_POOLING_TOLERANCE = 1e-3


@dataclasses.dataclass(frozen=True)
class ScoringRule:
    """How a model's scores follow from region embeddings.

    Attributes:
        grid: (h, w), the regions of a photo.
        has_bias: whether the classifier has a bias.
        pooled: k; the score of a class is the mean of its k strongest responses.
    """

    grid: tuple[int, int]
    has_bias: bool
    pooled: int


class RegionEmbedder:
    """An exported model that embeds the regions of photos.

    Region classification is linear in the class embedding. The responses of a region to the rows
    of an identity matrix, minus its response to a row of zeros (the classifier's bias), are
    therefore its embedding.

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
        import tensorflow as tf

        self.folder = folder
        try:
            self._loaded = tf.saved_model.load(folder)
        except (OSError, ValueError) as error:
            raise UserError(f"{folder} is no exported model: {error}") from error
        # Without response maps the whole photo counts as one region.
        signatures = self._loaded.signatures
        self._signature = signatures.get("explain") or signatures.get("serving_default")
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

    def embed_readable(
        self, folder: pathlib.Path, photos: Sequence[IndexedPhoto], with_bias: bool
    ) -> tuple[list[np.ndarray], dict[IndexedPhoto, str]]:
        """Embeds the regions of photo files, leaving out unreadable ones.

        Args:
            folder: the photos' folder.
            photos: the photos.
            with_bias: whether to append the bias to each region embedding.

        Returns:
            Arrays (n, h w, d) float16 of the readable photos, in their order, and the reason for
            each unreadable one.
        """
        contents: dict[IndexedPhoto, bytes] = {}
        broken: dict[IndexedPhoto, str] = {}
        for photo in photos:
            try:
                contents[photo] = as_sent((folder / photo.path).read_bytes())
            except PhotoError as error:
                broken[photo] = str(error)
            except OSError as error:
                broken[photo] = os.strerror(error.errno) if error.errno else str(error)
        if not contents:
            return [], broken
        try:
            return [self._embed_float16(list(contents.values()), with_bias)], broken
        except invalid_argument_error() as error:
            if len(contents) == 1:
                reason = re.search(r"images\[0\]: ([^\]\n]*)", error.message)
                said = reason[1] if reason else "not a whole photo"
                return [], broken | dict.fromkeys(contents, said)
        # One of them is broken: try each alone.
        embeddings = []
        for photo in contents:
            found, reasons = self.embed_readable(folder, [photo], with_bias)
            embeddings += found
            broken |= reasons
        return embeddings, broken

    def _embed_float16(self, photos: Sequence[bytes], with_bias: bool) -> np.ndarray:
        embeddings, bias = self.embed(photos)
        if with_bias:
            embeddings = np.concatenate([embeddings, bias[..., None]], axis=-1)
        with np.errstate(over="ignore"):  # overflow becomes infinity, which is checked later
            return embeddings.reshape(len(photos), -1, embeddings.shape[-1]).astype(np.float16)

    def scoring_rule(self, folder: pathlib.Path, photos: Sequence[IndexedPhoto]) -> ScoringRule:
        """Returns the model's rule, found from the scores of the first readable photo.

        Raises:
            UserError: no photo can be read, or the scores don't follow from region embeddings.
        """
        for photo in photos:
            try:
                contents = [as_sent((folder / photo.path).read_bytes())]
                embeddings, bias = self.embed(contents)
                break
            except PhotoError:
                continue  # it is named when the photos are indexed
            except invalid_argument_error() as error:
                if "class_embeddings: " in error.message:
                    raise UserError(
                        f"{self.folder} scores only the classes it was trained on; it can't be "
                        "indexed"
                    ) from None
        else:
            raise UserError(f"{folder}: none of its {len(photos)} photos can be read")
        rng = np.random.default_rng(0)
        classes = rng.normal(size=(_PROBED_CLASSES, self.embedding_size))
        classes /= np.linalg.norm(classes, axis=1, keepdims=True)
        scores, _ = self.score(contents, classes)
        h, w = bias.shape[1:]
        responses = embeddings.reshape(h * w, -1) @ classes.T + bias.reshape(h * w, 1)
        pooled = pooled_regions(responses, scores[0])
        if pooled is None:
            raise UserError(
                f"{self.folder}: its scores are not the mean of the strongest regions, or not "
                "linear in the class embeddings; it can't be indexed"
            )
        return ScoringRule((h, w), bool(np.any(bias)), pooled)


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
