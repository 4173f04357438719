"""Batches of training and evaluation examples, in an order that depends on the seed alone.

A source gives the same batches to every run with the same seed, and gives the rest of an epoch
to a run that was stopped within it. Features and photos have sources of the same interface.
"""

import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import numpy as np
import tensorflow as tf
import tqdm

from biam_tf.errors import UserError
from training.data import photo_reader
from training.data.feature_store import FeatureStore

Cache = Literal["auto", "memory", "stream"]
# Photos among which a streamed epoch is mixed. A constant, not a share of the memory: the order
# of the batches would otherwise depend on the machine.
SHUFFLE_BUFFER = 2048
SHARDS_AT_ONCE = 4
CONTAINER_LIMIT = pathlib.Path("/sys/fs/cgroup/memory.max")


class _Reader(Protocol):
    """Gives `(indices (B,), inputs)` batches; an index is a position in the source's images."""

    def training(
        self, batch_size: int, seed: int, epoch: int, skip_batches: int
    ) -> tf.data.Dataset: ...

    def evaluation(self, batch_size: int) -> tf.data.Dataset: ...


class _Source:
    """What feature and photo sources share: labels, checks, and the pipeline's options."""

    def __init__(self, images: Sequence[str], cache: str, reader: _Reader):
        self.images = tuple(images)
        self.cache = cache
        self._reader = reader

    def __len__(self) -> int:
        return len(self.images)

    def training_batches(
        self,
        labels: np.ndarray,
        batch_size: int,
        seed: int,
        epoch: int,
        skip_batches: int = 0,
    ) -> tf.data.Dataset:
        """Returns one epoch of shuffled `(inputs, labels)` batches of the same size.

        Each example comes at most once; the `len(self) % batch_size` left over are others in
        each epoch. Under `tf.distribute`, pass this to `experimental_distribute_dataset`:
        `batch_size` is the global one.

        Args:
            labels: (N, C) int8, aligned with the source's images; not copied.
            batch_size: examples a batch.
            seed: with `epoch`, decides the order.
            epoch: number of the epoch, from 0.
            skip_batches: leaves out so many batches at the beginning, for a run that resumes.

        Raises:
            UserError: fewer images than one batch needs.
        """
        if len(labels) != len(self):
            raise ValueError(f"{len(labels)} rows of labels for {len(self)} images")
        if len(self) < batch_size:
            raise UserError(
                f"training.batch_size: {batch_size}, but there are only {len(self)} photos to "
                "train on; give a smaller one"
            )
        batches = self._reader.training(batch_size, seed, epoch, skip_batches).map(
            lambda indices, inputs: (inputs, _take(labels, indices)),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        return batches.prefetch(tf.data.AUTOTUNE).with_options(_options())

    def evaluation_batches(self, batch_size: int) -> tf.data.Dataset:
        """Returns the inputs of all images in their order; the last batch may be smaller."""
        batches = self._reader.evaluation(batch_size).map(lambda indices, inputs: inputs)
        return batches.prefetch(tf.data.AUTOTUNE).with_options(_options())


class FeatureSource(_Source):
    """Batches of stored features: `region_features` (B, h, w, d) and `scene_feature` (B, d_g).

    Both are float32 in a batch and float16 where they are kept. The order of the batches
    depends on the seed and on the cache: set it to other than "auto" where a run may be resumed
    on a machine with less memory.

    Args:
        store: the features.
        images: (N,) the photos of this source, such as those of one split.
        cache: "memory" reads the features of `images` once and shuffles all of them; "stream"
            reads them from the disk in every epoch, shuffled by shards and in a buffer; "auto"
            takes memory if the whole store fits.
        memory_limit_bytes: for "auto"; None is half of this machine's memory.

    Raises:
        UserError: the store lacks some of the images, or is damaged.
    """

    def __init__(
        self,
        store: FeatureStore,
        images: Sequence[str],
        cache: Cache = "auto",
        memory_limit_bytes: int | None = None,
    ):
        # The whole store, though this source may be one split: the others are read as well.
        cache = _choose_cache(cache, store.nbytes, memory_limit_bytes)
        if cache == "memory":
            regions, scenes = store.read(images)
            reader = _Arrays({"region_features": regions, "scene_feature": scenes})
        else:
            reader = _StreamedRecords(store, store.rows(images))
        super().__init__(images, cache, reader)


class PhotoSource(_Source):
    """Batches of `images` (B, S, S, 3), float32 in 0..255, for a backbone that is trained.

    Pixels are rounded to whole numbers, with either cache: exact for photos that have the size
    already, and within 0.5 of 255 for those that are resized.

    Args:
        directory: the folder that `images` are relative to.
        images: (N,) relative paths.
        image_size: S, side of the photos in pixels.
        cache: "memory" decodes all photos once and keeps them as bytes; "stream" decodes them
            in every epoch; "auto" takes memory if they fit. The batches are the same.
        memory_limit_bytes: for "auto"; None is half of this machine's memory.
        progress: makes the bar shown while photos are read into memory, called as
            `biam_tf.progress.progress`; None shows nothing.

    Raises:
        UserError: photos that cannot be read, all of them named. With "stream" a broken photo
            is only met, as a TensorFlow error, when its turn comes.
    """

    def __init__(
        self,
        directory: str | os.PathLike,
        images: Sequence[str],
        image_size: int,
        cache: Cache = "auto",
        memory_limit_bytes: int | None = None,
        progress: Callable[..., tqdm.tqdm] | None = None,
    ):
        cache = _choose_cache(cache, len(images) * image_size**2 * 3, memory_limit_bytes)
        if cache == "memory":
            reader = _Arrays(
                {"images": photo_reader.load_photos(directory, images, image_size, progress)}
            )
        else:
            reader = _StreamedPhotos(directory, images, image_size)
        super().__init__(images, cache, reader)


class _Arrays:
    """Examples in memory; every epoch is a permutation of all of them."""

    def __init__(self, arrays: dict[str, np.ndarray]):
        self._count = len(next(iter(arrays.values())))
        self._arrays = arrays

    def training(
        self, batch_size: int, seed: int, epoch: int, skip_batches: int
    ) -> tf.data.Dataset:
        order = _epoch_order(self._count, batch_size, seed, epoch, skip_batches)
        indices = tf.data.Dataset.from_tensor_slices(order).batch(batch_size, drop_remainder=True)
        return indices.map(self._gather, num_parallel_calls=tf.data.AUTOTUNE)

    def evaluation(self, batch_size: int) -> tf.data.Dataset:
        indices = tf.data.Dataset.range(self._count).batch(batch_size)
        return indices.map(self._gather, num_parallel_calls=tf.data.AUTOTUNE)

    def _gather(self, indices: tf.Tensor) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        inputs = {
            name: tf.cast(_take(array, indices), tf.float32) for name, array in self._arrays.items()
        }
        return indices, inputs


class _StreamedPhotos:
    """Photos decoded when their turn comes, in the same order as `_Arrays` of them."""

    def __init__(self, directory: str | os.PathLike, images: Sequence[str], image_size: int):
        self._directory = directory
        self._images = tf.constant(list(images))
        self._image_size = image_size

    def training(
        self, batch_size: int, seed: int, epoch: int, skip_batches: int
    ) -> tf.data.Dataset:
        order = _epoch_order(len(self._images), batch_size, seed, epoch, skip_batches)
        return self._decode(order).batch(batch_size, drop_remainder=True)

    def evaluation(self, batch_size: int) -> tf.data.Dataset:
        return self._decode(np.arange(len(self._images))).batch(batch_size)

    def _decode(self, order: np.ndarray) -> tf.data.Dataset:
        def example(index: tf.Tensor) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
            image = tf.gather(self._images, index)
            photo = photo_reader.read_photo(self._directory, image, self._image_size)
            return index, {"images": tf.round(photo)}

        indices = tf.data.Dataset.from_tensor_slices(order)
        return indices.map(example, num_parallel_calls=tf.data.AUTOTUNE)


class _StreamedRecords:
    """Features of a store that is larger than the memory, read once an epoch."""

    def __init__(self, store: FeatureStore, rows: np.ndarray):
        self._store = store
        self._shards = store.shards_of(rows)
        self._ascending = bool(np.all(np.diff(rows) > 0))
        index_of_row = np.full(len(store), -1, np.int64)
        index_of_row[rows] = np.arange(len(rows))
        self._index_of_row = tf.constant(index_of_row)

    def training(
        self, batch_size: int, seed: int, epoch: int, skip_batches: int
    ) -> tf.data.Dataset:
        rng = np.random.default_rng([seed, epoch])
        records = self._records(rng.permutation(self._shards), SHARDS_AT_ONCE).shuffle(
            SHUFFLE_BUFFER, seed=int(rng.integers(2**31)), reshuffle_each_iteration=False
        )
        # What is skipped is read, as the order is only known by shuffling, but not parsed.
        return self._parse(records.batch(batch_size, drop_remainder=True).skip(skip_batches))

    def evaluation(self, batch_size: int) -> tf.data.Dataset:
        if not self._ascending:
            raise UserError(
                f"{self._store.path}: the photos stand in another order than in the data set, so "
                "that their features cannot be streamed in order; set data.cache to memory, or "
                "delete the folder and extract the features again"
            )
        return self._parse(self._records(self._shards, shards_at_once=1).batch(batch_size))

    def _records(self, shards: np.ndarray, shards_at_once: int) -> tf.data.Dataset:
        """Returns `(index, serialized record)` of this source's images, shard by shard."""
        files = [self._store.shard_path(number) for number in shards]
        first_rows = [self._store.shard_rows(number).start for number in shards]
        records = tf.data.Dataset.from_tensor_slices(
            (files, np.asarray(first_rows, np.int64))
        ).interleave(
            lambda file, first_row: tf.data.TFRecordDataset(file).enumerate(first_row),
            cycle_length=shards_at_once,
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        indexed = records.map(lambda row, record: (tf.gather(self._index_of_row, row), record))
        return indexed.filter(lambda index, record: index >= 0)

    def _parse(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        def parse(
            indices: tf.Tensor, serialized: tf.Tensor
        ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
            parsed = self._store.parse(serialized)
            names = ("region_features", "scene_feature")
            return indices, {name: tf.cast(parsed[name], tf.float32) for name in names}

        return batches.map(parse, num_parallel_calls=tf.data.AUTOTUNE)


def _take(array: np.ndarray, indices: tf.Tensor) -> tf.Tensor:
    """Returns `array[indices]` in a graph, with a static shape where `indices` has one.

    NumPy does it because a tensor in a pipeline's graph is copied whenever TensorFlow rewrites
    or distributes the pipeline, which is every epoch, and these arrays are all the examples.
    """
    taken = tf.numpy_function(
        lambda indices: array.take(indices, axis=0), [indices], array.dtype, stateful=False
    )
    return tf.ensure_shape(taken, (indices.shape[0], *array.shape[1:]))


def _epoch_order(
    count: int, batch_size: int, seed: int, epoch: int, skip_batches: int
) -> np.ndarray:
    order = np.random.default_rng([seed, epoch]).permutation(count)
    return order[skip_batches * batch_size : count // batch_size * batch_size]


def _choose_cache(cache: str, nbytes: int, memory_limit_bytes: int | None) -> str:
    if cache not in ("auto", "memory", "stream"):
        raise ValueError(f"cache: expected 'auto', 'memory' or 'stream', got {cache!r}")
    if cache != "auto":
        return cache
    limit = default_memory_limit() if memory_limit_bytes is None else memory_limit_bytes
    return "memory" if nbytes <= limit else "stream"


def default_memory_limit() -> int:
    """Returns half of this machine's memory in bytes, or of the container's where it has less.

    Half of all memory, not of what happens to be free: a run that is resumed has to come to
    the same answer.
    """
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if CONTAINER_LIMIT.is_file():
        limit = CONTAINER_LIMIT.read_text().strip()
        if limit.isdigit():  # "max" where there is none
            total = min(total, int(limit))
    return total // 2


def _options() -> tf.data.Options:
    options = tf.data.Options()
    options.deterministic = True
    # Workers of a distribution take their part of every batch, never a part of the files.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return options
