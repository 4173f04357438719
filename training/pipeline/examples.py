"""The examples that a run trains and scores on: photos, or their stored features."""

import dataclasses
import pathlib
import re
from collections.abc import Sequence

import keras
import numpy as np

from biam_tf.errors import UserError
from biam_tf.progress import progress
from training.config import RunConfig
from training.data.dataset import Split, TaggingDataset
from training.data.features import storage
from training.data.features.extraction import ensure_features
from training.data.features.store import FeatureStore
from training.data.input.broken_photos import BROKEN_PHOTOS, BrokenPhoto, without_photos
from training.data.input.photo_check import broken_photos
from training.data.input.sampling import Sampler
from training.data.input.sources import FeatureSource, PhotoSource


@dataclasses.dataclass(frozen=True)
class Examples:
    """A data set as a run uses it.

    Attributes:
        config: settings of the run.
        dataset: without the photos that cannot be read.
        broken: those photos.
        image_size: side in pixels of the backbone's photos.
        store: features of the photos; None where the backbone is trained and reads photos.
    """

    config: RunConfig
    dataset: TaggingDataset
    broken: tuple[BrokenPhoto, ...]
    image_size: int
    store: FeatureStore | None

    def source(
        self, images: Sequence[str], sampler: Sampler | None = None
    ) -> FeatureSource | PhotoSource:
        """Returns the examples of some photos.

        Args:
            images: photos of `dataset`.
            sampler: which of them come in which epoch of training, varied as the settings say;
                None: a source for scoring.
        """
        cache = self.config.data.cache
        if self.store is not None:
            return FeatureSource(self.store, images, cache, sampler=sampler)
        varied = {} if sampler is None else {"augmentation": self.config.data.augmentation}
        return PhotoSource(
            self.dataset.directory,
            images,
            self.image_size,
            cache,
            progress=progress,
            sampler=sampler,
            **varied,
        )


def open_examples(
    config: RunConfig, run: pathlib.Path, dataset: TaggingDataset, backbone: keras.Model
) -> Examples:
    """Finds the examples of a run; features that are not stored yet are extracted.

    Args:
        config: settings of the run.
        run: its folder; features are stored beside it unless the settings say where.
        dataset: holds the photos.
        backbone: gives the features, unless it is trained.

    Raises:
        UserError: more photos are broken than the settings allow, or stored features do not fit.
    """
    size = backbone.input_shape[1]
    if config.backbone.trainable:
        share = config.data.max_broken_share
        broken, store = broken_photos(dataset, size, share, run / BROKEN_PHOTOS), None
    else:
        location = feature_location(config, run, dataset, backbone)
        store = ensure_features(config, dataset, backbone, location)
        broken = store.broken
    dataset = without_photos(dataset, {photo.image for photo in broken})
    return Examples(config, dataset, tuple(broken), size, store)


def feature_location(
    config: RunConfig, run: pathlib.Path, dataset: TaggingDataset, backbone: keras.Model
) -> str:
    """Returns the folder of a run's feature store: the configured one, or one beside the run."""
    backbone_name = re.sub(r"[^\w.-]+", "-", config.backbone.name)  # it may hold a path
    name = f"{dataset.fingerprint}-{backbone_name}-{backbone.input_shape[1]}"
    return storage.normal_path(config.data.feature_store or run.parent / "features" / name)


def trainable_photos(dataset: TaggingDataset, max_labels: int | None) -> Split:
    """Returns the training photos that show a seen class; the others have nothing to rank.

    Args:
        dataset: its training photos.
        max_labels: photos with more seen labels are left out as well.

    Raises:
        UserError: none is left.
    """
    split = dataset.split("train")
    shown = (split.labels[:, dataset.seen] > 0).sum(axis=1)
    if not shown.any():
        raise UserError(f"{dataset.directory}: no training photo shows a seen class")
    if not shown.all():
        print(f"{(shown == 0).sum()} training photos show no seen class: left out", flush=True)
    kept = shown > 0
    if max_labels is not None:
        kept &= shown <= max_labels
        crowded = (shown > max_labels).sum()
        print(f"{crowded} training photos have more than {max_labels} labels: left out", flush=True)
        if not kept.any():
            raise UserError(
                f"data.max_labels: {max_labels}, but no training photo has so few seen labels; "
                f"the fewest are {shown[shown > 0].min()}"
            )
    kept = np.flatnonzero(kept)
    return dataclasses.replace(
        split, images=tuple(split.images[i] for i in kept), labels=split.labels[kept]
    )


def final_split(dataset: TaggingDataset) -> str:
    """Returns the name of the split whose figures are a run's: test, or else val, or train."""
    return "test" if "test" in dataset.splits else "val" if "val" in dataset.splits else "train"


def scored_splits(dataset: TaggingDataset) -> list[str]:
    """Returns the names of the splits whose examples are scored during or after training."""
    return sorted({final_split(dataset), *({"val"} & dataset.splits.keys())})
