"""Some photos of every split for a trial run, and how long it took to get their examples."""

import dataclasses
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from training.config import RunConfig
from training.data.dataset import Split, TaggingDataset
from training.data.features import storage
from training.data.features.extraction import extract_features
from training.data.features.finding import find_photos
from training.data.features.manifest import MANIFEST
from training.data.features.photo_files import PhotoFiles
from training.data.features.store import FeatureStore
from training.data.features.unfinished_store import photos_extracted
from training.data.folder.reader import check_photos
from training.data.input.sampling import make_sampler
from training.data.input.sources import (
    UNVARIED,
    FeatureSource,
    PhotoSource,
    choose_cache,
    photo_nbytes,
)
from training.dry_run.estimates import Workload
from training.pipeline.examples import (
    Source,
    feature_location,
    final_split,
    scored_splits,
    trainable_photos,
)
from training.pipeline.held_out import plan_folds
from training.pipeline.models import Models
from training.pipeline.run_folder import RunFolder

STEPS_ON_FEATURES, PHOTOS_FOR_STEPS = 2, 256


class Sample:
    """Some photos of every split, their examples, and how long it took to get them.

    Args:
        config: settings of the run.
        folder: of the run.
        dataset: of the run.
        models: of the run.
        directory: where the trial run writes.

    Attributes:
        train: the training photos of the run.
        final: the split that the run is evaluated on.
        scored: the splits whose photos are scored.
        small: the data set of the sample.
        photo_bytes: one photo's features or pixels in memory.
        in_memory: whether the run keeps its examples in memory.
        held_bytes: what the sample's examples take in memory.
        sources: the sample's examples, by split.
        to_extract: photos of the run whose features are not stored yet.
        check_photo, first_extraction, extract_photo, read_photo: seconds, see `Costs`.
        store_photo: bytes of one photo's stored features.
    """

    def __init__(
        self,
        config: RunConfig,
        folder: RunFolder,
        dataset: TaggingDataset,
        models: Models,
        directory: pathlib.Path,
    ):
        self.config, self.folder, self.models, self.directory = config, folder, models, directory
        self.dataset = dataset
        self.train = trainable_photos(dataset, config.data.max_labels)
        self.final = final_split(dataset)
        self.scored = scored_splits(dataset)
        self.small = _small_dataset(config, dataset, self.train)
        self.to_extract = 0
        self.check_photo = self.first_extraction = self.extract_photo = self.store_photo = 0.0
        self.photo_bytes = 0
        self._open = self._photos() if config.backbone.trainable else self._features()
        self.read_photo, self.sources = self._read()
        held = sum(map(len, self.sources.values()))
        self.held_bytes = held * self.photo_bytes if self.in_memory else 0

    @property
    def store(self) -> str:
        """Location of the run's feature store, which need not exist yet."""
        return feature_location(self.config, self.folder.path, self.dataset, self.models.backbone)

    @property
    def in_memory(self) -> bool:
        """Whether the run keeps its examples in memory."""
        return self._cache == "memory"

    def source(self, images: Sequence[str]) -> Source:
        """Returns the examples of some of the sample's photos, for scoring."""
        opened = {split.images: self.sources[name] for name, split in self.small.splits.items()}
        return opened.get(tuple(images)) or self._open(images, False)

    def _read(self) -> tuple[float, dict[str, Source]]:
        """Returns the seconds that reading a photo took, and the examples by split."""
        images = self.small.images[:1]
        self._open(images, False)  # traces TensorFlow's functions
        started = time.perf_counter()
        self._open(images, False)
        opening = time.perf_counter() - started
        started = time.perf_counter()
        sources = {
            name: self._open(split.images, name == "train")
            for name, split in self.small.splits.items()
        }
        seconds = time.perf_counter() - started - len(sources) * opening
        return max(0.0, seconds / sum(map(len, sources.values()))), sources

    def _photos(self) -> Callable[[Sequence[str], bool], Source]:
        """Returns a function that opens photos, augmented or not."""
        size, augmentation = self.models.backbone.input_shape[1], self.config.data.augmentation
        self.photo_bytes = photo_nbytes(size, augmentation)
        total = len(self.train) + sum(len(self.dataset.split(name)) for name in self.scored)
        self._cache = choose_cache(self.config.data.cache, total * self.photo_bytes)

        def open_photos(images: Sequence[str], augmented: bool) -> Source:
            return PhotoSource(
                self.dataset.directory,
                images,
                size,
                self._cache,
                augmentation=augmentation if augmented else UNVARIED,
                orientation=self.config.backbone.orientation,
            )

        return open_photos

    def _features(self) -> Callable[[Sequence[str], bool], Source]:
        """Returns a function that opens stored features, which are extracted if need be."""
        location, photos = self.store, len(self.dataset.images)
        store = None
        if storage.is_file(storage.join(location, MANIFEST)):
            whole = FeatureStore.open(location, backbone_name=self.config.backbone.name)
            files = PhotoFiles(self.dataset.directory)
            hash_all, orientation = self.config.data.hash_photos, self.config.backbone.orientation
            found = find_photos(whole, files, self.dataset.images, hash_all, orientation)
            self.to_extract = len(found.missing)
            if not self.to_extract:
                store = whole.for_photos(found.rows, found.broken)
        else:
            self.to_extract = photos - photos_extracted(location)
        if store is None:
            store = self._extract()
        self.photo_bytes = store.manifest.photo_nbytes
        stored = sum(shard.bytes for part in store.parts for shard in part.manifest.shards)
        self.store_photo = stored / store.record_count
        self._cache = choose_cache(self.config.data.cache, photos * self.photo_bytes)
        return lambda images, augmented: FeatureSource(store, images, self._cache)

    def _extract(self) -> FeatureStore:
        images = self.small.images
        started = time.perf_counter()
        check_photos(self.small, images)
        self.check_photo = (time.perf_counter() - started) / len(images)
        stopwatch = Stopwatch()

        def make_bar(**settings: Any) -> Any:  # has what is used of a tqdm
            return stopwatch

        started = time.perf_counter()
        store = extract_features(
            self.models.backbone,
            self.config.backbone.name,
            self.dataset.directory,
            images,
            self.directory / "features",
            batch_size=self.config.backbone.batch_size,
            progress=make_bar,
            orientation=self.config.backbone.orientation,
        )
        first, *rest = stopwatch.updates
        self.first_extraction = first[0] - started
        if rest:
            self.extract_photo = (rest[-1][0] - first[0]) / sum(count for _, count in rest)
        else:
            self.extract_photo = self.first_extraction / first[1]
        return store


