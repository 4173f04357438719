"""A `TaggingDataset` as examples of TensorFlow Datasets: what its builders have in common."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from training.data.dataset import OFFICIAL_SPLITS, TaggingDataset


def tagging_features() -> tfds.features.FeaturesDict:
    """Returns the features of a photo; names of classes come with `split_examples`.

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


def tagging_info(builder: tfds.core.DatasetBuilder, **about: str) -> tfds.core.DatasetInfo:
    """Returns the information on a data set: `about` is its description, citation and so on."""
    return tfds.core.DatasetInfo(
        builder=builder, features=tagging_features(), metadata=tfds.core.MetadataDict(), **about
    )


def split_examples(info: tfds.core.DatasetInfo, dataset: TaggingDataset) -> dict[str, Iterator]:
    """Returns the examples of each split; writes names and groups of the classes into `info`."""
    info.features["present"].feature.names = list(dataset.names)
    info.metadata.update(groups=list(dataset.groups), remarks=list(dataset.about.remarks))
    return {OFFICIAL_SPLITS[split]: examples(dataset, split) for split in dataset.splits}


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
