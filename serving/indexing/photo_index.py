"""An index of photos that scores them against any classes without the model.

Region classification (eq. 7 of the paper) is linear in the class embedding: the response of a
region is the dot product of the region's projection into the embedding space and the class
embedding. An index stores those projections, the `region_embeddings`, so that scoring is one
matrix product and a top-k mean.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from biam_tf.class_calibration import ClassCalibration
from biam_tf.embeddings.files import look_up_in_file
from biam_tf.embeddings.names import look_up, normalize, refuse_missing
from biam_tf.errors import UserError, plain_message
from biam_tf.files import sha256_of, write_text
from biam_tf.thresholds import Thresholds
from biam_tf.vocabulary import Vocabulary, read_table, require_embedding_size
from serving.rpc.version_folders import takes_any_phrase

FORMAT = 1
MANIFEST, VOCABULARY, THRESHOLDS = "index.json", "vocabulary.npz", "thresholds.json"

_BLOCK_BYTES = 64 * 2**20  # of response maps while scoring


@dataclasses.dataclass(frozen=True)
class IndexedPhoto:
    """A photo file as it was indexed.

    Attributes:
        path: relative to the photo folder.
        size: in bytes.
        changed_ns: modification time in nanoseconds.
    """

    path: str
    size: int
    changed_ns: int


@dataclasses.dataclass(frozen=True)
class Shard:
    """A part of an index.

    Attributes:
        file: name of the file of region embeddings.
        sha256: checksum of the file.
        photos: the photos, in the order of the file's rows.
    """

    file: str
    sha256: str
    photos: tuple[IndexedPhoto, ...]


@dataclasses.dataclass(frozen=True)
class IndexManifest:
    """The contents and origin of an index.

    Attributes:
        photo_folder: absolute path of the indexed folder.
        model: absolute path of the model version that embedded the photos.
        fingerprint: SHA-256 of that model's graph and weights.
        grid: (h, w), the regions of a photo.
        embedding_size: d_a, length of a class embedding.
        has_bias: whether a region embedding has one more number at its end, the classifier's
            bias.
        pooled: k; the score of a class is the mean of its k strongest responses.
        shards: the parts, in order.
        broken: (photo, reason) of each unreadable photo.
        format: version of the index format.
    """

    photo_folder: str
    model: str
    fingerprint: str
    grid: tuple[int, int]
    embedding_size: int
    has_bias: bool
    pooled: int
    shards: tuple[Shard, ...] = ()
    broken: tuple[tuple[IndexedPhoto, str], ...] = ()
    format: int = FORMAT

    def write(self, folder: pathlib.Path) -> None:
        """Writes the manifest into the folder of the index, whole or not at all."""
        write_text(folder / MANIFEST, json.dumps(dataclasses.asdict(self)))

    @classmethod
    def read(cls, folder: pathlib.Path) -> "IndexManifest":
        """Reads the manifest of an index.

        Raises:
            UserError: it is missing or damaged, or has another format.
        """
        path = folder / MANIFEST
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(
                f"{folder} holds no index; make one with python -m serving.index"
            ) from None
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f"{path} can't be read: {error}") from error
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise UserError(f"{path} was written by another version; index the photos again")
        try:
            shards = tuple(
                Shard(s["file"], s["sha256"], tuple(IndexedPhoto(**p) for p in s["photos"]))
                for s in found.pop("shards")
            )
            broken = tuple((IndexedPhoto(**photo), reason) for photo, reason in found.pop("broken"))
            h, w = found.pop("grid")
            return cls(**found, grid=(h, w), shards=shards, broken=broken)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path} is damaged ({error!r}); index the photos again") from error


class PhotoIndex:
    """An index opened for scoring; its embeddings are memory-mapped.

    Args:
        folder: written by `python -m serving.index`.

    Attributes:
        manifest: contents and origin of the index.
        photos: N paths relative to the photo folder, in the order of the rows of scores.
        vocabulary: the classes that the model was trained with.
        thresholds: of the model's scores; None: it has none. An early index has no copy: they are
            those of the model, if it is still there.

    Raises:
        UserError: the folder holds no index, or a file of it is missing or damaged.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        folder = pathlib.Path(folder)
        self.manifest = IndexManifest.read(folder)
        self.vocabulary = Vocabulary.load(folder / VOCABULARY)
        beside_model = pathlib.Path(self.manifest.model) / "assets.extra" / THRESHOLDS
        files = [path for path in (folder / THRESHOLDS, beside_model) if path.is_file()]
        self.thresholds = Thresholds.load(files[0]) if files else None
        self.photos = tuple(p.path for shard in self.manifest.shards for p in shard.photos)
        self._shards = [read_shard(folder, shard) for shard in self.manifest.shards]

    def __len__(self) -> int:
        return len(self.photos)

    def calibration(
        self, names: Sequence[str] | None, class_embeddings: np.ndarray
    ) -> ClassCalibration | None:
        """Returns what turns scores of classes into probabilities and tags; None: nothing does.

        Args:
            names: of C classes; None: they have none, and all are new to the model.
            class_embeddings: (C, d_a).
        """
        if self.thresholds is None:
            return None
        return self.thresholds.for_classes(names, class_embeddings, self.vocabulary)

    def embed(
        self, names: Sequence[str], word_vectors: str | os.PathLike | None = None
    ) -> np.ndarray:
        """Returns the embeddings (C, d_a) of class names, as a model's signature `embed` does.

        Args:
            names: C class names, looked up by the rule of `biam_tf.embeddings.names`.
            word_vectors: file with embeddings of names that are not in the vocabulary: GloVe
                text, .npz or an attribute table .csv; None to use the vocabulary, and for other
                names the sentence encoder of the model that made the index, if it has one and
                is still there.

        Raises:
            UserError: lists the names without an embedding, each with the nearest known one.
        """
        known = self.vocabulary
        way_out = "correct these, or give word vectors for classes that are new to the model"
        if word_vectors is not None and not all(normalize(n) in known.index.rows for n in names):
            table = read_table(word_vectors)
            if table is None:
                return self._embed_by_words(names, pathlib.Path(word_vectors))
            require_embedding_size(table, self.manifest.embedding_size, str(word_vectors))
            known, way_out = known.extended(table), "correct these or leave them out"
        found = [look_up(name, None, known.index) for name in names]
        model = pathlib.Path(self.manifest.model)
        if word_vectors is None and any(words.missing for words in found):
            if takes_any_phrase(model):
                return _embed_by_model(model, names)
        refuse_missing(names, found, known.names, "no embedding", way_out)
        return known.embeddings[[words.row for words in found if words.row is not None]]

    def _embed_by_words(self, names: Sequence[str], path: pathlib.Path) -> np.ndarray:
        looked_up = look_up_in_file(path, names, self.vocabulary.index)
        refuse_missing(names, looked_up.found, looked_up.known, f"{path}: no word vector")
        new = [i for i, words in enumerate(looked_up.found) if words.row is None]
        read = Vocabulary(
            tuple(names[i] for i in new), looked_up.means[new], ("unseen",) * len(new)
        )
        require_embedding_size(read, self.manifest.embedding_size, str(path))
        embeddings = np.empty((len(names), read.embedding_size), np.float32)
        embeddings[new] = read.embeddings
        for i, words in enumerate(looked_up.found):
            if words.row is not None:
                embeddings[i] = self.vocabulary.embeddings[words.row]
        return embeddings

    def scores(self, class_embeddings: np.ndarray) -> np.ndarray:
        """Returns the scores of all photos: the model's, up to rounding to 16 bits.

        Args:
            class_embeddings: (C, d_a).

        Returns:
            (N, C) float32. Further memory is bounded, whatever N and C.

        Raises:
            UserError: the embeddings have another length.
        """
        classes = self._checked(class_embeddings)
        scores = np.empty((len(self), len(classes)), np.float32)
        start = 0
        for block in self._blocks(len(classes)):
            scores[start : start + len(block)] = self._score(block, classes)
            start += len(block)
        return scores

    def response_maps(self, row: int, class_embeddings: np.ndarray) -> np.ndarray:
        """Returns the response maps (h, w, C) float32 of the photo in a row of the scores."""
        classes = self._checked(class_embeddings)
        shard, row = self._locate(row)
        responses = shard[row].astype(np.float32) @ classes.T
        return responses.reshape(*self.manifest.grid, len(classes))

    def region_embeddings(self, row: int) -> np.ndarray:
        """Returns the region embeddings (h, w, d_a) float32 of the photo in a row of the scores.

        The embedding of a region, used as a class embedding, finds photos with similar regions.
        """
        shard, row = self._locate(row)
        regions = shard[row, :, : self.manifest.embedding_size].astype(np.float32)
        return regions.reshape(*self.manifest.grid, self.manifest.embedding_size)

    def _locate(self, row: int) -> tuple[np.ndarray, int]:
        """The shard of a row of the scores, and its row in that shard."""
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of an index of {len(self)} photos")
        shards = iter(self._shards)
        shard = next(shards)
        while row >= len(shard):
            row -= len(shard)
            shard = next(shards)
        return shard, row

    def _checked(self, class_embeddings: np.ndarray) -> np.ndarray:
        classes = np.asarray(class_embeddings, np.float32)
        size = self.manifest.embedding_size
        if classes.ndim != 2 or classes.shape[1] != size:
            raise UserError(
                f"class_embeddings: shape {classes.shape}; this index needs (C, {size})"
            )
        if self.manifest.has_bias:
            classes = np.concatenate([classes, np.ones((len(classes), 1), np.float32)], axis=1)
        return classes

    def _blocks(self, classes: int) -> Iterator[np.ndarray]:
        regions = self.manifest.grid[0] * self.manifest.grid[1]
        size = max(1, _BLOCK_BYTES // (4 * regions * max(classes, 1)))
        for shard in self._shards:
            for start in range(0, len(shard), size):
                yield shard[start : start + size]

    def _score(self, block: np.ndarray, classes: np.ndarray) -> np.ndarray:
        photos, regions, size = block.shape
        flat = block.reshape(-1, size).astype(np.float32)
        # Classes first, so that a class's responses to a photo's regions are adjacent in memory.
        responses = (classes @ flat.T).reshape(len(classes), photos, regions)
        k = self.manifest.pooled
        if k < regions:
            responses = np.partition(responses, regions - k, axis=-1)[..., regions - k :]
        return responses.mean(axis=-1).T


def _embed_by_model(model: pathlib.Path, names: Sequence[str]) -> np.ndarray:
    """Returns the answer of a model's signature `embed`, which takes any phrase."""
    import tensorflow as tf

    try:
        loaded = tf.saved_model.load(model)
        found = loaded.signatures["embed"](class_names=tf.constant(list(names)))
        return found["class_embeddings"].numpy()
    except tf.errors.InvalidArgumentError as error:
        raise UserError(f"{model}: {plain_message(error.message)}") from None
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{model}: its signature 'embed' can't be used: {error}") from error


def read_shard(folder: pathlib.Path, shard: Shard) -> np.ndarray:
    """Memory-maps the region embeddings (n, h w, d) float16 of a shard after checking its sum.

    Raises:
        UserError: the file is missing or damaged.
    """
    path = folder / shard.file
    try:
        if sha256_of(path) != shard.sha256:
            raise ValueError("wrong checksum")
        return np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} is damaged ({error}); delete {folder} and index the photos again"
        ) from error
