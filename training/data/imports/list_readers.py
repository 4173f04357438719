"""Reads the lists that `training.import_data` is given, whatever their format."""

import pathlib

from biam_tf.errors import UserError
from training.data.imports.coco_lists import read_coco
from training.data.imports.cvat_xml import read_cvat
from training.data.imports.import_options import (
    ImportOptions,
    names_in,
    paths_by_split,
    sources_by_split,
)
from training.data.imports.label_cells import NO_LABEL
from training.data.imports.label_studio import LabelStudioOptions, read_label_studio
from training.data.imports.label_tables import TableColumns, read_table
from training.data.imports.listed_photos import Listing, list_name, some_of
from training.data.imports.one_hot_tables import OneHotColumns, read_one_hot
from training.data.imports.photo_keywords import read_keywords
from training.data.imports.photo_paths import PhotoPaths
from training.data.problems import Problems


def read_lists(options: ImportOptions, problems: Problems) -> Listing:
    """Reads all lists.

    Args:
        options: of the command.
        problems: collects what is wrong with the rows or entries.

    Raises:
        UserError: an option has no meaning, or a file cannot be read at all.
    """
    if options.form == "csv":
        return _table(options, problems)
    if options.form == "coco":
        return _coco(options, problems)
    listing = Listing()
    for split, path in sources_by_split(options.sources):
        _extend(listing, _source(options, split, path, problems), problems)
    return listing


def _source(
    options: ImportOptions, split: str | None, path: pathlib.Path, problems: Problems
) -> Listing:
    shares = (options.val_share, options.test_share)
    if options.form == "one-hot":
        columns = OneHotColumns(
            image=options.image_column,
            split=options.split_column,
            skipped=names_in(options.skip_columns),
            minus_one=options.minus_one,
            blank=options.blank,
            shares=shares,
        )
        paths = _paths(options, path)
        return read_one_hot(path, split, columns, paths, problems, options.encoding, options.sheet)
    if options.form == "label-studio":
        fields = LabelStudioOptions(
            image=options.image_column,
            controls=names_in(options.controls),
            whole_path=options.whole_path,
            shares=shares,
        )
        return read_label_studio(path, split, fields, _paths(options, path), problems)
    if options.form == "cvat":
        folder = options.photo_folder
        return read_cvat(path, split, folder, shares, problems, options.replace_path)
    return read_keywords(path, split, options.whole_path, options.keep_untagged, shares, problems)


def _paths(options: ImportOptions, path: pathlib.Path) -> PhotoPaths:
    folder = options.photo_folder or path.parent
    return PhotoPaths(folder, options.replace_path, options.image_suffix)


def _table(options: ImportOptions, problems: Problems) -> Listing:
    columns = TableColumns(
        image=options.image_column or "image",
        labels=options.labels_column,
        split=options.split_column,
        separator=options.separator,
        shares=(options.val_share, options.test_share),
        no_label=NO_LABEL if options.no_label is None else names_in(options.no_label),
    )
    paths = _paths(options, options.table)
    return read_table(options.table, columns, paths, problems, options.encoding, options.sheet)


def _coco(options: ImportOptions, problems: Problems) -> Listing:
    files = paths_by_split("--annotations", options.annotations)
    folders = paths_by_split("--images", options.images)
    if files.keys() != folders.keys():
        raise UserError(
            f"--annotations has {', '.join(files)} and --images {', '.join(folders)}; "
            "give both for each split"
        )
    listing = Listing()
    names = {}
    for split, path in files.items():
        part = read_coco(path, folders[split], split, problems, options.replace_path)
        names[list_name(path)] = set(part.classes.names)
        _extend(listing, part, problems)
    for file, own in names.items():
        missing = [name for name in listing.classes.names if name not in own]
        if missing and not problems.count:
            listing.notes.append(
                f"{file}: lacks categories of the other files ({some_of(map(repr, missing))}); "
                "they count as absent from its photos"
            )
    return listing


def _extend(listing: Listing, part: Listing, problems: Problems) -> None:
    """Adds the photos of another list; a photo may be in one of them only."""
    splits = {photo.location: photo.split for photo in listing.photos}
    for photo in part.photos:
        if photo.location in splits:
            problems.add(
                photo.place,
                None,
                f"{photo.location} is already in {splits[photo.location]}; a photo belongs to "
                "one split",
            )
    listing.photos += part.photos
    listing.classes.update(part.classes)
    listing.notes += part.notes
    listing.failed |= part.failed
