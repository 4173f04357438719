"""Writes the two CSV files of a folder data set; `training.data.folder.reader` reads them."""

import dataclasses
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence

from biam_tf.csv_files import write_rows
from biam_tf.errors import UserError
from training.data.folder.reader import ANNOTATIONS, CLASSES


@dataclasses.dataclass(frozen=True)
class PhotoLabels:
    """A row of annotations.csv.

    Attributes:
        image: path of the photo relative to the data set's folder, with `/`.
        split: "train", "val" or "test".
        present: names of the classes that the photo shows.
        absent: names of the classes that it does not show; None: all others.
    """

    image: str
    split: str
    present: Sequence[str]
    absent: Sequence[str] | None = None


def write_folder_lists(
    directory: str | os.PathLike, photos: Iterable[PhotoLabels], groups: Mapping[str, str]
) -> int:
    """Writes classes.csv and annotations.csv atomically, and returns the number of photos.

    annotations.csv is written last: if it exists, the data set is complete.

    Args:
        directory: the data set's folder; created if it does not exist.
        photos: all photos; either all or none with `absent`.
        groups: "seen", "unseen" or "ignored" for each class, in the order of classes.csv.

    Raises:
        UserError: a name is empty or contains `;`, or a photo has a label without a group.
    """
    directory = pathlib.Path(directory)
    check_class_names(groups)
    directory.mkdir(parents=True, exist_ok=True)
    write_rows(directory / CLASSES, ["name", "group"], groups.items(), for_people=False)
    photos = list(photos)
    header = ["image", "split", "labels"]
    if any(photo.absent is not None for photo in photos):
        header.append("absent")
    rows = (_cells(photo, groups, header) for photo in photos)
    write_rows(directory / ANNOTATIONS, header, rows, for_people=False)
    return len(photos)


def check_class_names(names: Iterable[str]) -> None:
    """Raises a UserError if a class name is not allowed in a folder data set."""
    for name in names:
        if ";" in name or not name.strip():
            raise UserError(f"class {name!r}: a name must not be empty or contain ';'; rename it")


def _cells(photo: PhotoLabels, groups: Mapping[str, str], header: Sequence[str]) -> list[str]:
    for name in (*photo.present, *(photo.absent or ())):
        if name not in groups:
            raise UserError(f"{photo.image}: label {name!r} is not among the classes")
    cells = [photo.image, photo.split, ";".join(photo.present)]
    if "absent" in header:
        cells.append(";".join(photo.absent or ()))
    return cells
