"""Writes a folder data set from the lists that `training.import_data` is given."""

import collections
import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Literal

from biam_tf.errors import UserError, did_you_mean
from biam_tf.files import write_text
from biam_tf.progress import progress
from training.data.class_list import read_class_list
from training.data.dataset import IGNORED, SEEN, SPLITS, UNSEEN
from training.data.folder.reader import ANNOTATIONS
from training.data.folder.writer import PhotoLabels, check_class_names, write_folder_lists
from training.data.imports.coco_lists import read_coco
from training.data.imports.label_tables import TableColumns, read_table
from training.data.imports.listed_photos import ListedPhoto, new_names, rename_labels
from training.data.imports.photo_collection import Placement, collect_photos
from training.tables.csv_files import write_rows

MARKER = ".import.json"
FAILED = "failed_photos.csv"


@dataclasses.dataclass(frozen=True)
class ImportOptions:
    """Arguments of `training.import_data`.

    Attributes:
        form: "csv" (CSV or Parquet) or "coco".
        directory: folder of the new data set.
        rename: "OLD=NEW" for each class to rename.
        lower_case: whether class names are converted to lower case, after `rename`.
        unseen: a file of class names, or names separated by commas.
        ignored: as `unseen`.
        photos: "link" or "copy".
        max_broken_share: share of the photos that may be missing, at least 0 and below 1.
        table: the CSV or Parquet file; form "csv" only, like the next six.
        image_column: column of the photo's path or URL.
        labels_column: column of the labels.
        separator: text between two labels in a cell.
        split_column: column of the split; None: splits are chosen by file name.
        val_share: share of the photos in "val" if there is no `split_column`.
        test_share: as `val_share`.
        annotations: "SPLIT=PATH" of the JSON files; form "coco" only.
        images: "SPLIT=PATH" of the folders of photos; form "coco" only.
    """

    form: Literal["csv", "coco"]
    directory: pathlib.Path
    rename: Sequence[str] = ()
    lower_case: bool = False
    unseen: str | None = None
    ignored: str | None = None
    photos: Placement = "link"
    max_broken_share: float = 0.0
    table: pathlib.Path = pathlib.Path()
    image_column: str = "image"
    labels_column: str = "labels"
    separator: str = ";"
    split_column: str | None = None
    val_share: float = 0.1
    test_share: float = 0.1
    annotations: Sequence[str] = ()
    images: Sequence[str] = ()


def import_folder(options: ImportOptions) -> None:
    """Reads the lists, collects the photos and writes the data set; prints the counts.

    Raises:
        UserError: an option or a list is invalid, the folder contains something else, or more
            photos are missing than `max_broken_share` allows.
    """
    _check_shares(options)
    photos, names = _read_coco(options) if options.form == "coco" else _read_table(options)
    renamed = new_names(names, options.rename, options.lower_case)
    photos = rename_labels(photos, renamed)
    groups = _groups(options, list(dict.fromkeys(renamed.values())))
    check_class_names(groups)
    _claim(options)
    with progress(len(photos), "Photos", "photo") as bar:
        locations = [photo.location for photo in photos]

        def advance() -> None:
            bar.update()

        collected = collect_photos(locations, options.directory, options.photos, advance)
    _report_failed(collected.failed, len(locations), options)
    rows = [
        PhotoLabels(collected.images[photo.location], photo.split, photo.labels)
        for photo in photos
        if photo.location in collected.images
    ]
    write_folder_lists(options.directory, rows, groups)
    by_split = collections.Counter(row.split for row in rows)
    by_group = collections.Counter(groups.values())
    print(
        f"{options.directory}: photos {_counts(by_split, SPLITS)}; "
        f"classes {_counts(by_group, (SEEN, UNSEEN, IGNORED))}"
    )
    print(f"Check the data set before training: python -m training.describe {options.directory}")


def _check_shares(options: ImportOptions) -> None:
    for option, value in (
        ("--max-broken-share", options.max_broken_share),
        ("--val-share", options.val_share),
        ("--test-share", options.test_share),
    ):
        if not 0 <= value < 1:
            raise UserError(f"{option} {value:g}: expected at least 0 and below 1")
    if options.val_share + options.test_share >= 1:
        raise UserError(
            f"--val-share {options.val_share:g} and --test-share {options.test_share:g} leave "
            "nothing to train on: their sum must be below 1"
        )


def _read_table(options: ImportOptions) -> tuple[list[ListedPhoto], list[str]]:
    if not options.separator:
        raise UserError("--separator: is empty; give the text between two labels")
    columns = TableColumns(
        image=options.image_column,
        labels=options.labels_column,
        split=options.split_column,
        separator=options.separator,
        shares=(options.val_share, options.test_share),
    )
    photos = read_table(options.table, columns)
    return photos, sorted({label for photo in photos for label in photo.labels})


