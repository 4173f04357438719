"""Reads a data set of TensorFlow Datasets through the folder its photos are written to."""

import dataclasses
import json
import pathlib
import re
from collections.abc import Callable

from biam_tf.errors import UserError
from training.data.dataset import About, TaggingDataset
from training.data.folder.reader import ANNOTATIONS, read_folder
from training.data.from_tfds import builders
from training.data.from_tfds.splits import WHOLE, Definition
from training.data.from_tfds.writer import MARKER, write_folder
from training.data.from_tfds.zero_shot import apply_zero_shot_split
from training.data.source import DataSource, ReadRequest


def read_tfds(
    builder: str,
    label_feature: str,
    directory: str | None = None,
    absent_feature: str | None = None,
    zero_shot_split: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    look_for_photos: bool = True,
) -> TaggingDataset:
    """Returns a data set of TensorFlow Datasets, writing it as a folder data set the first time.

    Later calls read the folder and do not use TensorFlow Datasets.

    Args:
        builder: such as `coco/2017` or `coco/2017:1.1.0`, or the folder of a prepared data set.
        label_feature: path of the feature with the present classes, such as `objects.label`.
        directory: folder of the folder data set; None: a folder below `data/`.
        absent_feature: path of the feature with the absent classes, all others being unknown;
            None: all classes that are not present are absent.
        zero_shot_split: see `apply_zero_shot_split`; None: all classes are seen.
        progress: called with (photos written, total photos).
        look_for_photos: whether a missing photo is an error.

    Raises:
        UserError: as `find_builder`, `write_folder`, `read_folder` and `apply_zero_shot_split`;
            or the folder has other content.
    """
    path = tfds_directory(directory, builder)
    wanted = {"label_feature": label_feature, "absent_feature": absent_feature}
    if not path.is_dir() or not any(path.iterdir()):
        source = builders.find_builder(builder)
        write_folder(source, builder, path, label_feature, absent_feature, progress)
    marker = _read_marker(path)
    _check_same(path, marker, builder, wanted)
    dataset = read_folder(path, look_for_photos)
    dataset = dataclasses.replace(dataset, about=About(_remarks(marker, dataset)))
    if zero_shot_split is None:
        return dataset
    return apply_zero_shot_split(dataset, zero_shot_split)


def tfds_directory(directory: str | None, builder: str) -> pathlib.Path:
    """Returns `directory`, or a folder below `data/` that is named after the builder."""
    if directory:
        return pathlib.Path(directory)
    return pathlib.Path("data") / re.sub(r"[^\w.]+", "-", builder).strip("-")


def _read_marker(path: pathlib.Path) -> dict:
    file = path / MARKER
    if not file.is_file() or not (path / ANNOTATIONS).is_file():
        raise UserError(
            f"{path}: contains files that were not written by data.name: tfds; set "
            "data.directory to another folder, or empty this one"
        )
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{file}: not valid JSON ({error}); delete the folder to write it again"
        ) from (error)


def _check_same(path: pathlib.Path, marker: dict, builder: str, wanted: dict) -> None:
    complaints = [
        f"data.{key}: {marker[key]}, not {value}"
        for key, value in wanted.items()
        if marker[key] != value
    ]
    held = marker["builder"]
    if builder not in (held, held.rpartition(":")[0], marker["asked"]):
        complaints.insert(0, f"data.builder: {held}, not {builder}")
    if complaints:
        raise UserError(
            f"{path}: was written with {'; '.join(complaints)}; set data.directory to "
            "another folder, or delete this one"
        )


def _remarks(marker: dict, dataset: TaggingDataset) -> tuple[str, ...]:
    unlabelled = {
        name: int((split.labels.count(1, axis=1) == 0).sum())
        for name, split in dataset.splits.items()
    }
    lines = [
        f"{marker['builder']}, labels of {marker['label_feature']}; "
        f"{_format_splits(marker['splits'])}",
        "photos without a label (kept): "
        + ", ".join(f"{count:,} {name}" for name, count in unlabelled.items()),
    ]
    for split, reason in marker["left_out"].items():
        lines.append(f"split {split} is left out: {reason}")
    return tuple(lines)


def _format_splits(definition: Definition) -> str:
    lines = []
    for official, parts in definition.items():
        below = 0.0
        for own, up_to in parts:
            share = f"{up_to - below:.0%} of " if len(parts) > 1 else ""
            lines.append(f"{own} = {share}{official}")
            below = up_to
    by_hash = any(parts[0][1] < WHOLE for parts in definition.values())
    return ", ".join(lines) + (" (shares by a hash of the photo)" if by_hash else "")


@dataclasses.dataclass(frozen=True)
class TfdsSettings:
    """The settings of a data set of TensorFlow Datasets; see docs/tfds.md.

    Attributes:
        builder: name or folder of a prepared data set; required.
        label_feature: its feature with the present classes, such as `objects.label`; required.
        absent_feature: its feature with the absent classes, all others being unknown; null: all
            classes that are not present are absent.
        zero_shot_split: `coco_48_17`, `coco_65_15`, `voc_16_4`, `lvis_rare`, or a file with
            the unseen classes; null: all classes are seen.
    """

    builder: str | None = None
    label_feature: str | None = None
    absent_feature: str | None = None
    zero_shot_split: str | None = None

    def __post_init__(self) -> None:
        for key, example in (("builder", "coco/2017"), ("label_feature", "objects.label")):
            if not getattr(self, key):
                raise UserError(
                    f"{key}: not set; required by data.name: tfds, for example {example}"
                )


def _read(request: ReadRequest) -> TaggingDataset:
    settings: TfdsSettings = request.settings
    assert settings.builder and settings.label_feature  # checked when the settings were made
    return read_tfds(
        settings.builder,
        settings.label_feature,
        None if request.directory is None else str(request.directory),
        settings.absent_feature,
        settings.zero_shot_split,
        request.progress,
        request.missing_is_error,
    )


TFDS = DataSource(
    "tfds",
    _read,
    TfdsSettings,
    work=("writing photos", "photo"),
    default_directory=lambda settings: tfds_directory(None, settings.builder),
)
