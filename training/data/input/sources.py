"""Batches of training and evaluation examples, in an order that depends on the seed alone.

A source gives the same batches to every run with the same seed, and gives the rest of an epoch
to a run that was stopped within it. Features and photos have sources of the same interface.
"""

import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import tensorflow as tf
import tqdm

from biam_tf.errors import UserError
from training.config.schema import AugmentationConfig
from training.data.features.store import FeatureStore
from training.data.input import photo_reader
from training.data.input.augmentation import picture_side
from training.data.input.batches import Arrays, Photos, Reader, StreamedRecords, take
from training.data.input.sampling import Natural, Sampler

Cache = Literal["auto", "memory", "stream"]
UNVARIED = AugmentationConfig()
CONTAINER_LIMIT = pathlib.Path("/sys/fs/cgroup/memory.max")


class _Source:
    """What feature and photo sources share: labels, checks, and the pipeline's options."""

    def __init__(self, images: Sequence[str], cache: Cache, sampler: Sampler, reader: Reader):
        self.images = tuple(images)
        self.cache = cache
        self._epoch_size = sampler.epoch_size
        self._reader = reader

    def __len__(self) -> int:
        """Returns how many examples an epoch draws from: all images, unless a sampler says less."""
        return self._epoch_size

    def training_batches(
        self,
        labels: np.ndarray,
        batch_size: int,
        seed: int,
        epoch: int,
        skip_batches: int = 0,
    ) -> tf.data.Dataset:
        """Returns one epoch of shuffled `(inputs, labels)` batches of the same size.

        Each example comes as often as the sampler says, once without one; the
        `len(self) % batch_size` left over are others in each epoch. Under `tf.distribute`, pass
        this to `experimental_distribute_dataset`: `batch_size` is the global one.

        Args:
            labels: (N, C) int8, aligned with the source's images; not copied.
            batch_size: examples a batch.
            seed: with `epoch`, decides the order.
            epoch: number of the epoch, from 0.
            skip_batches: leaves out so many batches at the beginning, for a run that resumes.

        Raises:
            UserError: fewer images than one batch needs.
        """
        if len(labels) != len(self.images):
            raise ValueError(f"{len(labels)} rows of labels for {len(self.images)} images")
        if len(self) < batch_size:
            raise UserError(
                f"training.batch_size: {batch_size}, but there are only {len(self)} photos to "
                "train on; give a smaller one"
            )
        batches = self._reader.training(batch_size, seed, epoch, skip_batches).map(
            lambda indices, inputs: (inputs, take(labels, indices)),
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
        sampler: says how often each image comes in an epoch of training; None is once.

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
    ):
        sampler = sampler or Natural(len(images))
        reader: Reader
        # The whole store, though this source may be one split: the others are read as well.
        cache = choose_cache(cache, store.nbytes, memory_limit_bytes)
        if cache == "memory":
            regions, scenes = store.read(images)
            reader = Arrays({"region_features": regions, "scene_feature": scenes}, sampler)
        else:
            reader = StreamedRecords(store, store.rows(images), sampler)
        super().__init__(images, cache, sampler, reader)


class PhotoSource(_Source):
    """Batches of `images` (B, S, S, 3), float32 in 0..255, for a backbone that is trained.

    Pixels are rounded to whole numbers, with either cache: exact for photos that have the size
    already, and within 0.5 of 255 for those that are resized. The batches do not depend on the
    cache, except where training photos are cropped: from memory that is done with pictures of a
    fixed size (see `augmentation.picture_side`), from the disk with the photos themselves.

    Args:
        directory: the folder that `images` are relative to.
        images: (N,) relative paths.
        image_size: S, side of the photos in pixels.
        cache: "memory" decodes all photos once and keeps them as bytes; "stream" decodes them
            in every epoch; "auto" takes memory if they fit.
        memory_limit_bytes: for "auto"; None is half of this machine's memory.
        progress: makes the bar shown while photos are read into memory, called as
            `biam_tf.progress.progress`; None shows nothing.
        augmentation: how photos are varied in training; never in an evaluation, which reads them
            from the disk where those in memory are of another size.
        sampler: says how often each photo comes in an epoch of training; None is once.

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
        augmentation: AugmentationConfig = UNVARIED,
        sampler: Sampler | None = None,
    ):
        sampler = sampler or Natural(len(images))
        reader: Reader
        side = picture_side(image_size, augmentation)
        cache = choose_cache(cache, len(images) * side**2 * 3, memory_limit_bytes)
        pictures = None
        if cache == "memory":
            pictures = photo_reader.load_photos(directory, images, side, progress)
        if pictures is not None and not augmentation.any:
            reader = Arrays({"images": pictures}, sampler)  # whole batches at a time
        else:
            reader = Photos(directory, images, image_size, augmentation, sampler, pictures)
        super().__init__(images, cache, sampler, reader)


def choose_cache(cache: Cache, nbytes: int, memory_limit_bytes: int | None = None) -> Cache:
    """Returns "memory" or "stream": what a source with this setting and so many bytes does."""
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
