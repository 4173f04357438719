"""Labeled photos as other programs list them: tables of paths or addresses, and COCO's JSON."""

import csv
import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence

from biam_tf.errors import UserError, did_you_mean
from training.data.dataset import SPLITS
from training.data.photo_collection import is_address
from training.data.problems import Problems


@dataclasses.dataclass(frozen=True)
class ListedPhoto:
    """A photo in somebody's list.

    Attributes:
        location: path of the file, or its http(s) address.
        split: "train", "val" or "test".
        labels: names of the classes that it shows, each once.
    """

    location: str
    split: str
    labels: tuple[str, ...]


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
    problems = Problems(path.parent)
    splits: dict[str, str] = {}
    labels: dict[str, dict[str, None]] = {}
    for row, cells in _rows(path, columns):
        image = str(cells[columns.image] or "").strip()
        if not image:
            problems.add(path.name, row, "names no photo")
            continue
        if not is_address(image):
            image = str(path.parent / image)
        split = cells[columns.split] if columns.split else drawn_split(image, columns.shares)
        if split not in SPLITS:
            problems.add(path.name, row, f"unknown split {split!r}; use {', '.join(SPLITS)}")
        elif splits.setdefault(image, split) != split:
            problems.add(path.name, row, f"{image!r} is in {splits[image]} already")
        own = cells[columns.labels]
        own = str(own or "").split(columns.separator) if not isinstance(own, list) else own
        labels.setdefault(image, {}).update(dict.fromkeys(filter(None, map(str.strip, own))))
    problems.raise_if_any()
    if not splits:
        raise UserError(f"{path}: lists no photo")
    return [ListedPhoto(image, split, tuple(labels[image])) for image, split in splits.items()]


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


def _rows(path: pathlib.Path, columns: TableColumns) -> Iterator[tuple[int, Mapping]]:
    wanted = [columns.image, columns.labels, *([columns.split] if columns.split else [])]
    if not path.is_file():
        raise UserError(f"{path}: no such file; give a .csv or .parquet file")
    if path.suffix.lower() == ".parquet":
        yield from _parquet_rows(path, wanted)
        return
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            _require_columns(path, reader.fieldnames or [], wanted)
            for row in reader:
                if None in row or None in row.values():
                    raise UserError(
                        f"{path} row {reader.line_num}: expected {len(reader.fieldnames)} cells; "
                        "a cell with a comma needs quotes"
                    )
                yield reader.line_num, row
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not UTF-8 text; save it as UTF-8") from None
    except csv.Error as error:
        raise UserError(f"{path} line {reader.line_num}: {error}") from None


def _parquet_rows(path: pathlib.Path, wanted: Sequence[str]) -> Iterator[tuple[int, Mapping]]:
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
        _require_columns(path, file.schema_arrow.names, wanted)
        number = 0
        for batch in file.iter_batches(columns=list(wanted)):
            for row in batch.to_pylist():
                number += 1
                yield number, row


def _require_columns(path: pathlib.Path, found: Sequence[str], wanted: Sequence[str]) -> None:
    for column in wanted:
        if column not in found:
            raise UserError(
                f"{path}: no column {column!r}{did_you_mean(column, found)}; the columns are: "
                f"{', '.join(found) or 'none'}"
            )


def read_coco(path: pathlib.Path, photos: pathlib.Path, split: str) -> list[ListedPhoto]:
    """Reads an annotation file in COCO's form; every object's category is a label of its photo.

    Args:
        path: JSON with `images`, `annotations` and `categories`.
        photos: the folder that `file_name` is relative to.
        split: of all its photos.

    Raises:
        UserError: it is no such file, or its entries do not fit together: all are named.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        parts = {key: content[key] for key in ("images", "annotations", "categories")}
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give a JSON file in COCO's form") from None
    except ValueError as error:
        raise UserError(f"{path}: is not JSON: {error}") from None
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{path}: no {error} in it; COCO's form has images, annotations and categories"
        ) from None
    problems = Problems(path.parent)
    names = {entry["id"]: entry["name"].strip() for entry in parts["categories"]}
    files = {entry["id"]: entry["file_name"] for entry in parts["images"]}
    labels: dict[int, dict[str, None]] = {image: {} for image in files}
    for place, entry in enumerate(parts["annotations"]):
        image, category = entry.get("image_id"), entry.get("category_id")
        if image not in files:
            problems.add(path.name, None, f"annotations[{place}]: image_id {image!r} is no image")
        elif category not in names:
            problems.add(
                path.name, None, f"annotations[{place}]: category_id {category!r} is no category"
            )
        else:
            labels[image][names[category]] = None
    problems.raise_if_any()
    return [ListedPhoto(str(photos / files[i]), split, tuple(labels[i])) for i in files]


def coco_categories(path: pathlib.Path) -> list[str]:
    """Returns the names of all categories of a file that `read_coco` reads, in its order."""
    return [entry["name"].strip() for entry in json.loads(path.read_bytes())["categories"]]
