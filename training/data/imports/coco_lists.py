"""Reads labeled photos from JSON files in the formats of COCO, LVIS and Roboflow."""

import collections
import json
import os
import pathlib
import reprlib
import urllib.parse
from collections.abc import Callable, Collection, Container, Mapping, Sequence

from biam_tf.errors import UserError
from training.data.imports.listed_photos import ListedPhoto, Listing, list_name, some_of
from training.data.imports.photo_paths import PhotoPaths
from training.data.problems import Problems

PARTS = ("images", "annotations", "categories")
NEGATIVE, NOT_EXHAUSTIVE = "neg_category_ids", "not_exhaustive_category_ids"

_NAMED = 10  # of annotations that are wrong in the same way
_Id = int | float | str


def read_coco(
    path: pathlib.Path,
    folder: pathlib.Path,
    split: str,
    problems: Problems,
    replacements: Sequence[str] = (),
) -> Listing:
    """Reads an annotation file; the labels of a photo are the categories of its objects.

    If images have `neg_category_ids`, as in LVIS, these categories are absent and all others
    without an object are unknown. Without, all others are absent.

    Args:
        path: JSON with `images`, `annotations` and `categories`.
        folder: that each `file_name` is relative to. An image without one has the name in its
            `coco_url`.
        split: of all photos in the file.
        problems: collects the entries that are incomplete or refer to unknown ids.
        replacements: "OLD=NEW" for beginnings of paths.

    Raises:
        UserError: the file is not in COCO's format.
    """
    parts, file = _read_parts(path), list_name(path)
    before = problems.count
    listing = Listing()
    names = _by_id(file, "categories", parts["categories"], _category_name, problems)
    used = {_get(entry, "category_id") for entry in parts["annotations"] if _is_object(entry)}
    for root in _roots(parts["categories"], used & names.keys()):
        listing.notes.append(
            f"{file}: category {names.pop(root)!r} is left out: with id 0, supercategory "
            "none and no object, it is Roboflow's group of the others"
        )
    files = _by_id(file, "images", parts["images"], _file_name, problems)
    finder = PhotoPaths(folder, replacements)
    locations = _locations(file, parts["images"], finder, problems)
    # Otherwise the objects of an invalid image would be reported as well.
    if problems.count > before:
        return listing
    if not files:
        problems.add(file, None, "lists no photos")
    written = {
        identity: listing.classes.add(name, f"{file} category {identity}")
        for identity, name in names.items()
    }
    labels = _labels(file, parts["annotations"], files, written, problems)
    absent = _absent(file, parts["images"], written, labels, problems)
    if absent:
        listing.notes.append(
            f"{file}: absent are the {NEGATIVE} of each photo; classes that are neither in "
            "them nor among its objects are unknown"
        )
    listing.notes += _about(file, parts["annotations"], names, labels)
    listing.photos = [
        ListedPhoto(
            locations[image],
            split,
            tuple(labels[image]),
            absent[image] if absent else None,
            f"{file} image {image}",
        )
        for image in files
    ]
    return listing


def _roots(categories: Sequence[Mapping], used: Container[object]) -> list[_Id]:
    """Returns the category with which Roboflow groups the others, if there is one."""
    none = (_get(c, "id") for c in categories if _is_object(c) and c.get("supercategory") == "none")
    return [0] if 0 in none and 0 not in used and len(categories) > 1 else []


def _locations(
    file: str,
    images: Sequence[Mapping],
    finder: PhotoPaths,
    problems: Problems,
) -> dict[_Id, str]:
    """Returns the path or URL of each photo; adds wrong and repeated ones to `problems`."""
    found: dict[_Id, str] = {}
    first: dict[str, int] = {}
    for index, entry in enumerate(images):
        if _entry_problem(entry, _file_name):
            continue
        location, problem = _location(entry, finder)
        if not problem and first.setdefault(location, index) != index:
            problem = f"{_file_name(entry)[1]!r} is already listed as images[{first[location]}]"
        if problem:
            problems.add(file, None, f"images[{index}]: {problem}")
        else:
            found[entry["id"]] = location
    return found


def _location(entry: Mapping, finder: PhotoPaths) -> tuple[str, str | None]:
    key, name = _file_name(entry)
    location, problem = finder.find(str(name))
    if key == "coco_url" and not problem and not os.path.lexists(location):
        return finder.find(str(name).rpartition("/")[2])
    return location, problem


def _labels(
    file: str,
    annotations: Sequence[Mapping],
    files: Collection[_Id],
    names: Mapping[_Id, str],
    problems: Problems,
) -> dict[_Id, dict[str, None]]:
    """Returns the names of each photo's categories; adds wrong entries to `problems`.

    Of entries that are wrong in the same way, the first are named and the others counted.
    """
    labels: dict[_Id, dict[str, None]] = {image: {} for image in files}
    counts: collections.Counter[str] = collections.Counter()
    for index, entry in enumerate(annotations):
        kind, problem = _object_problem(entry, files, names)
        if not problem:
            labels[entry["image_id"]][names[entry["category_id"]]] = None
            continue
        counts[kind] += 1
        if counts[kind] <= _NAMED:
            problems.add(file, None, f"annotations[{index}]: {problem}")
    for kind, count in counts.items():
        if count > _NAMED:
            problems.add(file, None, f"annotations: {count} of {len(annotations)} in all {kind}")
    return labels


