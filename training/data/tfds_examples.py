"""Converts a `TaggingDataset` to TensorFlow Datasets examples; shared by the builders."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from training.data.dataset import OFFICIAL_SPLITS, TaggingDataset


def tagging_features() -> tfds.features.FeaturesDict:
    """Returns the features of a photo; `split_examples` sets the class names.

    `present` holds the indices of the present classes; `labels`, int8 (C,), holds +1 (present),
    -1 (absent) or 0 (unknown) for each class.
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
    """Returns the `DatasetInfo` of a data set; `about` holds its description, citation etc."""
    return tfds.core.DatasetInfo(
        builder=builder, features=tagging_features(), metadata=tfds.core.MetadataDict(), **about
    )


def split_examples(info: tfds.core.DatasetInfo, dataset: TaggingDataset) -> dict[str, Iterator]:
    """Returns the examples of each split; sets the class names and groups in `info`."""
    info.features["present"].feature.names = list(dataset.names)
    info.metadata.update(groups=list(dataset.groups), remarks=list(dataset.about.remarks))
    return {OFFICIAL_SPLITS[split]: examples(dataset, split) for split in dataset.splits}


def examples(dataset: TaggingDataset, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the key and the features of each photo; photos are not re-encoded."""
    own = dataset.split(split)
    for row, (image, labels) in enumerate(zip(own.images, own.labels, strict=True)):
        # A photo may be listed twice: the row number makes keys unique.
        yield (
            f"{row:08d} {image}",
            {
                "image": str(dataset.photo_path(image)),
                "image/filename": image,
                "present": np.flatnonzero(labels > 0).tolist(),
                "labels": labels,
            },
        )
