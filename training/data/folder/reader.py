"""The folder data set: the user's own photos, listed in two CSV files.

    my-photos/
      images/…             photos, in any sub-folders
      annotations.csv      image,split,labels[,absent]; names joined by ';'
      classes.csv          name,group; seen, unseen or ignored

Without the `absent` column, classes that a row does not list are absent. With it, as in Open
Images, classes listed in neither column are unknown.
"""

import dataclasses
import functools
import os
import pathlib
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from biam_tf.csv_files import read_rows
from biam_tf.embeddings.names import normalize
from biam_tf.errors import UserError, nearest_names, nearest_path
from biam_tf.photos import photo_problems, stored_name
from biam_tf.sparse_labels import SparseLabels
from training.data.dataset import IGNORED, SEEN, SPLITS, UNSEEN, Split, TaggingDataset
from training.data.problems import Problems
from training.data.source import DataSource, ReadRequest

ANNOTATIONS, CLASSES = "annotations.csv", "classes.csv"
GROUPS = (SEEN, UNSEEN, IGNORED)
# Where some photos are missing, so many others are decoded to name the broken ones in one error.
_DECODED_IN_AN_ERROR = 20_000
_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")


def require_folder(directory: str | os.PathLike) -> pathlib.Path:
    """Returns the path of a folder data set.

    Raises:
        UserError: there is no such folder.
    """
    directory = pathlib.Path(directory)
    if not directory.is_dir():
        hint = nearest_path(directory)
        raise UserError(f"{directory}: no such folder; it should hold a folder data set{hint}")
    return directory


def read_folder(
    directory: str | os.PathLike,
    look_for_photos: bool = True,
    annotations: str | os.PathLike | None = None,
) -> TaggingDataset:
    """Reads a folder data set without opening the photos (see `check_photos` for that).

    Unseen classes keep their labels in training rows; training does not use them.

    Args:
        directory: the folder with `annotations.csv` and `classes.csv`.
        look_for_photos: whether missing or empty photos are errors.
        annotations: another file in place of the folder's annotations.csv, such as a corrected one.

    Returns:
        The data set with the classes that are not ignored, in the order of classes.csv, and the
        splits that occur.

    Raises:
        UserError: the folder or a file is missing, or rows are invalid. The message lists all
            invalid rows, numbered as in a spreadsheet (the header is row 1).
    """
    directory = require_folder(directory)
    problems = Problems(directory)
    lists = directory / ANNOTATIONS if annotations is None else pathlib.Path(annotations)
    for path, columns in ((lists, "image,split,labels"), (directory / CLASSES, "name,group")):
        if not path.is_file():
            hint = _saved_otherwise(directory, path.name) if path.parent == directory else ""
            file = path.name if path.parent == directory else str(path)
            problems.add(file, None, f"no such file; it needs the columns {columns}{hint}")
    problems.raise_if_any()

    classes = _read_classes(directory, problems)
    names = tuple(name for name, group in classes.items() if group != IGNORED)
    if classes and not names:
        problems.add(CLASSES, None, "every class is ignored; at least one seen class is needed")
    splits = _read_annotations(directory, lists, classes, names, look_for_photos, problems)
    problems.raise_if_any()
    return TaggingDataset(directory, names, tuple(classes[name] for name in names), splits)


def _saved_otherwise(directory: pathlib.Path, file: str) -> str:
    """Returns a hint at a file such as annotations.xlsx or Annotations.csv."""
    stem = file.partition(".")[0]
    found = sorted(f.name for f in directory.iterdir() if f.name.lower().partition(".")[0] == stem)
    if not found:
        return ""
    return f"; {found[0]} is there: save or rename it as {file} (CSV UTF-8)"


