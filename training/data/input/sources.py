"""Batches of training and evaluation examples, in an order that depends only on the seed.

Runs with the same seed get the same batches, and a run that was stopped within an epoch can get the
rest of it. Feature and photo sources have the same interface.
"""

import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import tensorflow as tf
import tqdm

from biam_tf.errors import UserError
from biam_tf.photos import Orientation
from biam_tf.sparse_labels import Labels
from training.config.schema import AugmentationConfig
from training.data.features.store import FeatureStore
from training.data.input import photo_reader
from training.data.input.augmentation import picture_side
from training.data.input.batches import Arrays, Photos, Reader, StreamedRecords, take
from training.data.input.sampling import Natural, Sampler
from training.data.input.shares import WHOLE, Share

Cache = Literal["auto", "memory", "stream"]
UNVARIED = AugmentationConfig()
CONTAINER_LIMIT = pathlib.Path("/sys/fs/cgroup/memory.max")


class _Source:
    """Base class of feature and photo sources: labels, checks and pipeline options."""

    reads_shares = True  # `training_batches` has the argument `share`

    def __init__(self, images: Sequence[str], cache: Cache, sampler: Sampler, reader: Reader):
        self.images = tuple(images)
        self.cache = cache
        self._epoch_size = sampler.epoch_size
        self._reader = reader

    def __len__(self) -> int:
        """Returns the number of examples per epoch: all images, unless a sampler takes fewer."""
        return self._epoch_size

    def training_batches(
        self,
        labels: Labels,
        batch_size: int,
        seed: int,
        epoch: int,
        skip_batches: int = 0,
        share: Share = WHOLE,
    ) -> tf.data.Dataset:
        """Returns one epoch of shuffled `(inputs, labels)` batches of the same size.

        The sampler determines how often each example occurs, by default once. The last
        `len(self) % batch_size` examples are dropped; they differ between epochs. With
        `tf.distribute`, use `training.data.input.shares.distributed_batches`.

        Args:
            labels: (N, C) int8, aligned with the source's images; not copied.
            batch_size: examples per batch.
            seed: determines the order, together with `epoch`.
            epoch: number of the epoch, from 0.
            skip_batches: number of batches to skip at the beginning, to resume an epoch.
            share: the part of each batch that is read, in batches of one device.

        Raises:
            UserError: there are fewer examples than `batch_size`.
        """
        if len(labels) != len(self.images):
            raise ValueError(f"{len(labels)} rows of labels for {len(self.images)} images")
        if len(self) < batch_size:
            raise UserError(
                f"training.batch_size: {batch_size}, but there are only {len(self)} photos to "
                "train on; use a smaller batch size"
            )
        batches = self._reader.training(batch_size, seed, epoch, skip_batches, share).map(
            lambda indices, inputs: (inputs, take(labels, indices)),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        return batches.prefetch(tf.data.AUTOTUNE).with_options(_options(share))

    def evaluation_batches(self, batch_size: int) -> tf.data.Dataset:
        """Returns the inputs of all images in order; the last batch may be smaller."""
        batches = self._reader.evaluation(batch_size).map(lambda indices, inputs: inputs)
        return batches.prefetch(tf.data.AUTOTUNE).with_options(_options())


class FeatureSource(_Source):
    """Batches of stored features: `region_features` (B, h, w, d) and `scene_feature` (B, d_g).

    Both are float16, as in the store, in training batches, so that half the bytes travel to the
    device, where a model makes them float32; they are float32 in evaluation batches. The order of
    the batches depends on the seed and the cache: do not use "auto" if a run may be resumed on a
    machine with less memory.

    Args:
        store: the feature store.
        images: (N,) the photos of this source, such as those of one split.
        cache: "memory" reads the features of `images` once and shuffles all of them; "stream"
            reads them from the disk in every epoch, shuffled by shards and in a buffer; "auto"
            is "memory" if the whole store fits.
        memory_limit_bytes: limit for "auto"; None is half of the machine's memory.
        sampler: determines how often each image occurs in a training epoch; None is once.
        service: `host:port` of a tf.data service that reads the features of training batches, which
            are then not kept in memory; None: this process reads them.

    Raises:
        UserError: the store lacks some of the images, or is damaged.
    """

    def __init__(
        self,
        store: FeatureStore,
        images: Sequence[str],
        cache: Cache = "auto",
        memory_limit_bytes: int | None = None,
        sampler: Sampler | None = None,
        service: str | None = None,
    ):
        sampler = sampler or Natural(len(images))
        reader: Reader
        cache = "stream" if service else cache
        # The size of the whole store, as other splits are read as well.
        cache = choose_cache(cache, store.nbytes, memory_limit_bytes)
        if cache == "memory":
            regions, scenes = store.read(images)
            reader = Arrays({"region_features": regions, "scene_feature": scenes}, sampler)
        else:
            reader = StreamedRecords(store, store.rows(images), sampler, service)
        super().__init__(images, cache, sampler, reader)


class PhotoSource(_Source):
    """Batches of `images` (B, S, S, 3), float32 in 0..255, for a backbone that is trained.

    Pixels are those of a server and of stored features. The batches do not depend on the cache
    unless training photos are cropped: "memory" crops pictures of a fixed size (see
    `augmentation.picture_side`), rounded to bytes, "stream" the original photos.

    Args:
        directory: the folder that `images` are relative to.
        images: (N,) relative paths.
        image_size: side S of the photos in pixels.
        cache: "memory" decodes all photos once and keeps them, 12 bytes per pixel (3 for pictures
            that are cropped); "stream" decodes them in every epoch; "auto" is "memory" if they fit.
        memory_limit_bytes: limit for "auto"; None is half of the machine's memory.
        progress: creates the progress bar for reading photos into memory, as
            `biam_tf.progress.progress`; None shows none.
        augmentation: augmentation of training photos. Evaluation photos are not augmented; they
            are read from the disk if those in memory have another size.
        sampler: determines how often each photo occurs in a training epoch; None is once.
        orientation: whether photos are turned upright as EXIF data say.

    Raises:
        UserError: some photos cannot be read; the message lists them. With "stream", a broken
            photo raises a TensorFlow error when it is read.
    """

    def __init__(
        self,
        directory: str | os.PathLike,
        images: Sequence[str],
        image_size: int,
        cache: Cache = "auto",
        memory_limit_bytes: int | None = None,
        progress: Callable[..., tqdm.tqdm] | None = None,
        augmentation: AugmentationConfig = UNVARIED,
        sampler: Sampler | None = None,
        orientation: Orientation = "follow",
    ):
        sampler = sampler or Natural(len(images))
        reader: Reader
        side = picture_side(image_size, augmentation)
        nbytes = len(images) * photo_nbytes(image_size, augmentation)
        cache = choose_cache(cache, nbytes, memory_limit_bytes)
        pictures = None
        if cache == "memory":
            dtype = np.uint8 if augmentation.crop_scale is not None else np.float32
            pictures = photo_reader.load_photos(
                directory, images, side, progress, orientation, dtype
            )
        if pictures is not None and not augmentation.any:
            reader = Arrays({"images": pictures}, sampler)  # whole batches at a time
        else:
            reader = Photos(
                directory, images, image_size, augmentation, sampler, pictures, orientation
            )
        super().__init__(images, cache, sampler, reader)


def photo_nbytes(image_size: int, augmentation: AugmentationConfig) -> int:
    """Returns the bytes of a photo in the memory of a `PhotoSource`.

    Photos are kept as float32, so that they are what a server sees; pictures to be cropped at
    random are larger, and kept as bytes.
    """
    return picture_side(image_size, augmentation) ** 2 * (
        3 if augmentation.crop_scale is not None else 12
    )


def choose_cache(cache: Cache, nbytes: int, memory_limit_bytes: int | None = None) -> Cache:
    """Returns "memory" or "stream": the cache that a source of `nbytes` bytes uses."""
    if cache not in ("auto", "memory", "stream"):
        raise ValueError(f"cache: expected 'auto', 'memory' or 'stream', got {cache!r}")
    if cache != "auto":
        return cache
    limit = default_memory_limit() if memory_limit_bytes is None else memory_limit_bytes
    return "memory" if nbytes <= limit else "stream"


def default_memory_limit() -> int:
    """Returns half of the memory of the machine, or of the container if less, in bytes.

    Uses the total memory, not the free memory, so that a resumed run makes the same choice.
    """
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if CONTAINER_LIMIT.is_file():
        limit = CONTAINER_LIMIT.read_text().strip()
        if limit.isdigit():  # "max" if there is no limit
            total = min(total, int(limit))
    return total // 2


def _options(share: Share = WHOLE) -> tf.data.Options:
    options = tf.data.Options()
    options.deterministic = True
    # With tf.distribute, the devices of a process share every batch, not the files; processes have
    # their shares already.
    policy = tf.data.experimental.AutoShardPolicy
    of_devices = policy.DATA if share.count == 1 else policy.OFF
    options.experimental_distribute.auto_shard_policy = of_devices
    return options
