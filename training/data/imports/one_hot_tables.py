"""Reads labeled photos from tables with a column for each class."""

import collections
import dataclasses
import pathlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Literal

from biam_tf.errors import UserError, did_you_mean
from training.data.dataset import SPLITS
from training.data.imports.label_cells import NO_LABEL
from training.data.imports.listed_photos import ListedPhoto, Listing, clean_name, list_name, some_of
from training.data.imports.photo_paths import PhotoPaths, split_named
from training.data.imports.table_files import open_table
from training.data.problems import Problems

Meaning = Literal["unknown", "absent"]

# Columns that are taken for the photo's path, without regard to case, spaces and underscores.
_IMAGE_COLUMNS = frozenset(
    "image images imagename imagepath imagefile img filename file filepath path photo".split()
)
_PRESENT, _ABSENT, _MINUS, _BLANK = "1", "0", "-1", ""
_VALUES = {"true": _PRESENT, "false": _ABSENT} | dict.fromkeys((*NO_LABEL, ""), _BLANK)


@dataclasses.dataclass(frozen=True)
class OneHotColumns:
    """How a table with a column for each class is read.

    Attributes:
        image: column of the photo's path or URL; None: the first called "image", "filename" and
            the like, or else the first.
        split: column of "train", "val" or "test"; None: there is none.
        skipped: columns that are no classes.
        minus_one: what -1 means; None: unknown, where the table has zeros as well.
        blank: what an empty cell means; None: as for `minus_one`.
        shares: of the photos in val and test, used where there is no split.
    """

    image: str | None = None
    split: str | None = None
    skipped: Collection[str] = ()
    minus_one: Meaning | None = None
    blank: Meaning | None = None
    shares: tuple[float, float] = (0.1, 0.1)


def read_one_hot(
    path: pathlib.Path,
    split: str | None,
    columns: OneHotColumns,
    paths: PhotoPaths,
    problems: Problems,
    encoding: str | None = None,
    sheet: str | None = None,
) -> Listing:
    """Reads a table with one row per photo and one column per class.

    1 means present and 0 absent; -1 and empty cells mean unknown, as in CheXpert. Where the table
    has no 0, what they mean must be said.

    Args:
        path: of a file that `table_files.open_table` reads.
        split: of all photos; None: by `columns`.
        columns: which columns are read, and how.
        paths: finds the photos.
        problems: collects the invalid columns and rows.
        encoding: of a text file.
        sheet: of a workbook.

    Raises:
        UserError: the file cannot be read.
    """
    before, file = problems.count, list_name(path)
    table = open_table(path, (), problems, encoding, sheet)
    listing = Listing()
    roles = _roles(path, table.columns, columns, split, problems)
    if roles is None or problems.count > before:
        return listing
    image_column, classes = roles
    unnamed = table.columns.count("")
    if unnamed:
        listing.notes.append(f"{file}: a column without a name is left out")
    names = {column: listing.classes.add(column, f"{file} column") for column in classes}
    rows = list(_rows(file, table.rows, classes, problems))
    if problems.count > before:
        return listing
    meanings = _meanings(file, [values for _, _, values in rows], columns, problems)
    if problems.count > before:
        return listing
    found: dict[str, tuple[int, list[str], str]] = {}
    for row, cells, values in rows:
        location, problem = paths.find(str(cells[image_column]))
        if problem:
            problems.add(file, row, problem)
            continue
        own = [meanings[value] for value in values]
        its_split = split or _split(file, row, cells, columns, paths, location, problems)
        first = found.setdefault(location, (row, own, its_split))
        if first[1:] != (own, its_split):
            problems.add(file, row, f"{location!r} is already in row {first[0]}, with other values")
    for location, (row, own, its_split) in found.items():
        by_value: dict[str, list[str]] = {value: [] for value in ("present", "absent", "unknown")}
        for name, value in zip(names.values(), own, strict=True):
            by_value[value].append(name)
        present, absent = tuple(by_value["present"]), tuple(by_value["absent"])
        place = f"{file} row {row}"
        listing.photos.append(ListedPhoto(location, its_split, present, absent, place))
    counts = collections.Counter(value for _, own, _ in found.values() for value in own)
    listing.notes.append(
        f"{file}: {len(found)} photos, {len(names)} classes; cells: "
        + ", ".join(f"{counts[value]} {value}" for value in ("present", "absent", "unknown"))
    )
    if not found and problems.count == before:
        problems.add(file, None, "lists no photos")
    return listing


