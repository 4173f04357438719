"""Indexes with random region embeddings, for measuring searches."""

import pathlib
from collections.abc import Callable

import numpy as np

from biam_tf.progress import progress
from biam_tf.vocabulary import Vocabulary
from serving.indexing.build_index import SHARD_PHOTOS
from serving.indexing.manifest import VOCABULARY, IndexedPhoto, IndexManifest, write_shard


def write_random_index(
    folder: pathlib.Path,
    photos: int,
    grid: tuple[int, int],
    embedding_size: int,
    pooled: int,
    photo_folder: pathlib.Path,
    photo_name: Callable[[int], str] = "{}.jpg".format,
    vectors: Callable[[int], np.ndarray] | None = None,
) -> None:
    """Writes an index with random region embeddings.

    Args:
        folder: Folder of the index; must exist.
        photos: Number of photos.
        grid: (h, w) regions of a photo.
        embedding_size: d_a, length of a class embedding.
        pooled: k, the number of regions whose mean is the score of a class.
        photo_folder: Folder of the photos.
        photo_name: Function from the number of a photo to its name.
        vectors: Function from a number n of photos to their vectors (n, regions, size); None for
            independent normal numbers.
    """
    rng = np.random.default_rng(0)
    Vocabulary(("a",), np.eye(1, embedding_size), ("seen",)).save(folder / VOCABULARY)
    with progress(photos, "Writing", "photo") as bar:
        for start in range(0, photos, SHARD_PHOTOS):
            numbers = range(start, min(start + SHARD_PHOTOS, photos))
            shape = (len(numbers), grid[0] * grid[1], embedding_size)
            names = [IndexedPhoto(photo_name(number), 0, 0) for number in numbers]
            number = 1 + start // SHARD_PHOTOS
            stored = rng.normal(size=shape) if vectors is None else vectors(len(numbers))
            write_shard(folder, names, stored.astype(np.float16), number)
            bar.update(len(numbers))
    facts = (grid, embedding_size, False, pooled)
    IndexManifest(str(photo_folder), str(folder), "0", *facts).write(folder)


class SimulatedPhotos:
    """Photos that show things: vectors of their regions, and classes to search them for.

    There are 2,000 kinds of things in 50 families, some seen far more often than others. A photo
    has a background and one to five things, each of its own strength in a rectangle of regions;
    every region has noise of half its length.

    Args:
        grid: (h, w) regions of a photo.
        size: Length of the vectors.
    """

    def __init__(self, grid: tuple[int, int], size: int) -> None:
        self._rng = np.random.default_rng(1)
        self._grid, self._size = grid, size
        families = self._rng.normal(size=(50, size))
        own = families[self._rng.integers(0, 50, 2000)] + 0.8 * self._rng.normal(size=(2000, size))
        self._kinds = _unit(own).astype(np.float32)
        shares = 1 / np.arange(10, 2010)
        self._shares = shares / shares.sum()

    def vectors(self, count: int) -> np.ndarray:
        """Returns the vectors (count, h w, size) of further photos."""
        h, w = self._grid
        rng, things = self._rng, 6  # the first is the background
        kinds = rng.choice(2000, (count, things), p=self._shares)
        strengths = np.exp(0.4 * rng.normal(size=(count, things))).astype(np.float32)
        there = np.arange(things) <= rng.integers(1, things, (count, 1))
        shown = np.zeros((count, h, w), np.int64)
        rows, columns = np.arange(h)[None, :, None], np.arange(w)[None, None, :]
        for thing in range(1, things):
            top, left = rng.integers(0, h, (count, 1, 1)), rng.integers(0, w, (count, 1, 1))
            tall, wide = rng.integers(1, h, (count, 1, 1)), rng.integers(1, w, (count, 1, 1))
            inside = (rows >= top) & (rows < top + tall) & (columns >= left)
            inside &= (columns < left + wide) & there[:, thing][:, None, None]
            shown[inside] = thing
        shown = shown.reshape(count, h * w)
        photos = np.arange(count)[:, None]
        found = self._kinds[kinds[photos, shown]]
        found += (0.5 / self._size**0.5) * rng.standard_normal(found.shape, np.float32)
        return found * strengths[photos, shown][..., None]

    def classes(self, count: int) -> np.ndarray:
        """Returns unit vectors (count, size): half near kinds of things, half between two."""
        first, second = self._rng.integers(0, 2000, (2, count))
        share = np.where(np.arange(count) % 2, 0.5, 0.0)[:, None]
        found = (1 - share) * self._kinds[first] + share * self._kinds[second]
        return _unit(found + 0.3 / self._size**0.5 * self._rng.normal(size=found.shape))


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
