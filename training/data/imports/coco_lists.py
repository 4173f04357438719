"""Labeled photos in COCO's JSON form: images, categories, and the objects that join them."""

import json
import pathlib
import reprlib

from biam_tf.errors import UserError
from training.data.imports.listed_photo import ListedPhoto
from training.data.problems import Problems

PARTS = ("images", "annotations", "categories")


def read_coco(
    path: pathlib.Path, folder: pathlib.Path, split: str
) -> tuple[list[ListedPhoto], list[str]]:
    """Reads an annotation file in COCO's form; every object's category is a label of its photo.

    Args:
        path: JSON with `images`, `annotations` and `categories`.
        folder: what `file_name` is relative to.
        split: of all its photos.

    Returns:
        The photos, and the names of all categories, both in the file's order.

    Raises:
        UserError: it is no such file, or its entries are not whole or do not fit together: all
            of those are named.
    """
    problems = Problems(path.parent)
    parts = _read_parts(path)
    names = _by_id(path.name, "categories", parts["categories"], "name", problems)
    files = _by_id(path.name, "images", parts["images"], "file_name", problems)
    _find_repeated_files(path.name, parts["images"], problems)
    # Objects of an image that is not whole would be reported as well.
    problems.raise_if_any()
    if not files:
        raise UserError(f"{path}: lists no photo")
    labels: dict[int | str, dict[str, None]] = {image: {} for image in files}
    for place, entry in enumerate(parts["annotations"]):
        complaint = _object_complaint(entry, files, names)
        if complaint:
            problems.add(path.name, None, f"annotations[{place}]: {complaint}")
        else:
            labels[entry["image_id"]][names[entry["category_id"]]] = None
    problems.raise_if_any()
    photos = [ListedPhoto(str(folder / files[i]), split, tuple(labels[i])) for i in files]
    return photos, list(dict.fromkeys(names.values()))


def _read_parts(path: pathlib.Path) -> dict[str, list]:
    form = f"COCO's form is an object with lists of {PARTS[0]}, {PARTS[1]} and {PARTS[2]}"
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give a JSON file in COCO's form") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds {reprlib.repr(content)}; {form}")
    for part in PARTS:
        if not isinstance(content.get(part), list):
            raise UserError(f"{path}: has no list {part!r}; {form}")
    return {part: content[part] for part in PARTS}


def _by_id(
    file: str, part: str, entries: list, key: str, problems: Problems
) -> dict[int | str, str]:
    """Returns the text under `key` of each entry; notes entries without one and repeated ids."""
    texts: dict[int | str, str] = {}
    first: dict[int | str, int] = {}
    for place, entry in enumerate(entries):
        complaint = _entry_complaint(entry, key)
        if not complaint and entry["id"] in first:
            complaint = f"id {entry['id']!r} is that of {part}[{first[entry['id']]}] already"
        if complaint:
            problems.add(file, None, f"{part}[{place}]: {complaint}")
        else:
            texts[entry["id"]], first[entry["id"]] = entry[key].strip(), place
    return texts


def _find_repeated_files(file: str, entries: list, problems: Problems) -> None:
    first: dict[pathlib.PurePath, int] = {}
    for place, entry in enumerate(entries):
        if _entry_complaint(entry, "file_name"):
            continue
        name = entry["file_name"].strip()
        file_path = pathlib.PurePath(name)  # "./1.jpg" is "1.jpg"
        if first.setdefault(file_path, place) != place:
            problems.add(
                file, None, f"images[{place}]: {name!r} is images[{first[file_path]}] already"
            )


def _entry_complaint(entry: object, key: str) -> str | None:
    """Returns what an image or a category lacks."""
    if not isinstance(entry, dict):
        return f"expected an object, got {reprlib.repr(entry)}"
    if not _is_id(entry.get("id")):
        return f"id {reprlib.repr(entry.get('id'))} is neither number nor text"
    text = entry.get(key)
    if not isinstance(text, str) or not text.strip():
        return f"{key} {reprlib.repr(text)} is no name"
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a pair, which JSON can write and no file can be named
        return f"{key} {text!a} is no text"
    return None


def _object_complaint(entry: object, files: dict, names: dict) -> str | None:
    """Returns why an annotation joins no image and category."""
    if not isinstance(entry, dict):
        return f"expected an object, got {reprlib.repr(entry)}"
    for key, what, known in (("image_id", "image", files), ("category_id", "category", names)):
        identity = entry.get(key)
        if not _is_id(identity) or identity not in known:
            return f"{key} {reprlib.repr(identity)} is no {what}"
    return None


def _is_id(value: object) -> bool:
    return isinstance(value, int | float | str)