def _absent(
    file: str,
    images: Sequence[Mapping],
    names: Mapping[_Id, str],
    labels: Mapping[_Id, Container[str]],
    problems: Problems,
) -> dict[_Id, tuple[str, ...]]:
    """Returns the absent classes of each photo; nothing where all other classes are absent."""
    if not any(NEGATIVE in entry for entry in images):
        return {}
    absent: dict[_Id, tuple[str, ...]] = {}
    for index, entry in enumerate(images):
        listed: dict[str, list[_Id]] = {}
        for key in (NEGATIVE, NOT_EXHAUSTIVE):
            ids = entry.get(key, [])
            wrong = [i for i in ids if not _is_id(i) or i not in names] if _is_list(ids) else [ids]
            if wrong:
                problems.add(
                    file,
                    None,
                    f"images[{index}]: {key} {some_of(map(reprlib.repr, wrong))} is not the id of "
                    "a category",
                )
            listed[key] = [] if wrong else ids
        unknown = {names[i] for i in listed[NOT_EXHAUSTIVE]}
        negative = dict.fromkeys(names[i] for i in listed[NEGATIVE] if names[i] not in unknown)
        for name in negative:
            if name in labels[entry["id"]]:
                problems.add(
                    file, None, f"images[{index}]: {name!r} has an object and is in {NEGATIVE}"
                )
        absent[entry["id"]] = tuple(negative)
    return absent


def _about(
    file: str,
    annotations: Sequence[Mapping],
    names: Mapping[_Id, str],
    labels: Mapping[_Id, Mapping],
) -> list[str]:
    notes = []
    empty = sum(not found for found in labels.values())
    if empty:
        notes.append(f"{file}: {empty} of {len(labels)} photos have no object; they are kept")
    crowds = sum(bool(_get(entry, "iscrowd")) for entry in annotations)
    if crowds:
        notes.append(f"{file}: {crowds} annotations of crowds count as labels, as others do")
    repeated = sorted({name for name in names.values() if list(names.values()).count(name) > 1})
    if repeated:
        notes.append(f"{file}: several categories are called {some_of(map(repr, repeated))}")
    return notes


def _read_parts(path: pathlib.Path) -> dict[str, list]:
    form = f"COCO's format is an object with lists of {PARTS[0]}, {PARTS[1]} and {PARTS[2]}"
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give a JSON file in COCO's format") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: contains {reprlib.repr(content)}; {form}")
    for part in PARTS:
        if not isinstance(content.get(part), list):
            raise UserError(f"{path}: has no list {part!r}; {form}")
    return {part: content[part] for part in PARTS}


def _by_id(
    file: str,
    part: str,
    entries: list,
    text_of: Callable[[Mapping], tuple[str, object]],
    problems: Problems,
) -> dict[_Id, str]:
    """Returns the text of each entry by id; adds invalid entries to `problems`."""
    texts: dict[_Id, str] = {}
    first: dict[_Id, int] = {}
    for index, entry in enumerate(entries):
        problem = _entry_problem(entry, text_of)
        if not problem and entry["id"] in first:
            problem = f"id {entry['id']!r} is already used by {part}[{first[entry['id']]}]"
        if problem:
            problems.add(file, None, f"{part}[{index}]: {problem}")
        else:
            texts[entry["id"]] = str(text_of(entry)[1]).strip()
            first[entry["id"]] = index
    return texts


def _category_name(entry: Mapping) -> tuple[str, object]:
    return "name", entry.get("name")


def _file_name(entry: Mapping) -> tuple[str, object]:
    """Returns the key that has the photo's name, and the name."""
    url = entry.get("coco_url")
    if entry.get("file_name") in (None, "") and isinstance(url, str) and url.strip():
        # The last two parts, as LVIS has photos of both folders, train2017/ and val2017/.
        return "coco_url", "/".join(urllib.parse.urlsplit(url).path.split("/")[-2:])
    return "file_name", entry.get("file_name")


def _entry_problem(entry: object, text_of: Callable[[Mapping], tuple[str, object]]) -> str | None:
    """Returns what is wrong with an image or a category, or None."""
    if not isinstance(entry, dict):
        return f"expected an object, got {reprlib.repr(entry)}"
    if not _is_id(entry.get("id")):
        return f"id {reprlib.repr(entry.get('id'))} is neither a number nor a string"
    key, text = text_of(entry)
    if not isinstance(text, str) or not text.strip():
        return f"{key} {reprlib.repr(text)} is not a name"
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate: valid in JSON, not in file names
        return f"{key} {text!a} is not valid Unicode"
    return None


def _object_problem(
    entry: object, files: Collection[_Id], names: Collection[_Id]
) -> tuple[str, str | None]:
    """Returns how an annotation is wrong, and the message or None."""
    if not isinstance(entry, dict):
        return "are not objects", f"expected an object, got {reprlib.repr(entry)}"
    for key, what, known in (("image_id", "an image", files), ("category_id", "a category", names)):
        identity = entry.get(key)
        if not _is_id(identity) or identity not in known:
            hint = ""
            if isinstance(identity, str) and identity.isdecimal() and int(identity) in known:
                hint = f"; {int(identity)} is, without quotation marks"
            return (
                f"have as {key} no id of {what}",
                f"{key} {reprlib.repr(identity)} is not the id of {what}{hint}",
            )
    return "", None


def _is_id(value: object) -> bool:
    return isinstance(value, int | float | str)


def _is_object(value: object) -> bool:
    return isinstance(value, dict)


def _is_list(value: object) -> bool:
    return isinstance(value, list)


def _get(entry: object, key: str) -> _Id | None:
    """Returns a value by which entries can be looked up, or None."""
    value = entry.get(key) if isinstance(entry, dict) else None
    return value if _is_id(value) else None