def _roles(
    path: pathlib.Path,
    found: Sequence[str],
    columns: OneHotColumns,
    split: str | None,
    problems: Problems,
) -> tuple[str, list[str]] | None:
    """Returns the column of the photo and those of the classes; None if there are none."""
    file, named = list_name(path), [column for column in found if column]
    for option, column in [
        ("--image-column", columns.image),
        ("--split-column", columns.split),
        *(("--skip-columns", column) for column in columns.skipped),
    ]:
        if column is not None and column not in named:
            problems.add(file, None, f"{option}: no column {column!r}{did_you_mean(column, named)}")
    if columns.split and split:
        raise UserError(f"{path}: has the split {split}; leave out --split-column")
    if not named:
        problems.add(file, None, "has no columns")
        return None
    usual = (c for c in named if "".join(c.lower().split("_")).replace(" ", "") in _IMAGE_COLUMNS)
    image = columns.image or next(usual, named[0])
    classes = [c for c in named if c not in (image, columns.split, *columns.skipped)]
    alike = collections.Counter(map(clean_name, classes))
    for name, count in alike.items():
        if count > 1:
            problems.add(file, None, f"{count} columns are called {name!r}")
    if not classes:
        problems.add(
            file,
            None,
            "has no columns of classes; a table with a column of labels is form csv",
        )
        return None
    return image, classes


def _rows(
    file: str,
    rows: Iterator[tuple[int, Mapping]],
    classes: Sequence[str],
    problems: Problems,
) -> Iterator[tuple[int, Mapping, list[str]]]:
    """Yields (row number, cells, values of the classes); adds columns with other values."""
    others: dict[str, tuple[int, object]] = {}
    for row, cells in rows:
        values = []
        for column in classes:
            value = _value(cells[column])
            if value is None:
                others.setdefault(column, (row, cells[column]))
            values.append(value or _BLANK)
        yield row, cells, values
    if others:
        column, (row, cell) = next(iter(others.items()))
        problems.add(
            file,
            None,
            f"{'column' if len(others) == 1 else 'columns'} {some_of(map(repr, others), 10)}: "
            f"expected 1, 0, -1 or an empty cell, got {cell!r} in row {row} ({column!r}); leave "
            f"out columns that are no classes with --skip-columns {_argument(','.join(others))}",
        )


def _value(cell: object) -> str | None:
    """Returns a cell as one of four values, or None."""
    text = str(cell).strip()
    known = _VALUES.get(text, _VALUES.get(text.lower()))
    if known is not None:
        return known
    try:
        number = float(text)
    except ValueError:
        return None
    return str(int(number)) if number in (-1, 0, 1) else None


def _meanings(
    file: str, values: Sequence[Sequence[str]], columns: OneHotColumns, problems: Problems
) -> dict[str, str]:
    counts = collections.Counter(value for row in values for value in row)
    minus_one, blank = columns.minus_one, columns.blank
    if counts[_MINUS] and minus_one is None and not counts[_ABSENT]:
        problems.add(
            file, None, "has 1 and -1 and no 0; give --minus-one absent or --minus-one unknown"
        )
    has_absent = counts[_ABSENT] or (counts[_MINUS] and minus_one == "absent")
    if counts[_BLANK] and blank is None and not has_absent:
        problems.add(
            file, None, "has 1 and empty cells and no 0; give --blank absent or --blank unknown"
        )
    return {
        _PRESENT: "present",
        _ABSENT: "absent",
        _MINUS: minus_one or "unknown",
        _BLANK: blank or "unknown",
    }


def _split(
    file: str,
    row: int,
    cells: Mapping,
    columns: OneHotColumns,
    paths: PhotoPaths,
    location: str,
    problems: Problems,
) -> str:
    if not columns.split:
        return paths.split(location, columns.shares)
    written = str(cells[columns.split])
    split = split_named(written)
    if split is None:
        problems.add(file, row, f"unknown split {written!r}; use {', '.join(SPLITS)}")
    return split or "train"


def _argument(text: str) -> str:
    return f'"{text}"' if " " in text else text
