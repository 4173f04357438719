"""A search of large indexes in two stages: candidates by FAISS, then their exact scores.

An exact search reads the vectors of all regions of all photos. Here each photo has a few strongest
directions, which FAISS holds as 8-bit numbers in an inverted file (Jégou et al., "Product
quantization for nearest neighbor search", PAMI 2011, section V). The photos whose directions have
the largest products with a class are its candidates; these alone are scored, as the index scores
them. What is found is therefore scored and ranked exactly; a photo that was no candidate is missed.
`python -m benchmarks.search` measures how many are.

    nearest.faiss         the directions
    nearest.npz           a checksum of the vectors of each photo, which are read alone
    nearest.json          which shards are in it; written last
"""

import dataclasses
import json
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from biam_tf.arrays import open_npz
from biam_tf.errors import UserError
from biam_tf.files import replacing, sha256_of, write_text
from biam_tf.locks import locked
from biam_tf.progress import progress
from serving.indexing.manifest import LOCK
from serving.indexing.photo_index import PhotoIndex

NEAREST, CHECKSUMS, FACTS = "nearest.faiss", "nearest.npz", "nearest.json"
DIRECTIONS = 4
CANDIDATES_PER_PHOTO, FEWEST_CANDIDATES = 10, 500
FEWEST_PROBED_LISTS = 128  # else a quarter of them

_FORMAT = 1
_TRAINING_VECTORS_PER_LIST = 64
_LARGEST_LISTS = 4096
_EXACT_AT_A_TIME = 512
_PRODUCTS = 2**21  # of regions, while directions are chosen


