"""Labeled photos as tables list them: a row for each photo, or for each of its labels."""

import dataclasses
import hashlib
import pathlib
import reprlib
from collections.abc import Iterator, Mapping, Sequence

from biam_tf.errors import UserError, did_you_mean
from training.data.dataset import SPLITS
from training.data.imports.listed_photo import ListedPhoto
from training.data.imports.photo_collection import address_complaint, is_address
from training.data.problems import Problems
from training.tables.csv_files import read_rows


@dataclasses.dataclass(frozen=True)
class TableColumns:
    """Which columns of a table mean what.

    Attributes:
        image: path or address of the photo.
        labels: names of classes.
        split: "train", "val" or "test"; None: drawn by `shares`.
        separator: stands between two labels of one cell.
        shares: of val and test where there is no column for the split.
    """

    image: str = "image"
    labels: str = "labels"
    split: str | None = None
    separator: str = ";"
    shares: tuple[float, float] = (0.1, 0.1)


def read_table(path: pathlib.Path, columns: TableColumns) -> list[ListedPhoto]:
    """Reads a CSV or Parquet file with a row for each photo, or for each of its labels.

    Rows of one photo are joined. Paths are relative to the table's folder.

    Args:
        path: `.csv` (UTF-8), or `.parquet`, whose labels may be lists.
        columns: what its columns mean.

    Raises:
        UserError: the file cannot be read, lacks a column, or has wrong rows: all are named.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; give a .csv or .parquet file")
    problems = Problems(path.parent)
    splits: dict[str, str] = {}
    labels: dict[str, dict[str, None]] = {}
    for row, cells in _rows(path, columns, problems):
        image, complaint = _location(cells[columns.image], path.parent)
        own, wrong_labels = _labels(cells[columns.labels], columns.separator)
        if complaint := complaint or wrong_labels:
            problems.add(path.name, row, complaint)
            continue
        split = cells[columns.split] if columns.split else drawn_split(image, columns.shares)
        if split not in SPLITS:
            problems.add(path.name, row, f"unknown split {split!r}; use {', '.join(SPLITS)}")
        elif splits.setdefault(image, split) != split:
            problems.add(path.name, row, f"{image!r} is in {splits[image]} already")
        labels.setdefault(image, {}).update(dict.fromkeys(own))
    problems.raise_if_any()
    if not splits:
        raise UserError(f"{path}: lists no photo")
    return [ListedPhoto(image, split, tuple(labels[image])) for image, split in splits.items()]


def _location(cell: object, folder: pathlib.Path) -> tuple[str, str | None]:
    """Returns a photo's path or address, or ("", what is wrong with it)."""
    if not isinstance(cell, str):
        return "", f"the photo {reprlib.repr(cell)} is no text"
    image = cell.strip()
    if not image:
        return "", "names no photo"
    if not is_address(image):
        return str(folder / image), None
    return image, address_complaint(image)


def _labels(cell: object, separator: str) -> tuple[list[str], str | None]:
    """Returns the names in a cell, or ([], what is wrong with it)."""
    if cell is None:
        return [], "has no list of labels (null); a photo without labels has an empty one"
    names = cell.split(separator) if isinstance(cell, str) else cell
    if not isinstance(names, list):
        return [], f"the label {reprlib.repr(cell)} is no text"
    for name in names:
        if not isinstance(name, str):
            return [], f"the label {reprlib.repr(name)} is no text"
    return [stripped for name in names if (stripped := name.strip())], None


def drawn_split(image: str, shares: tuple[float, float]) -> str:
    """Returns the split that a photo's file name decides: the same one in every import.

    Args:
        image: path or address; its last part counts.
        shares: of val and of test.
    """
    digest = hashlib.sha256(image.rsplit("/", 1)[-1].encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    val, test = shares
    return "val" if place < val else "test" if place < val + test else "train"


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
        # Null is the empty cell of a column of texts; a list that is null is not an empty one.
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
    """Whether each wanted column is there once; notes those that are not."""
    counts = {column: list(found).count(column) for column in wanted}
    for column, count in counts.items():
        if count > 1:
            problems.add(file, None, f"column {column!r} occurs {count} times")
        elif not count:
            known = did_you_mean(column, found) or "; the file is empty"
            problems.add(file, None, f"no column {column!r}{known}")
    return set(counts.values()) == {1}
