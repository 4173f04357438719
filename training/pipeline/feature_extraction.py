"""Features of a whole data set, extracted before any training."""

import dataclasses
import time
from collections.abc import Sequence

from biam_tf.backbones import build_backbone
from biam_tf.errors import UserError
from training.config import RunConfig
from training.data.features import storage
from training.data.features.extraction import ensure_features
from training.data.features.store import FeatureStore
from training.data.features.unfinished_store import photos_extracted
from training.data.registry import load_dataset


def extract_store(
    config: RunConfig,
    location: str,
    photos: str | None = None,
    beam_options: Sequence[str] | None = None,
) -> FeatureStore:
    """Extracts the features of a configuration's data set, and prints the speed and the size.

    Args:
        config: names the data set and the backbone.
        location: folder of the feature store, local or of a file system of TensorFlow; it may
            hold a part of the features.
        photos: folder of the photos; None: that of the data set.
        beam_options: options of an Apache Beam pipeline; None: without Beam.

    Raises:
        UserError: the configuration trains its backbone, too many photos cannot be read, or the
            folder holds other features.
    """
    settings = config.backbone
    if settings.trainable:
        raise UserError(
            "backbone.trainable: true: such a run trains its backbone on the photos and reads no "
            "stored features; add --set backbone.trainable=false"
        )
    directory = None if photos is None else storage.normal_path(photos)
    dataset = load_dataset(config.data, look_for_photos=directory is None)
    backbone = build_backbone(
        settings.name, settings.image_size, settings.weights, regions=settings.regions
    )
    config = dataclasses.replace(
        config, data=dataclasses.replace(config.data, feature_store=location)
    )
    already = photos_extracted(location)
    started = time.monotonic()
    store = ensure_features(
        config,
        dataset,
        backbone,
        location,
        photos_directory=directory,
        beam_options=beam_options,
    )
    done = photos_extracted(location) - already
    if done:
        speed = done / (time.monotonic() - started)
        print(f"{done} photos checked and extracted: {speed:.1f} photos/s")
    else:
        print("all photos had been extracted before")
    h, w, d = store.region_shape
    print(
        f"{store.path}: {len(store)} photos of {h}x{w} regions with {d} channels, "
        f"{store.nbytes / 1e6:.1f} MB"
    )
    return store
