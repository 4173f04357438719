"""Writes a folder data set from the lists that `training.import_data` is given."""

import collections
import concurrent.futures
import json
import os
import pathlib
import warnings
from collections.abc import Sequence

from biam_tf.command_line import command_to_paste
from biam_tf.csv_files import write_rows
from biam_tf.errors import UserError
from biam_tf.files import write_text
from biam_tf.progress import progress
from training.data.dataset import IGNORED, SEEN, SPLITS, UNSEEN
from training.data.folder.reader import ANNOTATIONS
from training.data.folder.writer import PhotoLabels, check_class_names, write_folder_lists
from training.data.imports.class_names import (
    class_groups,
    new_names,
    rename_labels,
    similar_names,
    twins_problem,
)
from training.data.imports.downloads import downloader
from training.data.imports.import_options import ImportOptions
from training.data.imports.list_readers import read_lists
from training.data.imports.listed_photos import ListedPhoto, some_of
from training.data.imports.photo_collection import collect_photos, is_url, local_problem
from training.data.problems import PROBLEMS_SHOWN, Problems

__all__ = ["ImportOptions", "import_folder"]

MARKER = ".import.json"
FAILED = "failed_photos.csv"


def import_folder(options: ImportOptions) -> None:
    """Reads the lists, collects the photos and writes the data set; prints what was taken.

    Raises:
        UserError: an option or a list is invalid, the folder contains something else, or more
            photos are missing than `max_broken_share` allows. What is wrong with the rows of a
            list is reported together with the photos that cannot be read.
    """
    options.check()
    problems = Problems(_folder_of_lists(options))
    listing = read_lists(options, problems)
    renamed = new_names(listing.classes.names, options.rename, options.lower_case)
    if not options.keep_case and (twins := twins_problem(renamed, listing.classes)):
        problems.add("class names", None, twins)
    if problems.count:
        _add_broken_photos(listing.photos, problems, options.photo_folders())
    problems.raise_if_any(alone_in_one_line=True)
    for note in [*listing.notes, *_capped(listing.classes.merged())]:
        print(note)
    photos = rename_labels(listing.photos, renamed)
    classes = list(dict.fromkeys(renamed.values()))
    if not any(photo.labels for photo in photos):
        raise UserError(
            f"{_folder_of_lists(options)}: none of the {len(photos)} photos has a label"
            + (f" (column {options.labels_column!r})" if options.form == "csv" else "")
        )
    groups = class_groups(classes, options.unseen, options.ignored)
    check_class_names(groups)
    _claim(options)
    with progress(len(photos), "Photos", "photo") as bar:
        locations = [photo.location for photo in photos if photo.location not in listing.failed]

        def advance() -> None:
            bar.update()

        download = None
        if any(map(is_url, locations)):
            download = downloader(
                options.anywhere, options.max_download_mb, options.max_download_seconds
            )
        collected = collect_photos(
            locations,
            options.directory,
            options.photos,
            advance,
            options.photo_folders(),
            download,
        )
    failed = listing.failed | collected.failed
    _report_failed(failed, len(photos), options)
    kept = [photo for photo in photos if photo.location in collected.images]
    write_folder_lists(options.directory, _rows(kept, collected.images, classes), groups)
    _print_result(options.directory, kept, groups)


def _folder_of_lists(options: ImportOptions) -> pathlib.Path:
    if options.form == "csv":
        return options.table.parent
    lists = options.annotations if options.form == "coco" else options.sources
    return pathlib.Path(lists[0].partition("=")[2] or lists[0]).parent


def _add_broken_photos(
    photos: Sequence[ListedPhoto], problems: Problems, folders: Sequence[pathlib.Path] | None
) -> None:
    """Adds the local photos that cannot be read to the problems of their list."""
    if problems.count >= PROBLEMS_SHOWN:
        return
    local = [photo for photo in photos if not is_url(photo.location)]
    threads = concurrent.futures.ThreadPoolExecutor(min(os.cpu_count() or 1, 16))
    try:
        with warnings.catch_warnings(), progress(len(local), "Checking photos", "photo") as bar:
            warnings.simplefilter("ignore")  # about unusual metadata
            found = threads.map(lambda photo: local_problem(photo.location, folders), local)
            for photo, problem in zip(local, found, strict=True):
                bar.update()
                if problem:
                    problems.add(photo.place, None, f"photo {photo.location}: {problem}")
    finally:
        threads.shutdown(cancel_futures=True)  # Ctrl-C does not wait for the remaining photos


def _rows(
    photos: Sequence[ListedPhoto], images: dict[str, str], classes: Sequence[str]
) -> list[PhotoLabels]:
    """Returns rows with the absent classes, or without them where no class is unknown."""
    some_unknown = any(
        photo.absent is not None and len(photo.labels) + len(photo.absent) < len(classes)
        for photo in photos
    )

    def absent(photo: ListedPhoto) -> tuple[str, ...] | None:
        if not some_unknown:
            return None
        if photo.absent is not None:
            return photo.absent
        present = set(photo.labels)
        return tuple(name for name in classes if name not in present)

    return [
        PhotoLabels(images[photo.location], photo.split, photo.labels, absent(photo))
        for photo in photos
    ]


def _claim(options: ImportOptions) -> None:
    """Creates the folder with a marker file, or checks that it belongs to the same import."""
    directory, marker = options.directory, options.directory / MARKER
    text = json.dumps(options.identity(), indent=2) + "\n"
    if (directory / ANNOTATIONS).exists():
        raise UserError(f"{directory}: already contains a data set; give another folder")
    if directory.exists() and not directory.is_dir():
        raise UserError(f"{directory}: is a file; give a folder")
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
    shown = some_of([f"{location}: {problem}" for location, problem in failed.items()])
    message = (
        f"{len(failed)} of {count} photos are missing or broken, such as {shown}; all of them are "
        f"listed in {path}"
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


def _print_result(
    directory: pathlib.Path, photos: Sequence[ListedPhoto], groups: dict[str, str]
) -> None:
    for note in similar_names(groups):
        print(note)
    by_split = collections.Counter(photo.split for photo in photos)
    by_group = collections.Counter(groups.values())
    labels = collections.Counter(name for photo in photos for name in photo.labels)
    print(
        f"{directory}: photos {_counts(by_split, SPLITS)}; "
        f"classes {_counts(by_group, (SEEN, UNSEEN, IGNORED))}; {labels.total()} labels"
    )
    empty = sum(not photo.labels for photo in photos)
    if empty:
        print(f"photos without a label: {empty}")
    unused = [name for name in groups if not labels[name]]
    if unused:
        print(f"classes without a photo: {some_of(map(repr, unused))}")
    if "train" not in by_split:
        print("There are no photos to train on; give --split-column, or smaller shares")
    print(f"Check the data set before training: {command_to_paste('training.describe', directory)}")


def _capped(lines: Sequence[str], shown: int = 10) -> list[str]:
    more = [f"and {len(lines) - shown} more names in several spellings"]
    return [*lines[:shown], *(more if len(lines) > shown else [])]


def _counts(numbers: collections.Counter[str], names: Sequence[str]) -> str:
    return ", ".join(f"{numbers[name]} {name}" for name in names if numbers[name])
