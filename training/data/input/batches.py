"""Readers that create batches of examples from memory, photo files or records."""

import functools
import os
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import tensorflow as tf

from biam_tf.photos import Orientation
from biam_tf.sparse_labels import Labels
from training.config.schema import AugmentationConfig
from training.data.features.record_places import RecordPlaces
from training.data.features.store import FeatureStore
from training.data.input.augmentation import augment, epoch_seed
from training.data.input.photo_reader import read_photo, read_whole_photo
from training.data.input.sampling import Natural, Sampler
from training.data.input.shares import WHOLE, Share, read_by_place

# Size of the shuffle buffer of a streamed epoch, in photos. A constant, so that the order of the
# batches does not depend on the memory of the machine.
SHUFFLE_BUFFER = 2048
SHARDS_AT_ONCE = 4
_NUMBERS_AT_ONCE = 2**16


class Reader(Protocol):
    """Creates batches `(indices (B,), inputs)`; an index is a position in the source's images."""

    def training(
        self, batch_size: int, seed: int, epoch: int, skip_batches: int, share: Share = WHOLE
    ) -> tf.data.Dataset:
        """Returns the batches of an epoch, all of the same size, skipping the first ones.

        Features are float16. With a share, batches have the examples of a device.
        """

    def evaluation(self, batch_size: int) -> tf.data.Dataset:
        """Returns all images once, in order."""


class Arrays:
    """Examples in memory."""

    def __init__(self, arrays: dict[str, np.ndarray], sampler: Sampler):
        self._count = len(next(iter(arrays.values())))
        self._arrays = arrays
        self._sampler = sampler

    def training(
        self, batch_size: int, seed: int, epoch: int, skip_batches: int, share: Share = WHOLE
    ) -> tf.data.Dataset:
        """Returns the rest of an epoch, in random order."""
        order = _epoch_order(self._sampler, batch_size, seed, epoch, skip_batches)
        indices = tf.data.Dataset.from_tensor_slices(share.of(order, batch_size))
        batches = indices.batch(share.examples(batch_size), drop_remainder=True)
        return batches.map(self._gather, num_parallel_calls=tf.data.AUTOTUNE)

    def evaluation(self, batch_size: int) -> tf.data.Dataset:
        """Returns all images in order."""
        indices = tf.data.Dataset.range(self._count).batch(batch_size)
        return indices.map(
            lambda own: (own, in_float32(self._gather(own)[1])),
            num_parallel_calls=tf.data.AUTOTUNE,
        )

    def _gather(self, indices: tf.Tensor) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        return indices, {name: take(array, indices) for name, array in self._arrays.items()}


