"""Writes a data set of TensorFlow Datasets as a folder data set, once."""

import pathlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from biam_tf.errors import UserError
from biam_tf.files import replacing, write_json
from training.data.dataset import OFFICIAL_SPLITS, SEEN, SPLITS
from training.data.folder.writer import PhotoLabels, write_folder_lists
from training.data.from_tfds import builders
from training.data.from_tfds.splits import Definition, define_splits, own_split

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

MARKER = "tfds.json"
# First bytes of encoded photos. Other files get no ending and are reported by the photo check.
ENDINGS = {b"\xff\xd8": ".jpg", b"\x89PNG": ".png", b"GIF8": ".gif", b"BM": ".bmp"}


def write_folder(
    builder: "tfds.core.DatasetBuilder",
    asked: str,
    directory: pathlib.Path,
    label_feature: str,
    absent_feature: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Writes the encoded photos, the labels, and tfds.json, which records their origin.

    The folder is written whole or not at all. All classes are seen; zero-shot splits are applied
    when the folder is read.

    Args:
        builder: a prepared `tfds.core.DatasetBuilder`.
        asked: the name in the configuration.
        directory: the folder; must be missing or empty.
        label_feature: path of the feature with the present classes, such as `objects.label`.
        absent_feature: path of the feature with the absent classes, all others being unknown;
            None: all classes that are not present are absent.
        progress: called with (photos written, total photos).

    Raises:
        UserError: features or splits are missing, a class name contains `;`, or the folder
            cannot be written.
    """
    features, name = builder.info.features, builders.full_name(builder)
    classes = builders.class_names(features, label_feature, "data.label_feature")
    if absent_feature is not None:
        other = builders.class_names(features, absent_feature, "data.absent_feature")
        if other != classes:
            raise UserError(
                f"data.absent_feature: its classes differ from those of {label_feature}"
            )
    image = builders.photo_feature(features, name)
    official = [split for split in OFFICIAL_SPLITS.values() if split in builder.info.splits]
    labelled = [split for split in official if _has_labels(builder, split, label_feature)]
    definition = define_splits(labelled, name)

    total = sum(builder.info.splits[split].num_examples for split in definition)
    rows: list[PhotoLabels] = []
    directory.parent.mkdir(parents=True, exist_ok=True)
    with replacing(directory) as partial:
        for split, number, example in _examples(
            builder, definition, image, [label_feature, absent_feature]
        ):
            photo = example[image]
            path = f"images/{split}/{_file_name(number, example, photo)}"
            (partial / path).parent.mkdir(parents=True, exist_ok=True)
            (partial / path).write_bytes(photo)
            present = _names(example, label_feature, classes)
            absent = None
            if absent_feature is not None:
                absent = [
                    name for name in _names(example, absent_feature, classes) if name not in present
                ]
            rows.append(PhotoLabels(path, own_split(definition[split], photo), present, absent))
            if progress:
                progress(len(rows), total)
        rows.sort(key=lambda row: SPLITS.index(row.split))
        marker = {
            "builder": name,
            "asked": asked,
            "label_feature": label_feature,
            "absent_feature": absent_feature,
            "splits": definition,
            "left_out": {
                split: "no photo has a label"
                if split in official
                else "not a train, validation or test split"
                for split in builder.info.splits
                if split not in definition
            },
        }
        write_json(partial / MARKER, marker)
        write_folder_lists(partial, rows, dict.fromkeys(classes, SEEN))


def _has_labels(builder, split: str, label_feature: str) -> bool:
    import tensorflow_datasets as tfds

    # Only the labels are decoded, and a split with labels usually has one early.
    labels = builder.as_dataset(
        split=split, decoders=tfds.decode.PartialDecoding(builders.only(label_feature))
    )
    for example in tfds.as_numpy(labels):
        if (np.asarray(builders.value_at(example, label_feature)) >= 0).any():
            return True
    return False


def _examples(
    builder, definition: Definition, image: str, paths: list[str | None]
) -> Iterator[tuple[str, int, dict]]:
    import tensorflow_datasets as tfds

    wanted: dict = {image: True}
    if "image/filename" in builder.info.features:
        wanted["image/filename"] = True
    for path in filter(None, paths):
        _merge(wanted, builders.only(path))
    # Only these are decoded: decoding segmentation masks would take most of the time.
    decoders = tfds.decode.PartialDecoding(wanted, decoders={image: tfds.decode.SkipDecoding()})
    for split in definition:
        photos = builder.as_dataset(split=split, decoders=decoders, shuffle_files=False)
        for number, example in enumerate(tfds.as_numpy(photos)):
            yield split, number, example


def _merge(into: dict, spec: dict) -> None:
    for key, value in spec.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def _names(example: dict, path: str, classes: list[str]) -> list[str]:
    numbers = np.unique(np.asarray(builders.value_at(example, path)))
    return [classes[number] for number in numbers if number >= 0]


def _file_name(number: int, example: dict, photo: bytes) -> str:
    """Returns a unique file name: a running number, then the original name."""
    ending = next((end for magic, end in ENDINGS.items() if photo.startswith(magic)), "")
    original = example.get("image/filename", b"").decode()
    stem = pathlib.PurePosixPath(original).stem
    return f"{number:07d}-{stem}{ending}" if stem else f"{number:07d}{ending}"
