"""A `TaggingDataset` as examples of TensorFlow Datasets: what its builders have in common."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from training.data.dataset import TaggingDataset

OFFICIAL_NAMES = {"train": "train", "val": "validation", "test": "test"}


def tagging_features() -> tfds.features.FeaturesDict:
    """Returns the features of a photo; names of classes come with `set_classes`.

    `present` has the classes that are present, `labels` what is known of each class: +1 present,
    -1 absent, 0 unknown, in the order of the names.
    """
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "image/filename": tfds.features.Text(),
            "present": tfds.features.Sequence(tfds.features.ClassLabel()),
            "labels": tfds.features.Tensor(shape=(None,), dtype=np.int8),
        }
    )


def set_classes(info: tfds.core.DatasetInfo, dataset: TaggingDataset) -> None:
    """Writes names and groups of the classes into the information on a data set."""
    info.features["present"].feature.names = list(dataset.names)
    info.metadata.update(groups=list(dataset.groups), remarks=list(dataset.about.remarks))


def examples(dataset: TaggingDataset, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the key and the features of each photo; photos are stored as they are encoded."""
    own = dataset.split(split)
    for row, (image, labels) in enumerate(zip(own.images, own.labels, strict=True)):
        # A list may have one photo twice: the row keeps keys apart.
        yield (
            f"{row:08d} {image}",
            {
                "image": str(dataset.photo_path(image)),
                "image/filename": image,
                "present": np.flatnonzero(labels > 0).tolist(),
                "labels": labels,
            },
        )