class Stopwatch:
    """A progress bar and an `Observer` of training that records times.

    Attributes:
        updates: when the bar was updated, and by how much.
        events: what happened in a training, and when.
    """

    def __init__(self) -> None:
        self.updates: list[tuple[float, int]] = []
        self.events: list[tuple[str, float]] = []

    def __enter__(self) -> "Stopwatch":
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    def update(self, count: int) -> None:
        """Records, as a progress bar, that `count` more photos are done."""
        self.updates.append((time.perf_counter(), count))

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """Records, as an observer, a step that the device has completed."""
        values["loss"]
        self.record("step")

    def epoch(self, record: Mapping[str, Any]) -> None:
        """Records, as an observer, the end of an epoch."""
        self.record("epoch")

    def record(self, what: str) -> None:
        """Records that something has just happened."""
        self.events.append((what, time.perf_counter()))


def workload(sample: Sample) -> Workload:
    """Returns how much the whole run has to do."""
    config, dataset = sample.config, sample.dataset
    labels = sample.train.labels.columns(dataset.seen)
    sampler = make_sampler(config.data, labels, config.training.seed, config.training.epochs)
    validation = len(dataset.split("val")) if "val" in dataset.splits else 0
    folds = plan_folds(config, dataset)
    read = len(sample.train) + sum(len(dataset.split(name)) for name in sample.scored)
    return Workload(
        photos=len(dataset.images),
        photos_to_extract=sample.to_extract,
        photos_to_read=read if sample.in_memory else 0,
        epochs=config.training.epochs,
        steps_per_epoch=sampler.epoch_size // config.training.batch_size,
        batch_size=config.training.batch_size,
        validation_photos=validation,
        test_photos=len(dataset.split(sample.final)),
        fold_steps=tuple(fold.epochs * fold.steps_per_epoch for fold in folds),
        fold_epochs=tuple(fold.epochs for fold in folds),
    )


def _small_dataset(config: RunConfig, dataset: TaggingDataset, train: Split) -> TaggingDataset:
    """Returns a data set of photos for two training steps or more, and two batches to score."""
    batch = config.training.batch_size
    steps = STEPS_ON_FEATURES
    if config.backbone.trainable:
        steps = max(steps, PHOTOS_FOR_STEPS // batch)
    counts = {"train": steps * batch, "val": 2 * batch, "test": 2 * batch}
    splits = {**dataset.splits, "train": train}
    small = {name: _spread(split, counts[name]) for name, split in splits.items()}
    return dataclasses.replace(dataset, splits=small)


def _spread(split: Split, count: int) -> Split:
    """Returns up to `count` photos, evenly spread over the split."""
    chosen = np.linspace(0, len(split) - 1, min(count, len(split))).round().astype(int)
    return split.part(chosen)