def _rows(
    path: pathlib.Path, required: Sequence[str], optional: Sequence[str], problems: Problems
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields (row number, cells by column) for each row, unless the header is invalid."""
    return read_rows(
        path,
        lambda header: _header_is_good(path.name, header, required, optional, problems),
        problems,
    )


def _header_is_good(
    file: str,
    header: list[str],
    required: Iterable[str],
    optional: Iterable[str],
    problems: Problems,
) -> bool:
    complaints = []
    for column in required:
        if column not in header:
            complaints.append(
                f"no column {column!r}; the columns are: {', '.join(header) or 'none'}"
            )
    for column in optional:
        # Other columns are allowed, except a misspelled optional one.
        near = [n for n in nearest_names(column, header) if n not in required and n != column]
        if column not in header and near:
            complaints.append(f"unknown column {near[0]!r}; did you mean {column!r}?")
    for column in [*required, *optional]:
        if header.count(column) > 1:
            complaints.append(f"column {column!r} occurs {header.count(column)} times")
    for complaint in complaints:
        problems.add(file, 1, complaint)
    return not complaints


def _read_classes(directory: pathlib.Path, problems: Problems) -> dict[str, str]:
    """Returns the group of each declared class, including invalid groups."""
    first_rows: dict[str, int] = {}
    classes: dict[str, str] = {}
    rows = 0
    for row, cells in _rows(directory / CLASSES, ("name", "group"), (), problems):
        rows += 1
        name, group = normalize(cells["name"]), cells["group"]
        if not name:
            problems.add(CLASSES, row, "the class has no name")
            continue
        if ";" in name:
            problems.add(
                CLASSES, row, f"class {name!r}: a name cannot contain ';', which separates names"
            )
        if name in classes:
            problems.add(
                CLASSES, row, f"class {name!r} is already declared in row {first_rows[name]}"
            )
            continue
        if group not in GROUPS:
            problems.add(
                CLASSES, row, f"class {name!r}: unknown group {group!r}; use {', '.join(GROUPS)}"
            )
        classes[name], first_rows[name] = group, row
    if not rows and not problems.count:
        problems.add(CLASSES, None, "no class is declared")
    return classes


def _read_annotations(
    directory: pathlib.Path,
    annotations: pathlib.Path,
    classes: dict[str, str],
    names: tuple[str, ...],
    look_for_photos: bool,
    problems: Problems,
) -> dict[str, Split]:
    columns = {name: column for column, name in enumerate(names)}
    images: dict[str, list[str]] = {split: [] for split in SPLITS}
    labels_of = {split: _ListedLabels() for split in SPLITS}
    first_rows: dict[str, int] = {}
    unlisted, row, earlier_problems = -1, None, problems.count
    whole: dict[str, int] = {}  # rows of the photos that are there
    for row, cells in annotation_rows(annotations, problems):
        unlisted = 0 if "absent" in cells else -1
        image, split = _as_relative(cells["image"]), cells["split"]
        is_named = _photo_is_named(image, row, problems)
        if is_named:
            image = stored_name(directory, image)
        if image in first_rows:
            problems.add(
                ANNOTATIONS, row, f"photo {image!r} is already listed in row {first_rows[image]}"
            )
            continue
        first_rows[image] = row
        if is_named and look_for_photos and _check_photo_file(directory, image, row, problems):
            whole[image] = row
        present = _declared(cells["labels"], classes, row, problems)
        absent = _declared(cells.get("absent", ""), classes, row, problems)
        for name in dict.fromkeys(name for name in present if name in absent):
            problems.add(ANNOTATIONS, row, f"{name!r} is both in labels and in absent")
        if split not in SPLITS:
            problems.add(ANNOTATIONS, row, f"unknown split {split!r}; use {', '.join(SPLITS)}")
            continue
        number = len(images[split])
        images[split].append(image)
        for listed, value in ((present, 1), (absent, -1)):
            labels_of[split].add(number, [columns[n] for n in listed if n in columns], value)
    if look_for_photos and len(whole) < len(first_rows) <= _DECODED_IN_AN_ERROR:
        _add_broken(directory, whole, problems)
    if row is None and problems.count == earlier_problems:
        problems.add(ANNOTATIONS, None, "no photo is listed")
    return {
        split: Split(tuple(images[split]), own.matrix(len(images[split]), len(names), unlisted))
        for split, own in labels_of.items()
        if images[split]
    }


class _ListedLabels:
    """The labels of a split's rows, in a few bytes each: there may be a hundred million."""

    def __init__(self) -> None:
        self._rows, self._columns, self._values = array("i"), array("i"), array("b")

    def add(self, row: int, columns: Sequence[int], value: int) -> None:
        self._rows.extend([row] * len(columns))
        self._columns.extend(columns)
        self._values.extend([value] * len(columns))

    def matrix(self, rows: int, columns: int, unlisted: int) -> SparseLabels:
        row, column, value = map(np.asarray, (self._rows, self._columns, self._values))
        return SparseLabels.of_entries(row, column, value, (rows, columns), unlisted)


def _as_relative(image: str) -> str:
    """Returns the path without `./` and `//`, so that two spellings name the same photo."""
    return pathlib.PurePosixPath(image).as_posix() if image else ""


def _declared(
    listed: str, classes: dict[str, str], row: int, problems: Problems
) -> dict[str, None]:
    """Returns the names in a cell, in order; adds a problem for each undeclared name."""
    found = dict.fromkeys(normalize(name) for part in listed.split(";") if (name := part.strip()))
    for name in found:
        if classes and name not in classes:
            problems.add(ANNOTATIONS, row, functools.partial(_undeclared, name, classes))
    return found


def _undeclared(name: str, classes: Iterable[str]) -> str:
    parts = [part.strip() for part in name.split(",")]
    if len(parts) > 1 and all(normalize(part) in classes for part in parts):
        return f"label {name!r} is not declared in {CLASSES}; separate names with ';', not ','"
    near = nearest_names(name, classes, count=1)
    hint = f"did you mean {near[0]!r}?" if near else "declare it there as seen, unseen or ignored"
    return f"label {name!r} is not declared in {CLASSES}; {hint}"


def _photo_is_named(image: str, row: int, problems: Problems) -> bool:
    if not image:
        problems.add(ANNOTATIONS, row, "no photo is named")
        return False
    if os.sep == "/" and _WINDOWS.match(image):
        problems.add(
            ANNOTATIONS,
            row,
            f"photo {image!r} is a path of a Windows computer; write its path below this folder, "
            "with / instead of \\",
        )
        return False
    if image.startswith("/") or ".." in image.split("/"):
        problems.add(ANNOTATIONS, row, f"photo {image!r} lies outside the folder")
        return False
    return True


def _check_photo_file(directory: pathlib.Path, image: str, row: int, problems: Problems) -> bool:
    """Returns whether there is such a file and it is not empty; else adds a problem."""
    try:
        # One call for existence and size. ValueError: a NUL character in the name.
        size = os.stat(f"{directory}/{image}").st_size
    except (OSError, ValueError):
        problems.add(ANNOTATIONS, row, functools.partial(_missing, directory, image))
        return False
    if os.path.isdir(f"{directory}/{image}"):
        problems.add(ANNOTATIONS, row, f"photo {image!r} is a folder")
        return False
    if size == 0:
        problems.add(ANNOTATIONS, row, f"photo {image!r} is empty (0 bytes)")
        return False
    return True


def _missing(directory: pathlib.Path, image: str) -> str:
    """Returns the problem of a missing photo, with what was probably meant."""
    with_slashes = image.replace("\\", "/")
    likely = next(
        (
            path
            for path in (with_slashes, f"images/{with_slashes}", _in_other_case(directory, image))
            if path and path != image and os.path.isfile(directory / path)
        ),
        None,
    )
    hint = f"; did you mean {likely!r}?" if likely else ""
    if "\\" in image:
        hint += " Write / instead of \\" if likely else "; write / instead of \\"
    return f"no such photo: {image!r}{hint}"


def _in_other_case(directory: pathlib.Path, image: str) -> str | None:
    """Returns the path of a file whose name differs in upper and lower case only."""
    folder, _, name = image.rpartition("/")
    try:
        found = os.listdir(directory / folder)
    except (OSError, ValueError):
        return None
    twin = next((other for other in sorted(found) if other.lower() == name.lower()), None)
    return twin and f"{folder}/{twin}".lstrip("/")


def _add_broken(directory: pathlib.Path, rows: Mapping[str, int], problems: Problems) -> None:
    """Adds the photos that cannot be decoded, so that all broken ones are named at once."""
    for image, problem in photo_problems([(image, directory / image) for image in rows]).items():
        problems.add(ANNOTATIONS, rows[image], f"photo {image!r}: {problem}")


def check_photos(
    dataset: TaggingDataset,
    images: Iterable[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Decodes photos completely and reports all that are broken.

    Args:
        dataset: a folder data set.
        images: the photos to check; None checks those of all splits.
        progress: called with (photos done, total photos) after each photo.

    Raises:
        UserError: some files are truncated, unreadable or not photos; the message lists them with
            their rows in annotations.csv.
    """
    if images is None:
        images = [image for split in dataset.splits.values() for image in split.images]
    broken = photo_problems([(image, dataset.photo_path(image)) for image in images], progress)
    if broken:
        problems = Problems(dataset.directory)
        rows = _rows_of(dataset.directory)
        for image, complaint in sorted(broken.items(), key=lambda item: rows.get(item[0], 0)):
            problems.add(ANNOTATIONS, rows.get(image), f"photo {image!r}: {complaint}")
        problems.raise_if_any()


def annotation_rows(path: pathlib.Path, problems: Problems) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields (row number, cells by column) of a list of labels; see `read_rows`."""
    return _rows(path, ("image", "split", "labels"), ("absent",), problems)


def photo_of_row(directory: pathlib.Path, cells: Mapping[str, str]) -> str:
    """Returns the photo of a row of a list of labels, by its name in the data set."""
    return stored_name(directory, _as_relative(cells["image"]))


def _rows_of(directory: pathlib.Path) -> dict[str, int]:
    rows = annotation_rows(directory / ANNOTATIONS, Problems(directory))
    return {photo_of_row(directory, cells): row for row, cells in rows}


@dataclasses.dataclass(frozen=True)
class FolderSettings:
    """The settings of the folder data set.

    Attributes:
        annotations: the file of the labels; null: annotations.csv in the folder.
    """

    annotations: str | None = None


def _read(request: ReadRequest) -> TaggingDataset:
    settings: FolderSettings = request.settings
    directory, look = request.required_directory, request.missing_is_error
    return read_folder(directory, look, settings.annotations)


FOLDER = DataSource(
    "folder",
    _read,
    FolderSettings,
    needs_directory="a folder data set needs the folder of the photos",
)