def _read_coco(options: ImportOptions) -> tuple[list[ListedPhoto], list[str]]:
    files = _by_split("--annotations", options.annotations)
    folders = _by_split("--images", options.images)
    if files.keys() != folders.keys():
        raise UserError(
            f"--annotations has {', '.join(files)} and --images {', '.join(folders)}; "
            "give both for each split"
        )
    photos: list[ListedPhoto] = []
    names: dict[str, None] = {}
    split_of: dict[str, str] = {}
    for split, path in files.items():
        listed, categories = read_coco(path, folders[split], split)
        photos += listed
        names |= dict.fromkeys(categories)
        for photo in listed:
            if split_of.setdefault(photo.location, split) != split:
                raise UserError(
                    f"{path}: {photo.location} is already in {split_of[photo.location]}; a photo "
                    "belongs to one split"
                )
    return photos, list(names)


def _by_split(option: str, values: Sequence[str]) -> dict[str, pathlib.Path]:
    paths: dict[str, pathlib.Path] = {}
    for value in values:
        split, _, path = value.partition("=")
        if split not in SPLITS or not path:
            raise UserError(
                f"{option} {value!r}: expected SPLIT=PATH; splits are {', '.join(SPLITS)}"
            )
        if split in paths:
            raise UserError(
                f"{option}: {split} has {paths[split]} and {path}; give one path per split"
            )
        paths[split] = pathlib.Path(path)
    return paths


def _groups(options: ImportOptions, names: Sequence[str]) -> dict[str, str]:
    """Returns the group of each class; raises a UserError for an unknown class."""
    groups = dict.fromkeys(names, SEEN)
    for group, given in ((UNSEEN, options.unseen), (IGNORED, options.ignored)):
        if given is None:
            continue
        is_file = pathlib.Path(given).is_file()
        chosen = read_class_list(given).names if is_file else given.split(",")
        for name in map(str.strip, chosen):
            if name not in groups:
                raise UserError(f"--{group}: no class {name!r}{did_you_mean(name, names)}")
            groups[name] = group
    if SEEN not in groups.values():
        raise UserError("no class is left to train on: all classes are unseen or ignored")
    return groups


def _claim(options: ImportOptions) -> None:
    """Creates the folder with a marker file, or checks that it belongs to the same import."""
    directory, marker = options.directory, options.directory / MARKER
    lists = (
        {"table": str(options.table.resolve()), "annotations": None}
        if options.form == "csv"
        else {"annotations": options.annotations}
    )
    text = json.dumps({"form": options.form, **lists}, indent=2) + "\n"
    if (directory / ANNOTATIONS).exists():
        raise UserError(f"{directory}: already contains a data set; give another folder")
    if directory.exists() and any(directory.iterdir()):
        if not marker.is_file() or marker.read_text(encoding="utf-8") != text:
            raise UserError(
                f"{directory}: is not empty and contains no stopped import of the same lists; "
                "give another folder"
            )
        return
    directory.mkdir(parents=True, exist_ok=True)
    write_text(marker, text)


def _report_failed(failed: dict[str, str], count: int, options: ImportOptions) -> None:
    """Writes the list of failed photos, or removes an old one.

    Raises:
        UserError: more photos failed than `max_broken_share` allows.
    """
    path = options.directory / FAILED
    if not failed:
        path.unlink(missing_ok=True)
        return
    write_rows(path, ["photo", "problem"], failed.items())
    location, problem = next(iter(failed.items()))
    message = (
        f"{len(failed)} of {count} photos are missing, such as {location}: {problem}; "
        f"all of them are listed in {path}"
    )
    if len(failed) == count:
        raise UserError(f"{message}. Fix these and run the command again")
    # The quotient, not the product: it is rounded as the share is when it is parsed.
    if len(failed) / count > options.max_broken_share:
        raise UserError(
            f"{message}. The other photos are kept: fix these and run the command again, or leave "
            f"them out with --max-broken-share {_share_of(len(failed), count)}"
        )
    print(message)


def _share_of(part: int, count: int) -> str:
    """Returns part / count rounded up, with at least two digits and as many as keep it below 1."""
    digits, rounded = 2, -(-part * 100 // count)
    while rounded == 10**digits:
        digits += 1
        rounded = -(-part * 10**digits // count)
    return f"{rounded / 10**digits:.{digits}f}"


def _counts(numbers: collections.Counter[str], names: Sequence[str]) -> str:
    return ", ".join(f"{numbers[name]} {name}" for name in names if numbers[name])
