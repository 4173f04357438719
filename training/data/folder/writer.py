"""Writes the two lists of a folder data set, which `training.data.folder.reader` reads."""

import dataclasses
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence

from biam_tf.errors import UserError
from training.data.folder.reader import ANNOTATIONS, CLASSES
from training.tables.csv_files import write_rows


@dataclasses.dataclass(frozen=True)
class PhotoLabels:
    """A row of annotations.csv.

    Attributes:
        image: path of the photo below the data set's folder, with `/`.
        split: "train", "val" or "test".
        present: names of the classes that it shows.
        absent: names of the classes that it is known not to show; None: all others.
    """

    image: str
    split: str
    present: Sequence[str]
    absent: Sequence[str] | None = None


def write_folder_lists(
    directory: str | os.PathLike, photos: Iterable[PhotoLabels], groups: Mapping[str, str]
) -> int:
    """Writes classes.csv and annotations.csv, each whole or not at all; returns the row count.

    annotations.csv comes last: where it stands, the data set is complete.

    Args:
        directory: the data set's folder; made where it is not there.
        photos: all photos; either all or none of them with `absent`.
        groups: "seen", "unseen" or "ignored" for each class, in the order of classes.csv.

    Raises:
        UserError: a name holds `;`, which joins names, or a row names a class without a group.
    """
    directory = pathlib.Path(directory)
    check_class_names(groups)
    directory.mkdir(parents=True, exist_ok=True)
    write_rows(directory / CLASSES, ["name", "group"], groups.items())
    photos = list(photos)
    header = ["image", "split", "labels"]
    if any(photo.absent is not None for photo in photos):
        header.append("absent")
    write_rows(directory / ANNOTATIONS, header, (_cells(photo, groups, header) for photo in photos))
    return len(photos)


def check_class_names(names: Iterable[str]) -> None:
    """Raises a UserError where a name cannot stand in the lists of a folder data set."""
    for name in names:
        if ";" in name or not name.strip():
            raise UserError(f"class {name!r}: a name must not be empty or hold ';'; rename it")


def _cells(photo: PhotoLabels, groups: Mapping[str, str], header: Sequence[str]) -> list[str]:
    for name in (*photo.present, *(photo.absent or ())):
        if name not in groups:
            raise UserError(f"{photo.image}: label {name!r} is not among the classes")
    cells = [photo.image, photo.split, ";".join(photo.present)]
    if "absent" in header:
        cells.append(";".join(photo.absent or ()))
    return cells
