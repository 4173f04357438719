"""Reads labeled photos from JSON files in COCO's format."""

import json
import pathlib
import reprlib
from collections.abc import Container

from biam_tf.errors import UserError
from training.data.imports.listed_photos import ListedPhoto
from training.data.problems import Problems

PARTS = ("images", "annotations", "categories")


def read_coco(
    path: pathlib.Path, folder: pathlib.Path, split: str
) -> tuple[list[ListedPhoto], list[str]]:
    """Reads an annotation file; the labels of a photo are the categories of its objects.

    Args:
        path: JSON with `images`, `annotations` and `categories`.
        folder: that each `file_name` is relative to.
        split: of all photos in the file.

    Returns:
        The photos, and the names of all categories, both in the order of the file.

    Raises:
        UserError: the file is not in COCO's format, or entries are incomplete or refer to
            unknown ids; the message names all of these entries.
    """
    problems = Problems(path.parent)
    parts = _read_parts(path)
    names = _by_id(path.name, "categories", parts["categories"], "name", problems)
    files = _by_id(path.name, "images", parts["images"], "file_name", problems)
    _find_repeated_files(path.name, parts["images"], problems)
    # Otherwise the objects of an invalid image would be reported as well.
    problems.raise_if_any()
    if not files:
        raise UserError(f"{path}: lists no photos")
    labels: dict[int | str, dict[str, None]] = {image: {} for image in files}
    for index, entry in enumerate(parts["annotations"]):
        problem = _object_problem(entry, files, names)
        if problem:
            problems.add(path.name, None, f"annotations[{index}]: {problem}")
        else:
            labels[entry["image_id"]][names[entry["category_id"]]] = None
    problems.raise_if_any()
    photos = [ListedPhoto(str(folder / files[i]), split, tuple(labels[i])) for i in files]
    return photos, list(dict.fromkeys(names.values()))


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
    file: str, part: str, entries: list, key: str, problems: Problems
) -> dict[int | str, str]:
    """Returns the text under `key` by id; adds invalid entries to `problems`."""
    texts: dict[int | str, str] = {}
    first: dict[int | str, int] = {}
    for index, entry in enumerate(entries):
        problem = _entry_problem(entry, key)
        if not problem and entry["id"] in first:
            problem = f"id {entry['id']!r} is already used by {part}[{first[entry['id']]}]"
        if problem:
            problems.add(file, None, f"{part}[{index}]: {problem}")
        else:
            texts[entry["id"]], first[entry["id"]] = entry[key].strip(), index
    return texts


def _find_repeated_files(file: str, entries: list, problems: Problems) -> None:
    first: dict[pathlib.PurePath, int] = {}
    for index, entry in enumerate(entries):
        if _entry_problem(entry, "file_name"):
            continue
        name = entry["file_name"].strip()
        file_path = pathlib.PurePath(name)  # "./1.jpg" equals "1.jpg"
        if first.setdefault(file_path, index) != index:
            problems.add(
                file,
                None,
                f"images[{index}]: {name!r} is already listed as images[{first[file_path]}]",
            )


def _entry_problem(entry: object, key: str) -> str | None:
    """Returns what is wrong with an image or a category, or None."""
    if not isinstance(entry, dict):
        return f"expected an object, got {reprlib.repr(entry)}"
    if not _is_id(entry.get("id")):
        return f"id {reprlib.repr(entry.get('id'))} is neither a number nor a string"
    text = entry.get(key)
    if not isinstance(text, str) or not text.strip():
        return f"{key} {reprlib.repr(text)} is not a name"
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate: valid in JSON, not in file names
        return f"{key} {text!a} is not valid Unicode"
    return None


def _object_problem(
    entry: object, files: Container[object], names: Container[object]
) -> str | None:
    """Returns what is wrong with an annotation, or None."""
    if not isinstance(entry, dict):
        return f"expected an object, got {reprlib.repr(entry)}"
    for key, what, known in (("image_id", "an image", files), ("category_id", "a category", names)):
        identity = entry.get(key)
        if not _is_id(identity) or identity not in known:
            return f"{key} {reprlib.repr(identity)} is not the id of {what}"
    return None


def _is_id(value: object) -> bool:
    return isinstance(value, int | float | str)
