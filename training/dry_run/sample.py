"""Some photos of every split, for a run in small, and what it took to get their examples."""

import dataclasses
import time

import numpy as np

from training.data.dataset import Split, TaggingDataset
from training.data.features import storage
from training.data.features.extraction import extract_features
from training.data.features.store import MANIFEST, FeatureStore
from training.data.features.unfinished_store import photos_extracted
from training.data.folder.reader import check_photos
from training.data.input.augmentation import picture_side
from training.data.input.sampling import make_sampler
from training.data.input.sources import UNVARIED, FeatureSource, PhotoSource, choose_cache
from training.dry_run.estimates import Workload
from training.pipeline.examples import (
    feature_location,
    final_split,
    scored_splits,
    trainable_photos,
)
from training.pipeline.whole_run import Models

STEPS_ON_FEATURES, PHOTOS_FOR_STEPS = 2, 256


class Sample:
    """Some photos of every split, their examples, and what it took to get them."""

    def __init__(self, config, folder, dataset: TaggingDataset, models: Models, aside):
        self.config, self.folder, self.models, self.aside = config, folder, models, aside
        self.dataset = dataset
        self.train = trainable_photos(dataset, config.data.max_labels)
        self.final = final_split(dataset)
        self.scored = scored_splits(dataset)
        batch = config.training.batch_size
        steps = STEPS_ON_FEATURES
        if config.backbone.trainable:
            steps = max(steps, PHOTOS_FOR_STEPS // batch)
        counts = {"train": steps * batch, "val": 2 * batch, "test": 2 * batch}
        parts = {**dataset.splits, "train": self.train}
        self.small = dataclasses.replace(
            dataset, splits={name: _spread(parts[name], counts[name]) for name in parts}
        )
        self.images = self.small.images
        self.to_extract = 0
        self.check_photo = self.first_extraction = self.extract_photo = self.store_photo = 0.0
        self._make_source = self._photos if config.backbone.trainable else self._features()
        self._make_source(self.images[:1])  # the first one traces TensorFlow's functions
        started = time.perf_counter()
        self._make_source(self.images[:1])
        opening = time.perf_counter() - started
        started = time.perf_counter()
        self.sources = {
            name: self._make_source(split.images, varied=name == "train")
            for name, split in self.small.splits.items()
        }
        reading = time.perf_counter() - started - len(self.sources) * opening
        held = sum(map(len, self.sources.values()))
        self.read_photo = max(0.0, reading / held)
        self.in_memory = self.cache == "memory"
        self.held_bytes = held * self.photo_bytes if self.in_memory else 0

    @property
    def store(self) -> str:
        """Where the run's feature store is or will be."""
        return feature_location(self.config, self.folder.path, self.dataset, self.models.backbone)

    def _photos(self, images, varied=False):
        size, augmentation = self.models.backbone.input_shape[1], self.config.data.augmentation
        self.photo_bytes = 3 * picture_side(size, augmentation) ** 2
        total = len(self.train) + sum(len(self.dataset.split(name)) for name in self.scored)
        self.cache = choose_cache(self.config.data.cache, total * self.photo_bytes)
        if not varied:
            augmentation = UNVARIED
        return PhotoSource(
            self.dataset.directory, images, size, self.cache, augmentation=augmentation
        )

    def source(self, images) -> FeatureSource | PhotoSource:
        """Returns the examples of some of the sample's photos, for scoring."""
        made = {split.images: self.sources[name] for name, split in self.small.splits.items()}
        return made.get(images) or self._make_source(images)

    def _features(self):
        store, backbone = self.store, self.models.backbone
        photos = len(self.dataset.images)
        self.to_extract = photos - photos_extracted(store)
        if storage.is_file(storage.join(store, MANIFEST)):
            opened = FeatureStore.open(store, backbone_name=self.config.backbone.name)
        else:
            opened = self._extract(backbone)
        self.photo_bytes = opened.manifest.photo_nbytes
        self.store_photo = sum(s.bytes for s in opened.manifest.shards) / len(opened)
        self.cache = choose_cache(self.config.data.cache, photos * self.photo_bytes)
        return lambda images, varied=False: FeatureSource(opened, images, self.cache)

    def _extract(self, backbone) -> FeatureStore:
        started = time.perf_counter()
        check_photos(self.small, self.images)
        self.check_photo = (time.perf_counter() - started) / len(self.images)
        watch = Watch()
        started = time.perf_counter()
        opened = extract_features(
            backbone,
            self.config.backbone.name,
            self.dataset.directory,
            self.images,
            self.aside / "features",
            batch_size=self.config.backbone.batch_size,
            progress=lambda **settings: watch,
        )
        first, *rest = watch.updates
        self.first_extraction = first[0] - started
        if rest:
            self.extract_photo = (rest[-1][0] - first[0]) / sum(count for _, count in rest)
        else:
            self.extract_photo = self.first_extraction / first[1]
        return opened


class Watch:
    """Stands in for a progress bar and for an observer of the training; notes the times.

    Attributes:
        updates: when a bar was updated, and by how much.
        events: what happened in a training, and when.
    """

    def __init__(self):
        self.updates: list[tuple[float, int]] = []
        self.events: list[tuple[str, float]] = []

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        return None

    def update(self, count: int) -> None:
        """Is told, as a bar, that so many more photos are done."""
        self.updates.append((time.perf_counter(), count))

    def step(self, step, values) -> None:
        """Is told, as an observer, of a step."""
        self.note("step")

    def epoch(self, record) -> None:
        """Is told, as an observer, of an epoch."""
        self.note("epoch")

    def note(self, what: str) -> None:
        """Notes that something has just happened."""
        self.events.append((what, time.perf_counter()))


def workload(sample: Sample) -> Workload:
    """Returns what the whole run has to do."""
    config, dataset = sample.config, sample.dataset
    labels = sample.train.labels[:, dataset.seen]
    sampler = make_sampler(config.data, labels, config.training.seed, config.training.epochs)
    validation = len(dataset.split("val")) if "val" in dataset.splits else 0
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
    )


def _spread(split: Split, count: int) -> Split:
    """Returns up to `count` photos, evenly spread over the split."""
    chosen = np.linspace(0, len(split) - 1, min(count, len(split))).round().astype(int)
    return Split(tuple(split.images[i] for i in chosen), split.labels[chosen])
