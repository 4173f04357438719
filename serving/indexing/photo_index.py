"""An index of photos that scores them against any classes, as a rule without the model.

The response of a region to a class is the product of two vectors (`biam_tf.class_sides`). An index
stores those of the regions, so that scoring is one matrix product and a top-k mean. Of a head whose
scores have another last step it stores the features, and the model's signature `rescore` scores.
"""

import bisect
import functools
import os
import pathlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, overload

import numpy as np

from biam_tf.class_calibration import ClassCalibration
from biam_tf.errors import UserError
from biam_tf.threads import in_order
from biam_tf.thresholds import Thresholds
from biam_tf.vocabulary import Vocabulary
from serving.indexing.index_model import Rescore, embed_names, rescorer
from serving.indexing.manifest import (
    THRESHOLDS,
    VOCABULARY,
    IndexedPhoto,
    IndexManifest,
)

_BLOCK_BYTES = 64 * 2**20  # of response maps while scoring
_LISTS_IN_MEMORY = 64


class PhotoIndex:
    """An index opened for scoring; its vectors are memory-mapped, a shard at a time.

    The contents of a shard are compared with their checksum when they are first used. A shard that
    is damaged costs its own photos only: their scores are NaN, and `damaged` names it.

    Args:
        folder: written by `python -m serving.index`.

    Attributes:
        folder: the folder.
        manifest: contents and origin of the index.
        shards: its parts.
        starts: the first row of each part, and the number of all photos.
        photos: N paths relative to the photo folder, in the order of the rows of scores.
        vocabulary: the classes that the model was trained with.
        class_side: from class embeddings to the vectors that regions are multiplied with; of an
            index of features, what the model takes.

    Raises:
        UserError: the folder holds no index, or a file that all of it needs is missing or damaged.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self.folder = pathlib.Path(folder)
        self.manifest = IndexManifest.read(self.folder)
        self.vocabulary = Vocabulary.load(self.folder / VOCABULARY)
        self.class_side = self.manifest.read_class_side(self.folder)
        self.shards = self.manifest.shards
        ends = np.cumsum([shard.count for shard in self.shards], dtype=np.int64)
        self.starts = [0, *map(int, ends)]
        self.photos: Sequence[str] = _Paths(self._photo, self.starts[-1])
        # A page has an index open for days; lists are small, but a million paths are not.
        self._list = functools.lru_cache(_LISTS_IN_MEMORY)(lambda number: self._read_list(number))
        self._state: dict[int, str | None] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self.starts[-1]

    @property
    def by_features(self) -> bool:
        """Whether features are stored, which the model scores, in place of vectors."""
        return self.manifest.region_shape is not None

    @property
    def damaged(self) -> dict[str, str]:
        """Why files of shards can't be used, by file; those that were not used yet may be, too."""
        found = dict(self.manifest.damaged)
        for number, reason in sorted(self._state.items()):
            if reason is not None:
                found[self.shards[number].file] = reason
        return found

    def damage_in_words(self) -> str:
        """Returns which photos are left out and what to do about it; empty: none are."""
        damaged = self.damaged
        if not damaged:
            return ""
        listed = ", ".join(f"{file} ({reason})" for file, reason in list(damaged.items())[:5])
        more = f" and {len(damaged) - 5} more" * (len(damaged) > 5)
        return (
            f"{self.folder}: damaged: {listed}{more}; the photos in it are left out. This indexes "
            f"them again: {self.manifest.command(self.folder)}"
        )

    @functools.cached_property
    def thresholds(self) -> Thresholds | None:
        """The model's thresholds; None if it has none."""
        for path in (
            self.folder / THRESHOLDS,
            pathlib.Path(self.manifest.model) / "assets.extra" / THRESHOLDS,
        ):
            if path.is_file():
                return Thresholds.load(path)
        return None

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

    def photo(self, row: int) -> IndexedPhoto:
        """Returns the photo in a row of the scores, as it was indexed."""
        number, row = self._locate(row)
        return self._list(number)[row]

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
        return embed_names(self.vocabulary, self.manifest, names, word_vectors)

    def class_vectors(self, class_embeddings: np.ndarray) -> np.ndarray:
        """Returns what the photos are scored with, for class embeddings (C, d_a).

        Returns:
            (C, d) float32: the vectors that regions are multiplied with; of an index of features,
            the class embeddings.

        Raises:
            UserError: the embeddings have another length, or are none of the learned classes of a
                model that scores no others.
        """
        classes = np.asarray(class_embeddings, np.float32)
        size = self.manifest.embedding_size
        if classes.ndim != 2 or classes.shape[1] != size:
            raise UserError(
                f"class_embeddings: shape {classes.shape}; this index needs (C, {size})"
            )
        return self.class_side.vectors(classes)

    def scores(self, class_embeddings: np.ndarray) -> np.ndarray:
        """Returns the scores of all photos: the model's, up to rounding to 16 bits.

        Args:
            class_embeddings: (C, d_a).

        Returns:
            (N, C) float32; NaN for photos of damaged shards. Further memory is bounded, whatever N
            and C.

        Raises:
            UserError: as `class_vectors`.
        """
        return self.scores_of_vectors(self.class_vectors(class_embeddings))

    def scores_of_vectors(self, class_vectors: np.ndarray) -> np.ndarray:
        """As `scores`, for vectors (C, d) of `class_vectors`, or of regions."""
        scores = np.empty((len(self), len(class_vectors)), np.float32)
        for start, block in self.score_blocks(class_vectors):
            scores[start : start + len(block)] = block
        return scores

    def score_blocks(self, class_vectors: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Yields the first row and the scores (n, C) of each shard, in the order of the photos.

        Args:
            class_vectors: (C, d).
        """
        # TensorFlow has threads of its own.
        threads = 1 if self.by_features else min(4, os.cpu_count() or 1)
        score = functools.partial(self.score_shard, class_vectors=class_vectors)
        blocks = in_order(score, range(len(self.shards)), threads, ahead=2 * threads)
        yield from zip(self.starts, blocks, strict=False)

    def score_shard(self, number: int, class_vectors: np.ndarray) -> np.ndarray:
        """Returns the scores (n, C) of a shard's photos; NaN if it is damaged."""
        shape = (self.shards[number].count, len(class_vectors))
        return self._use(number, lambda rows: self._score(rows, class_vectors, shape), shape)

    def vectors(self, number: int) -> np.ndarray | None:
        """Memory-maps what is stored of a shard's photos, (n, h w, d) float16; None: damaged."""
        return self._use(number, lambda rows: rows, None)

    def unchecked_vectors(self, number: int) -> np.ndarray | None:
        """As `vectors`, but not compared with the checksum of the shard, of which all is read."""
        try:
            found = self.shards[number].vectors()
        except (OSError, ValueError):
            return self.vectors(number)
        return found if len(found) == self.shards[number].count else self.vectors(number)

    def response_maps(self, row: int, class_embeddings: np.ndarray) -> np.ndarray:
        """Returns the response maps (h, w, C) float32 of the photo in a row of the scores."""
        return self.response_maps_of_vectors(row, self.class_vectors(class_embeddings))

    def response_maps_of_vectors(self, row: int, class_vectors: np.ndarray) -> np.ndarray:
        """As `response_maps`, for vectors (C, d) of `class_vectors`, or of regions."""
        stored, count = self._row(row), len(class_vectors)
        if self.by_features:
            responses = self._rescore(stored[None], class_vectors)
        else:
            responses = stored.astype(np.float32) @ class_vectors.T
        return responses.reshape(*self.manifest.grid, count)

    def region_embeddings(self, row: int) -> np.ndarray:
        """Returns the region embeddings (h, w, d_a) float32 of the photo in a row of the scores.

        The embedding of a region, used as a class embedding, finds photos with similar regions.

        Raises:
            UserError: the vectors of regions are no embeddings, or features are stored.
        """
        if self.manifest.class_side != "linear" or self.by_features:
            raise UserError(f"{self.folder}: the vectors of its regions are no class embeddings")
        return self.region_vectors(row)[..., : self.manifest.embedding_size]

    def region_vectors(self, row: int) -> np.ndarray:
        """Returns the vectors (h, w, d) float32 of the regions of the photo in a row of the scores.

        Raises:
            UserError: features are stored in place of vectors.
        """
        if self.by_features:
            raise UserError(
                f"{self.folder} stores features, because the scores of its model are no products; "
                "there are no vectors of regions"
            )
        stored = self._row(row).astype(np.float32)
        return stored.reshape(*self.manifest.grid, stored.shape[-1])

    def _row(self, row: int) -> np.ndarray:
        number, own = self._locate(row)
        found = self._use(number, lambda rows: np.array(rows[own]), None)
        if found is None:
            raise UserError(self.damage_in_words())
        return found

    def _locate(self, row: int) -> tuple[int, int]:
        """The shard of a row of the scores, and its row in that shard."""
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of an index of {len(self)} photos")
        number = bisect.bisect_right(self.starts, row) - 1
        return number, int(row) - self.starts[number]

    def _photo(self, row: int) -> str:
        return self.photo(row).path

    def _read_list(self, number: int) -> tuple[IndexedPhoto, ...]:
        try:
            return self.shards[number].photos
        except UserError as error:
            self._state[number] = str(error)
            raise UserError(self.damage_in_words()) from error

    def _use(self, number: int, use: Callable[[np.ndarray], Any], otherwise: Any) -> Any:
        """Calls a function of the vectors of a shard, if it is whole.

        A shape in place of `otherwise` stands for an array of NaN.
        """
        with self._lock:
            unknown = number not in self._state
        if unknown:
            damage = self.shards[number].damage()
            with self._lock:
                self._state[number] = damage
        if self._state[number] is None:
            try:
                return use(self.shards[number].vectors())
            except UserError:
                raise
            except (OSError, ValueError) as error:  # it was damaged in the meantime
                self._state[number] = str(error)
        return np.full(otherwise, np.nan, np.float32) if otherwise is not None else None

    def _score(self, rows: np.ndarray, classes: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        photos, regions, size = rows.shape
        if photos != shape[0] or (not self.by_features and size != classes.shape[1]):
            raise ValueError(f"vectors of shape {rows.shape}")
        step = max(1, _BLOCK_BYTES // (4 * regions * max(len(classes), size, 1)))
        score = self._rescore if self.by_features else self.mean_responses
        scores = np.empty(shape, np.float32)
        for start in range(0, photos, step):
            scores[start : start + step] = score(rows[start : start + step], classes)
        return scores

    def mean_responses(self, block: np.ndarray, class_vectors: np.ndarray) -> np.ndarray:
        """Returns the scores (n, C) of photos by their stored vectors (n, h w, d)."""
        photos, regions, size = block.shape
        flat = block.reshape(-1, size).astype(np.float32)
        # Classes first, so that a class's responses to a photo's regions are adjacent in memory.
        responses = (class_vectors @ flat.T).reshape(len(class_vectors), photos, regions)
        k = self.manifest.pooled
        if k < regions:
            responses = np.partition(responses, regions - k, axis=-1)[..., regions - k :]
        return responses.mean(axis=-1).T

    def _rescore(self, block: np.ndarray, class_vectors: np.ndarray) -> np.ndarray:
        assert self.manifest.region_shape is not None
        h, w, channels = self.manifest.region_shape
        flat = block.reshape(len(block), -1).astype(np.float32)
        regions, scene = np.split(flat, [h * w * channels], axis=1)
        return self._head(regions.reshape(-1, h, w, channels), scene, class_vectors)

    @functools.cached_property
    def _head(self) -> Rescore:
        """The model's signature `rescore`."""
        return rescorer(pathlib.Path(self.manifest.model), self.folder)


class _Paths(Sequence[str]):
    """The paths of all photos, read from the lists of their shards when they are used."""

    def __init__(self, path: Callable[[int], str], count: int) -> None:
        self._path, self._count = path, count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> tuple[str, ...]: ...
    def __getitem__(self, row: int | slice) -> str | tuple[str, ...]:
        if isinstance(row, slice):
            return tuple(self._path(each) for each in range(*row.indices(self._count)))
        row = int(row)
        if not -self._count <= row < self._count:
            raise IndexError(f"photo {row} of {self._count}")
        return self._path(row % self._count)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    def __hash__(self) -> int:
        return hash(tuple(self))
