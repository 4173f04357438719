"""Indexes of random region embeddings, to measure searches with."""

import pathlib
from collections.abc import Callable

import numpy as np

from biam_tf.progress import progress
from biam_tf.vocabulary import Vocabulary
from serving.index import SHARD_PHOTOS, write_shard
from serving.indexing.photo_index import VOCABULARY, IndexedPhoto, IndexManifest


def write_random_index(
    folder: pathlib.Path,
    photos: int,
    grid: tuple[int, int],
    embedding_size: int,
    pooled: int,
    photo_folder: pathlib.Path,
    photo_name: Callable[[int], str] = "{}.jpg".format,
) -> None:
    """Writes an index of photos whose regions are random.

    Args:
        folder: to write it to; it is there.
        photos: how many.
        grid: (h, w) regions of a photo.
        embedding_size: d_a, length of a class embedding.
        pooled: k, the regions of a class that make its score.
        photo_folder: where the photos are.
        photo_name: the name of a photo by its number.
    """
    rng = np.random.default_rng(0)
    Vocabulary(("a",), np.eye(1, embedding_size), ("seen",)).save(folder / VOCABULARY)
    shards = []
    with progress(photos, "Writing", "photo") as bar:
        for start in range(0, photos, SHARD_PHOTOS):
            numbers = range(start, min(start + SHARD_PHOTOS, photos))
            shape = (len(numbers), grid[0] * grid[1], embedding_size)
            names = [IndexedPhoto(photo_name(number), 0, 0) for number in numbers]
            shards.append(write_shard(folder, names, rng.normal(size=shape).astype(np.float16)))
            bar.update(len(numbers))
    facts = (grid, embedding_size, False, pooled)
    IndexManifest(str(photo_folder), str(folder), "0", *facts, tuple(shards)).write(folder)