def strongest_directions(vectors: np.ndarray, pooled: int, count: int = DIRECTIONS) -> np.ndarray:
    """Returns the directions in which photos have their largest scores.

    The score of a class is its largest product with a mean of `pooled` regions. So no product with
    such a mean exceeds the score, and for each class one mean reaches it. The regions' own
    directions stand for classes: the first mean is that of the region with the largest score; each
    further one is that of the region whose score the means so far fall short of the most.

    Args:
        vectors: (n, regions, d) of n photos.
        pooled: k, the number of regions whose mean is a score.
        count: number of directions of a photo; fewer if there are fewer regions.

    Returns:
        (n, count, d) float32.
    """
    photos, regions, size = vectors.shape
    found = np.empty((photos, min(count, regions), size), np.float32)
    step = max(1, _PRODUCTS // regions**2)
    for start in range(0, photos, step):
        block = np.asarray(vectors[start : start + step], np.float32)
        found[start : start + step] = _directions(block, pooled, found.shape[1])
    return found


def _directions(regions: np.ndarray, pooled: int, count: int) -> np.ndarray:
    lengths = np.linalg.norm(regions, axis=2, keepdims=True)
    classes = regions / np.maximum(lengths, 1e-12)
    responses = np.matmul(classes, regions.transpose(0, 2, 1))
    strongest = np.argpartition(-responses, pooled - 1, axis=2)[..., :pooled]
    weights = np.zeros_like(responses)
    np.put_along_axis(weights, strongest, 1 / pooled, axis=2)
    means = np.matmul(weights, regions)
    products = np.matmul(means, classes.transpose(0, 2, 1))  # (n, mean, class)
    scores = np.diagonal(products, axis1=1, axis2=2)
    photos, chosen = np.arange(len(regions)), scores.argmax(axis=1)
    found, reached = [means[photos, chosen]], products[photos, chosen]
    for _ in range(count - 1):
        chosen = (scores - reached).argmax(axis=1)
        found.append(means[photos, chosen])
        reached = np.maximum(reached, products[photos, chosen])
    return np.stack(found, axis=1)


def directions_of_shards(
    index: PhotoIndex, count: int, label: str
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yields the first row, the stored vectors and the directions (n, count, d) of each shard.

    Shows progress on standard error.

    Args:
        index: the index.
        count: number of directions of a photo, at most.
        label: of the progress line.

    Raises:
        UserError: the index stores features in place of vectors, or a shard is damaged.
    """
    if index.by_features:
        raise UserError(
            f"{index.folder} stores features, because the scores of its model are no products: "
            "there are no vectors to search among; a search runs the model for every photo"
        )
    with progress(len(index), label, "photo") as bar:
        for number, shard in enumerate(index.shards):
            vectors = index.vectors(number)
            if vectors is None:
                raise UserError(index.damage_in_words())
            yield (
                index.starts[number],
                vectors,
                strongest_directions(vectors, index.manifest.pooled, count),
            )
            bar.update(shard.count)


def build_nearest(index: PhotoIndex, directions: int = DIRECTIONS) -> int:
    """Writes the first stage of an index into its folder; shows progress on standard error.

    All directions are in memory meanwhile, as 8-bit numbers. Photos that are added to the index
    later are found without it: they are scanned.

    Args:
        index: the index.
        directions: number of directions of a photo.

    Returns:
        The number of photos in it.

    Raises:
        UserError: FAISS is missing, the index is empty, damaged or being written, or it stores
            features in place of vectors.
    """
    faiss = _faiss()
    if not len(index):
        raise UserError(f"{index.folder} holds no photo")
    folder, size = index.folder, index.class_side.vector_size
    with locked(folder / LOCK, f"{folder} is being written"):
        lists = _lists(len(index) * directions)
        first = faiss.index_factory(size, f"IVF{lists},SQ8", faiss.METRIC_INNER_PRODUCT)
        first.cp.min_points_per_centroid = 1  # FAISS would print a warning for small indexes
        first.train(_sample(index, directions, lists * _TRAINING_VECTORS_PER_LIST))
        checksums = np.zeros(len(index), np.uint32)
        for start, vectors, found in directions_of_shards(index, directions, "Arranging"):
            rows = np.arange(start, start + len(vectors))
            first.add_with_ids(found.reshape(-1, size), np.repeat(rows, found.shape[1]))
            checksums[rows] = [zlib.crc32(row.data) for row in np.ascontiguousarray(vectors)]
        (folder / FACTS).unlink(missing_ok=True)  # until all is written, there is none
        with replacing(folder / NEAREST) as partial:
            faiss.write_index(first, str(partial))
        with replacing(folder / CHECKSUMS) as partial:
            np.savez(partial, checksums=checksums)
        facts = {
            "format": _FORMAT,
            "sha256": {name: sha256_of(folder / name) for name in (NEAREST, CHECKSUMS)},
            "shards": [[shard.file, shard.sha256, shard.count] for shard in index.shards],
        }
        write_text(folder / FACTS, json.dumps(facts) + "\n")
    return len(index)


@dataclasses.dataclass(frozen=True, eq=False)
class NearestPhotos:
    """The first stage of an index, opened.

    Attributes:
        index: the index.
        new: number of its photos that are not in the first stage; a search scans them.
    """

    index: PhotoIndex
    new: int
    _first: Any
    _checksums: np.ndarray
    _rows: np.ndarray  # of the photos in the index today; -1: no longer in it
    _new_shards: tuple[int, ...]

    @classmethod
    def open(cls, index: PhotoIndex) -> "NearestPhotos":
        """Opens what `build_nearest` wrote; the directions are memory-mapped.

        Raises:
            UserError: FAISS is missing, or the files are missing or damaged.
        """
        folder, faiss = index.folder, _faiss()
        way_out = f"make it: python -m serving.nearest {folder}"
        try:
            facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
            if facts["format"] != _FORMAT:
                raise ValueError(f"format {facts['format']}")
            for name, sha256 in facts["sha256"].items():
                if sha256_of(folder / name) != sha256:
                    raise ValueError(f"{name}: wrong checksum")
            with open_npz(folder / CHECKSUMS) as arrays:
                checksums = arrays["checksums"]
            first = faiss.read_index(
                str(folder / NEAREST), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY
            )
            then = [(str(file), str(sha256), int(n)) for file, sha256, n in facts["shards"]]
        except FileNotFoundError:
            raise UserError(f"{folder} is not prepared for --nearest; {way_out}") from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise UserError(f"{folder / FACTS} can't be used ({error}); {way_out}") from error
        now = {(shard.file, shard.sha256): number for number, shard in enumerate(index.shards)}
        rows = []
        for file, sha256, count in then:
            number = now.pop((file, sha256), None)
            start = 0 if number is None else index.starts[number]
            rows.append(np.full(count, -1) if number is None else np.arange(start, start + count))
        new = tuple(sorted(now.values()))
        first.nprobe = max(FEWEST_PROBED_LISTS, first.nlist // 4)
        return cls(
            index,
            sum(index.shards[number].count for number in new),
            first,
            checksums,
            np.concatenate(rows) if rows else np.zeros(0, np.int64),
            new,
        )

    def search(
        self, class_vectors: np.ndarray, count: int, candidates: int | None = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields rows (n,) of the best photos of each class, best first, and their scores (n,).

        Args:
            class_vectors: (C, d), of the index's `class_vectors`.
            count: number of photos of a class, at most.
            candidates: number of photos of a class that are scored exactly; None: 10 for each of
                `count`, and at least 500.
        """
        classes = np.ascontiguousarray(class_vectors, np.float32)
        wanted = candidates or max(FEWEST_CANDIDATES, CANDIDATES_PER_PHOTO * count)
        directions = max(1, self._first.ntotal // max(1, len(self._rows)))
        asked = min(wanted * directions, max(1, self._first.ntotal))
        _, ids = self._first.search(classes, asked)
        new = {
            self.index.starts[number]: self.index.score_shard(number, classes)
            for number in self._new_shards
        }
        for c, own in enumerate(ids):
            own = own[own >= 0]  # FAISS fills up with -1
            _, places = np.unique(own, return_index=True)  # a photo has several directions
            own = own[np.sort(places)][:wanted]
            rows, scores = self._exact(np.sort(own[self._rows[own] >= 0]), classes[c : c + 1])
            for start, block in new.items():
                rows = np.append(rows, start + np.arange(len(block)))
                scores = np.append(scores, block[:, c])
            whole = np.isfinite(scores)
            rows, scores = rows[whole], scores[whole]
            best = np.lexsort((rows, -scores))[:count]
            yield rows[best], scores[best]

    def _exact(self, ids: np.ndarray, class_vector: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows and scores of candidates; NaN for those whose stored vectors are damaged."""
        rows = self._rows[ids]
        scores = np.full(len(ids), np.nan, np.float32)
        numbers = np.searchsorted(self.index.starts, rows, side="right") - 1
        places: list[int] = []
        stored: list[np.ndarray] = []

        def score() -> None:
            if places:
                scores[places] = self.index.mean_responses(np.stack(stored), class_vector)[:, 0]
            places.clear()
            stored.clear()

        # Candidates of a shard are together: `ids` ascend, and so do shards.
        for own in np.split(np.arange(len(ids)), np.flatnonzero(np.diff(numbers)) + 1):
            if not len(own):
                continue
            number = int(numbers[own[0]])
            vectors = self.index.unchecked_vectors(number)
            if vectors is None:
                continue
            read = np.asarray(vectors)[rows[own] - self.index.starts[number]]
            for place, row in zip(own, read, strict=True):
                if zlib.crc32(row.data) == self._checksums[ids[place]]:
                    places.append(int(place))
                    stored.append(row)
                else:
                    self.index.vectors(number)  # reads all of the shard, and names it
            if len(places) >= _EXACT_AT_A_TIME:
                score()
        score()
        return rows, scores


def _sample(index: PhotoIndex, directions: int, wanted: int) -> np.ndarray:
    """Directions of photos from shards all over the index, from which FAISS learns its lists."""
    shards = np.random.default_rng(0).permutation(len(index.shards))
    per_shard = -(-wanted // max(1, len(shards)))
    found: list[np.ndarray] = []
    size = 0
    for number in shards:
        vectors = index.unchecked_vectors(int(number))
        if vectors is None:
            continue
        own = vectors[: -(-max(per_shard, wanted // 64) // directions)]
        found.append(strongest_directions(own, index.manifest.pooled, directions))
        size += found[-1].shape[0] * found[-1].shape[1]
        if size >= wanted:
            break
    if not found:
        raise UserError(index.damage_in_words())
    return np.concatenate(found).reshape(-1, index.class_side.vector_size)


def _lists(vectors: int) -> int:
    """The number of lists of an inverted file: about the root of the number of vectors."""
    return int(min(_LARGEST_LISTS, max(1, 2 ** round(np.log2(max(vectors, 1) ** 0.5)))))


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise UserError(
            "a search of the nearest photos needs FAISS: pip install 'biam-tf[search]'"
        ) from error
    return faiss
