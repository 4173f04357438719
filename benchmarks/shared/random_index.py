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
    """
    rng = np.random.default_rng(0)
    Vocabulary(("a",), np.eye(1, embedding_size), ("seen",)).save(folder / VOCABULARY)
    with progress(photos, "Writing", "photo") as bar:
        for start in range(0, photos, SHARD_PHOTOS):
            numbers = range(start, min(start + SHARD_PHOTOS, photos))
            shape = (len(numbers), grid[0] * grid[1], embedding_size)
            names = [IndexedPhoto(photo_name(number), 0, 0) for number in numbers]
            number = 1 + start // SHARD_PHOTOS
            write_shard(folder, names, rng.normal(size=shape).astype(np.float16), number)
            bar.update(len(numbers))
    facts = (grid, embedding_size, False, pooled)
    IndexManifest(str(photo_folder), str(folder), "0", *facts).write(folder)