class Photos:
    """Photos that are decoded or taken from memory one by one, then augmented.

    Args:
        directory: the folder that `images` are relative to.
        images: (N,) relative paths.
        image_size: side S of the photos in a batch, in pixels.
        augmentation: augmentation of training photos; evaluation photos are never augmented.
        sampler: determines how often each photo occurs in an epoch.
        pictures: (N, D, D, 3) uint8 or float32, the pictures in memory; None decodes the photos in
            every epoch and crops them at their original size.
        orientation: whether photos are turned upright as EXIF data say.
    """

    def __init__(
        self,
        directory: str | os.PathLike,
        images: Sequence[str],
        image_size: int,
        augmentation: AugmentationConfig,
        sampler: Sampler,
        pictures: np.ndarray | None = None,
        orientation: Orientation = "follow",
    ):
        self._orientation = orientation
        self._directory = directory
        self._images = tf.constant(list(images))
        self._image_size = image_size
        self._augmentation = augmentation
        self._sampler = sampler
        self._pictures = pictures

    def training(
        self, batch_size: int, seed: int, epoch: int, skip_batches: int, share: Share = WHOLE
    ) -> tf.data.Dataset:
        """Returns the rest of an epoch, in random order."""
        order = _epoch_order(self._sampler, batch_size, seed, epoch, skip_batches)
        # Photos are varied by their place in the epoch, whoever reads them.
        places_of_epoch = skip_batches * batch_size + np.arange(len(order))
        own = (share.of(values, batch_size) for values in (places_of_epoch, order))
        seed_of_epoch = tf.constant(epoch_seed(seed, epoch))

        def example(place: tf.Tensor, index: tf.Tensor) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
            if self._pictures is not None:
                photo = tf.cast(take(self._pictures, index), tf.float32)
            elif self._augmentation.crop_scale is not None:
                image = tf.gather(self._images, index)
                photo = read_whole_photo(self._directory, image, self._orientation)
            else:
                photo = self._decode(index)
            if self._augmentation.any:
                seed = tf.random.experimental.stateless_fold_in(seed_of_epoch, place)
                photo = augment(photo, self._image_size, self._augmentation, seed)
            return index, {"images": photo}

        places = tf.data.Dataset.from_tensor_slices(tuple(own))
        photos = places.map(example, num_parallel_calls=tf.data.AUTOTUNE)
        return photos.batch(share.examples(batch_size), drop_remainder=True)

    def evaluation(self, batch_size: int) -> tf.data.Dataset:
        """Returns all images in order."""
        indices = tf.data.Dataset.range(len(self._images))
        return indices.map(
            lambda index: (index, {"images": self._decode(index)}),
            num_parallel_calls=tf.data.AUTOTUNE,
        ).batch(batch_size)

    def _decode(self, index: tf.Tensor) -> tf.Tensor:
        image = tf.gather(self._images, index)
        return read_photo(self._directory, image, self._image_size, self._orientation)


