"""Reads labeled photos from CSV and Parquet tables."""

import dataclasses
import hashlib
import pathlib
import reprlib
from collections.abc import Iterator, Mapping, Sequence

from biam_tf.errors import UserError, did_you_mean
from training.data.dataset import SPLITS
from training.data.imports.listed_photos import ListedPhoto
from training.data.imports.photo_collection import is_url, url_problem
from training.data.problems import Problems
from training.tables.csv_files import read_rows


@dataclasses.dataclass(frozen=True)
class TableColumns:
    """Columns of a table of labeled photos.

    Attributes:
        image: column of the photo's path or URL.
        labels: column of the class names.
        split: column of "train", "val" or "test"; None: the split is chosen by file name.
        separator: text between two labels in a cell.
        shares: of the photos in val and test, used if `split` is None.
    """

    image: str = "image"
    labels: str = "labels"
    split: str | None = None
    separator: str = ";"
    shares: tuple[float, float] = (0.1, 0.1)


def read_table(path: pathlib.Path, columns: TableColumns) -> list[ListedPhoto]:
    """Reads a CSV or Parquet file with one row per photo, or one row per label of a photo.

    Rows of the same photo are merged. Paths are relative to the table's folder.

    Args:
        path: `.csv` (UTF-8), or `.parquet`, whose labels may be lists.
        columns: names of the columns, and how they are read.

    Raises:
        UserError: the file cannot be read, lacks a column, or has invalid rows; the message
            names all of them.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; give a .csv or .parquet file")
    problems = Problems(path.parent)
    splits: dict[str, str] = {}
    labels: dict[str, dict[str, None]] = {}
    for row, cells in _rows(path, columns, problems):
        image, problem = _location(cells[columns.image], path.parent)
        own, labels_problem = _labels(cells[columns.labels], columns.separator)
        if problem := problem or labels_problem:
            problems.add(path.name, row, problem)
            continue
        split = cells[columns.split] if columns.split else _split_by_name(image, columns.shares)
        if split not in SPLITS:
            problems.add(path.name, row, f"unknown split {split!r}; use {', '.join(SPLITS)}")
        elif splits.setdefault(image, split) != split:
            problems.add(path.name, row, f"{image!r} is already in {splits[image]}")
        labels.setdefault(image, {}).update(dict.fromkeys(own))
    problems.raise_if_any()
    if not splits:
        raise UserError(f"{path}: lists no photos")
    return [ListedPhoto(image, split, tuple(labels[image])) for image, split in splits.items()]


def _location(cell: object, folder: pathlib.Path) -> tuple[str, str | None]:
    """Returns the path or URL in a cell, and what is wrong with it or None."""
    if not isinstance(cell, str):
        return "", f"the photo {reprlib.repr(cell)} is not a string"
    image = cell.strip()
    if not image:
        return "", "names no photo"
    if not is_url(image):
        return str(folder / image), None
    return image, url_problem(image)


def _labels(cell: object, separator: str) -> tuple[list[str], str | None]:
    """Returns the names in a cell, and what is wrong with it or None."""
    if cell is None:
        return [], "the list of labels is null; a photo without labels needs an empty list"
    names = cell.split(separator) if isinstance(cell, str) else cell
    if not isinstance(names, list):
        return [], f"the label {reprlib.repr(cell)} is not a string"
    for name in names:
        if not isinstance(name, str):
            return [], f"the label {reprlib.repr(name)} is not a string"
    return [stripped for name in names if (stripped := name.strip())], None


def _split_by_name(image: str, shares: tuple[float, float]) -> str:
    """Returns the split that the hash of a photo's file name selects, the same in every import.

    Args:
        image: path or URL, of which the last part is hashed.
        shares: of the photos in val and test.
    """
    digest = hashlib.sha256(image.rsplit("/", 1)[-1].encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    val, test = shares
    return "val" if position < val else "test" if position < val + test else "train"


def _rows(
    path: pathlib.Path, columns: TableColumns, problems: Problems
) -> Iterator[tuple[int, Mapping]]:
    wanted = [columns.image, columns.labels, *([columns.split] if columns.split else [])]
    if path.suffix.lower() == ".parquet":
        return _parquet_rows(path, wanted, problems)
    return read_rows(path, lambda found: _has_columns(path.name, found, wanted, problems), problems)


def _parquet_rows(
    path: pathlib.Path, wanted: Sequence[str], problems: Problems
) -> Iterator[tuple[int, Mapping]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UserError(
            f"{path}: reading Parquet needs pyarrow; run pip install 'biam-tf[import]'"
        ) from None
    try:
        file = parquet.ParquetFile(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(f"{path}: cannot be read as Parquet: {error}") from None
    with file:
        schema = file.schema_arrow
        if not _has_columns(path.name, schema.names, wanted, problems):
            return
        # In a column of strings null is an empty cell; a null list is not an empty list.
        flat = [name for name in wanted if not pyarrow.types.is_nested(schema.field(name).type)]
        number = 0
        try:
            for batch in file.iter_batches(columns=list(wanted)):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row | {name: "" for name in flat if row[name] is None}
        except (OSError, UnicodeDecodeError, pyarrow.ArrowException) as error:
            raise UserError(f"{path}: is damaged after row {number}: {error}") from None


def _has_columns(
    file: str, found: Sequence[str], wanted: Sequence[str], problems: Problems
) -> bool:
    """Whether each wanted column occurs once; adds the others to `problems`."""
    counts = {column: list(found).count(column) for column in wanted}
    for column, count in counts.items():
        if count > 1:
            problems.add(file, None, f"column {column!r} occurs {count} times")
        elif not count:
            known = did_you_mean(column, found) or "; the file is empty"
            problems.add(file, None, f"no column {column!r}{known}")
    return set(counts.values()) == {1}
