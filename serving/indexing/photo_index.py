"""Photos seen once and scored against any classes ever after, without the model.

Region classification (eq. 7 of the paper) is linear in a class's embedding: the response of a
region is its projection onto the space of embeddings, times the embedding. An index keeps those
projections, the `region_embeddings`, so that scoring is one matrix product and a top-k mean.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from biam_tf.errors import UserError
from biam_tf.vocabulary import Vocabulary, require_embedding_size

FORMAT = 1
MANIFEST, VOCABULARY = "index.json", "vocabulary.npz"

_BLOCK_BYTES = 64 * 2**20  # of response maps while scoring


@dataclasses.dataclass(frozen=True)
class IndexedPhoto:
    """A file as it was when it was indexed: path within the photo folder, bytes, time of change."""

    path: str
    size: int
    changed_ns: int


@dataclasses.dataclass(frozen=True)
class Shard:
    """A part of an index: its photos, and the file of their region embeddings with SHA-256."""

    file: str
    sha256: str
    photos: tuple[IndexedPhoto, ...]


@dataclasses.dataclass(frozen=True)
class IndexManifest:
    """What an index says about itself.

    Attributes:
        photo_folder: absolute path of the indexed folder.
        model: absolute path of the version folder that saw the photos.
        fingerprint: SHA-256 of that model's graph and weights.
        grid: (h, w) regions of a photo.
        embedding_size: d_a, length of a class embedding.
        has_bias: whether a region embedding ends with one number more, the response to no
            class in particular.
        pooled: k, the strongest regions of a class that make its score.
        shards: the parts, in order.
        broken: path to (photo, reason) of files that are no readable photos.
        format: of the index; another one belongs to another version of this program.
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
        """Writes the manifest, all or nothing."""
        partial = folder / f".{MANIFEST}.{os.getpid()}.partial"
        try:
            partial.write_text(json.dumps(dataclasses.asdict(self)), encoding="utf-8")
            os.replace(partial, folder / MANIFEST)
        finally:
            partial.unlink(missing_ok=True)

    @classmethod
    def read(cls, folder: pathlib.Path) -> "IndexManifest":
        """Reads the manifest of an index.

        Raises:
            UserError: there is none, or it can't be understood.
        """
        path = folder / MANIFEST
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(
                f"{folder} holds no index; make one with python -m serving.index"
            ) from None
        except (OSError, ValueError) as error:
            raise UserError(f"{path} can't be read: {error}") from error
        if not isinstance(found, Mapping) or found.get("format") != FORMAT:
            raise UserError(f"{path} was written by another version; index the photos anew")
        try:
            shards = tuple(
                Shard(s["file"], s["sha256"], tuple(IndexedPhoto(**p) for p in s["photos"]))
                for s in found.pop("shards")
            )
            broken = tuple((IndexedPhoto(**photo), why) for photo, why in found.pop("broken"))
            manifest = cls(**found, shards=shards, broken=broken)
            return dataclasses.replace(manifest, grid=tuple(manifest.grid))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path} is damaged ({error!r}); index the photos anew") from error


class PhotoIndex:
    """An index to score from; the embeddings stay on disk and are mapped into memory.

    Args:
        folder: what `python -m serving.index` wrote.

    Attributes:
        manifest: what the index says about itself.
        photos: N paths within the photo folder, in the order of the scores' rows.
        vocabulary: the classes that the model was trained with.

    Raises:
        UserError: the folder holds no index, or a file of it is missing or damaged.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        folder = pathlib.Path(folder)
        self.manifest = IndexManifest.read(folder)
        self.vocabulary = Vocabulary.load(folder / VOCABULARY)
        self.photos = tuple(p.path for shard in self.manifest.shards for p in shard.photos)
        self._shards = [read_shard(folder, shard) for shard in self.manifest.shards]

    def __len__(self) -> int:
        return len(self.photos)

    def embed(
        self, names: Sequence[str], word_vectors: str | os.PathLike | None = None
    ) -> np.ndarray:
        """Returns the embeddings (C, d_a) of class names.

        Args:
            names: C names.
            word_vectors: where to look up names that the vocabulary lacks: GloVe text, .npz or
                an attribute table .csv; None: the vocabulary alone.

        Raises:
            UserError: names without an embedding, each with the nearest known one.
        """
        own = set(self.vocabulary.names)
        others = [name for name in names if name not in own]
        known = self.vocabulary.subset([name for name in names if name in own])
        rows = dict(zip(known.names, known.embeddings, strict=True))
        if others:
            if word_vectors is None:
                self._refuse(others)
            read = Vocabulary.from_file(word_vectors, others)
            require_embedding_size(read, self.manifest.embedding_size, str(word_vectors))
            rows |= dict(zip(read.names, read.embeddings, strict=True))
        return np.stack([rows[name] for name in names])

    def scores(self, class_embeddings: np.ndarray) -> np.ndarray:
        """Scores every photo against classes; as the model does, but for rounding to 16 bits.

        Args:
            class_embeddings: (C, d_a).

        Returns:
            (N, C) float32. Memory beyond it is a fixed block, whatever N and C.

        Raises:
            UserError: embeddings of another length.
        """
        classes = self._checked(class_embeddings)
        scores = np.empty((len(self), len(classes)), np.float32)
        start = 0
        for block in self._blocks(len(classes)):
            scores[start : start + len(block)] = self._score(block, classes)
            start += len(block)
        return scores

    def response_maps(self, row: int, class_embeddings: np.ndarray) -> np.ndarray:
        """Returns the response maps (h, w, C) of the photo in a row of the scores."""
        classes = self._checked(class_embeddings)
        shard, row = self._place(row)
        responses = shard[row].astype(np.float32) @ classes.T
        return responses.reshape(*self.manifest.grid, len(classes))

    def region_embeddings(self, row: int) -> np.ndarray:
        """Returns the region embeddings (h, w, d_a), float32, of the photo in a row of the scores.

        Taken as a class embedding, that of a region finds photos with regions like it.
        """
        shard, row = self._place(row)
        regions = shard[row, :, : self.manifest.embedding_size].astype(np.float32)
        return regions.reshape(*self.manifest.grid, self.manifest.embedding_size)

    def _place(self, row: int) -> tuple[np.ndarray, int]:
        """The shard that a row of the scores is in, and its row there."""
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of an index of {len(self)} photos")
        shards = iter(self._shards)
        shard = next(shards)
        while row >= len(shard):
            row -= len(shard)
            shard = next(shards)
        return shard, row

    def _refuse(self, names: list[str]) -> None:
        try:
            self.vocabulary.subset(names)
        except UserError as error:
            raise UserError(
                f"{error} Give word vectors for classes that the model was not trained with."
            ) from None

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
        # Classes first: a class's responses to a photo's regions then lie side by side.
        responses = (classes @ flat.T).reshape(len(classes), photos, regions)
        k = self.manifest.pooled
        if k < regions:
            responses = np.partition(responses, regions - k, axis=-1)[..., regions - k :]
        return responses.mean(axis=-1).T


def read_shard(folder: pathlib.Path, shard: Shard) -> np.ndarray:
    """Maps a shard's region embeddings (n, h w, d) float16 into memory, compared with its checksum.

    Raises:
        UserError: the file is missing or damaged.
    """
    path = folder / shard.file
    try:
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != shard.sha256:
            raise ValueError("its checksum is another")
        return np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} is damaged ({error}); delete {folder} and index the photos anew"
        ) from error