class StreamedRecords:
    """Stored features that do not fit into memory, read once per epoch.

    One process reads whole shards. Several, and a tf.data service, read single records, in the
    same order.
    """

    def __init__(
        self, store: FeatureStore, rows: np.ndarray, sampler: Sampler, service: str | None = None
    ):
        self._store, self._service = store, service
        self._sampler = sampler
        self._rows = rows
        self._shards = store.shards_of(rows)
        self._ascending = bool(np.all(np.diff(rows) > 0))
        index_of_row = np.full(store.record_count, -1, np.int64)
        index_of_row[rows] = np.arange(len(rows))
        self._index_of_row = tf.constant(index_of_row)

    def training(
        self, batch_size: int, seed: int, epoch: int, skip_batches: int, share: Share = WHOLE
    ) -> tf.data.Dataset:
        """Returns the rest of an epoch, shuffled by shards and in a buffer."""
        rng = np.random.default_rng([seed, epoch])
        shards, seed_of_buffer = rng.permutation(self._shards), int(rng.integers(2**31))
        if share.count == 1 and self._service is None:
            records = self._shuffled(
                self._records(shards, SHARDS_AT_ONCE), seed, epoch, seed_of_buffer
            )
            # Skipped records are read, as shuffling determines the order, but not parsed.
            batches = records.batch(batch_size, drop_remainder=True)
            return self._parse(batches.skip(skip_batches))
        # The same steps, without reading any record, give the order.
        numbers = self._records(shards, SHARDS_AT_ONCE, reads=False)
        numbers = self._shuffled(numbers, seed, epoch, seed_of_buffer)
        numbers = numbers.map(lambda index, nothing: index).batch(_NUMBERS_AT_ONCE)
        order = np.concatenate([np.zeros(0, np.int64), *numbers.as_numpy_iterator()])
        order = order[skip_batches * batch_size : len(order) // batch_size * batch_size]
        own, size = share.of(order, batch_size), share.examples(batch_size)
        return read_by_place(self._store, self._places, own, size, self._service)

    @functools.cached_property
    def _places(self) -> RecordPlaces:
        return RecordPlaces.of(self._store, self._rows)

    def _shuffled(
        self, records: tf.data.Dataset, seed: int, epoch: int, seed_of_buffer: int
    ) -> tf.data.Dataset:
        """Repeats `(index, record)` as the sampler says, and shuffles them in a buffer."""
        if not isinstance(self._sampler, Natural):
            counts = tf.constant(self._sampler.counts(seed, epoch))
            records = records.flat_map(
                lambda *record: tf.data.Dataset.from_tensors(record).repeat(counts[record[0]])
            )
        return records.shuffle(SHUFFLE_BUFFER, seed=seed_of_buffer, reshuffle_each_iteration=False)

    def evaluation(self, batch_size: int) -> tf.data.Dataset:
        """Returns all images in order; slower where the store has another order."""
        if not self._ascending:
            return self._in_given_order(batch_size)
        batches = self._parse(self._records(self._shards, shards_at_once=1).batch(batch_size))
        return batches.map(lambda indices, inputs: (indices, in_float32(inputs)))

    def _in_given_order(self, batch_size: int) -> tf.data.Dataset:
        """Reads some thousand records at a time, each time from all shards that hold them."""
        step = max(1, SHUFFLE_BUFFER // batch_size) * batch_size

        def batches() -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
            for start in range(0, len(self._rows), step):
                regions, scenes = self._store.read_rows(self._rows[start : start + step])
                for first in range(0, len(regions), batch_size):
                    chosen = slice(first, first + batch_size)
                    yield (
                        start + np.arange(len(regions))[chosen],
                        {
                            "region_features": regions[chosen].astype(np.float32),
                            "scene_feature": scenes[chosen].astype(np.float32),
                        },
                    )

        shapes = {
            "region_features": (None, *self._store.region_shape),
            "scene_feature": (None, self._store.scene_size),
        }
        inputs = {name: tf.TensorSpec(shape, tf.float32) for name, shape in shapes.items()}
        return tf.data.Dataset.from_generator(
            batches, output_signature=(tf.TensorSpec((None,), tf.int64), inputs)
        )

    def _records(
        self, shards: np.ndarray, shards_at_once: int, reads: bool = True
    ) -> tf.data.Dataset:
        """Returns `(index, serialized record)` of the images of this source, shard by shard.

        Without reading, the records are empty.
        """
        files = [self._store.shard_path(number) for number in shards]
        rows = [self._store.shard_rows(number) for number in shards]
        first, last = (np.array([getattr(own, end) for own in rows]) for end in ("start", "stop"))

        def of_shard(file: tf.Tensor, first: tf.Tensor, last: tf.Tensor) -> tf.data.Dataset:
            if reads:
                return tf.data.TFRecordDataset(file).enumerate(first)
            return tf.data.Dataset.range(first, last).map(lambda row: (row, ""))

        records = tf.data.Dataset.from_tensor_slices((files, first, last)).interleave(
            of_shard,
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
            return indices, {name: parsed[name] for name in ("region_features", "scene_feature")}

        return batches.map(parse, num_parallel_calls=tf.data.AUTOTUNE)


def in_float32(inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Returns inputs by name as float32."""
    return {name: tf.cast(values, tf.float32) for name, values in inputs.items()}


def take(array: Labels, indices: tf.Tensor) -> tf.Tensor:
    """Returns `array[indices]` in a graph, with a static shape if `indices` has one.

    Uses NumPy because TensorFlow copies the tensors in a pipeline's graph whenever it rewrites or
    distributes the pipeline, that is in every epoch, and these arrays hold all examples.
    """
    taken = tf.numpy_function(
        lambda indices: array[indices], [indices], array.dtype, stateful=False
    )
    return tf.ensure_shape(taken, (*indices.shape, *array.shape[1:]))


def _epoch_order(
    sampler: Sampler, batch_size: int, seed: int, epoch: int, skip_batches: int
) -> np.ndarray:
    counts = sampler.counts(seed, epoch)
    photos = np.repeat(np.arange(len(counts)), counts)
    order = np.random.default_rng([seed, epoch]).permutation(photos)
    return order[skip_batches * batch_size : len(order) // batch_size * batch_size]
