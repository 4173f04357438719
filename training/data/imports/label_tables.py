"""Reads labeled photos from tables with a column of labels."""

import dataclasses
import pathlib
import reprlib
from collections.abc import Collection

from training.data.dataset import SPLITS
from training.data.imports.label_cells import NO_LABEL, read_cells
from training.data.imports.listed_photos import ListedPhoto, Listing
from training.data.imports.photo_paths import PhotoPaths, split_named
from training.data.imports.table_files import open_table
from training.data.problems import Problems


@dataclasses.dataclass(frozen=True)
class TableColumns:
    """Columns of a table of labeled photos.

    Attributes:
        image: column of the photo's path or URL.
        labels: column of the class names.
        split: column of "train", "val" or "test"; None: the split is chosen by the path.
        separator: text between two labels in a cell; None: found in the column.
        shares: of the photos in val and test, used if `split` is None.
        no_label: texts of cells that mean that there is no label.
    """

    image: str = "image"
    labels: str = "labels"
    split: str | None = None
    separator: str | None = None
    shares: tuple[float, float] = (0.1, 0.1)
    no_label: Collection[str] = NO_LABEL


def read_table(
    path: pathlib.Path,
    columns: TableColumns,
    paths: PhotoPaths,
    problems: Problems,
    encoding: str | None = None,
    sheet: str | None = None,
) -> Listing:
    """Reads a table with one row per photo, or one row per label of a photo.

    Rows of the same photo are merged.

    Args:
        path: of a file that `table_files.open_table` reads; in Parquet, labels may be lists.
        columns: names of the columns, and how they are read.
        paths: finds the photos.
        problems: collects the invalid rows.
        encoding: of a text file.
        sheet: of a workbook.

    Raises:
        UserError: the file cannot be read.
    """
    wanted = [columns.image, columns.labels, *([columns.split] if columns.split else [])]
    table = open_table(path, wanted, problems, encoding, sheet)
    rows: list[tuple[int, object, str]] = []
    cells: list[object] = []
    for row, content in table.rows:
        rows.append((row, content[columns.image], str(content.get(columns.split or "", ""))))
        cells.append(content[columns.labels])
    read = read_cells([row for row, _, _ in rows], cells, columns.separator, columns.no_label)
    for bad_row, problem in read.problems:
        place = "" if bad_row else f"column {columns.labels!r}: "
        problems.add(path.name, bad_row, f"{place}{problem}")

    listing = Listing(notes=[f"{path.name}: {note}" for note in read.notes])
    photos: dict[str, tuple[str, str]] = {}
    labels: dict[str, dict[str, None]] = {}
    for (row, image, written_split), names in zip(rows, read.labels, strict=True):
        location, wrong = (
            paths.find(image)
            if isinstance(image, str)
            else ("", f"the photo {reprlib.repr(image)} is not a string")
        )
        if wrong:
            problems.add(path.name, row, wrong)
            continue
        place = f"{path.name} row {row}"
        split = split_named(written_split) if columns.split else None
        if columns.split and split is None:
            problems.add(
                path.name, row, f"unknown split {written_split!r}; use {', '.join(SPLITS)}"
            )
            split = "train"
        split = split or paths.split(location, columns.shares)
        first, _ = photos.setdefault(location, (split, place))
        if first != split:
            problems.add(path.name, row, f"{location!r} is already in {first}")
        own = labels.setdefault(location, {})
        own |= dict.fromkeys(listing.classes.add(name, place) for name in names)
    listing.photos = [
        ListedPhoto(location, split, tuple(labels[location]), None, place)
        for location, (split, place) in photos.items()
    ]
    listing.classes.sort()
    if not photos and not problems.count:
        problems.add(path.name, None, "lists no photos")
    return listing
