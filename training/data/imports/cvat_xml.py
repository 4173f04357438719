"""Reads labeled photos from the XML files of CVAT."""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

from biam_tf.errors import UserError
from training.data.dataset import SPLITS
from training.data.imports.listed_photos import ListedPhoto, Listing, some_of
from training.data.imports.photo_paths import PhotoPaths, split_named
from training.data.imports.xml_files import parse_xml
from training.data.problems import Problems

FORM = "CVAT for images 1.1"
_SHAPES = (
    *("tag", "box", "polygon", "polyline", "points", "mask", "ellipse", "cuboid"),
    *("skeleton", "cuboid_2d"),
)


def read_cvat(
    path: pathlib.Path,
    split: str | None,
    folder: pathlib.Path | None,
    shares: tuple[float, float],
    problems: Problems,
    replacements: Sequence[str] = (),
) -> Listing:
    """Reads "CVAT for images 1.1"; the labels of a photo are those of its tags and shapes.

    Classes are the labels of the project in its order, and others that occur. The splits are those
    of the subsets if these are called train, val or test.

    Args:
        path: `annotations.xml`, or the folder with it.
        split: of all photos; None: by subset, or else by path.
        folder: of the photos; None: `images/` beside the file, or else its own.
        shares: of the photos in val and test where the file has no splits.
        problems: collects invalid entries.
        replacements: "OLD=NEW" for beginnings of paths.

    Raises:
        UserError: the file cannot be read or has another form.
    """
    path = path / "annotations.xml" if path.is_dir() else path
    root = _root(path)
    listing = Listing()
    for label in _labels(root):
        listing.classes.add(label, f"{path.name} labels")
    images = root.findall("image")
    subsets = {(image.get("subset") or "").strip() for image in images}
    by_subset = split is None and any(map(split_named, subsets))
    first: dict[str, int] = {}
    ignored: dict[str, int] = {}
    for index, image in enumerate(images):
        subset = (image.get("subset") or "").strip()
        finder, location, problem = _find(image, subset, path.parent, folder, replacements)
        place = f"{path.name} image {index} ({image.get('name')})"
        own_split = split or (split_named(subset) if by_subset else None)
        if not problem and by_subset and own_split is None:
            problem = f"unknown subset {subset!r}; use {', '.join(SPLITS)}, or give SPLIT=PATH"
        if not problem and first.setdefault(location, index) != index:
            problem = f"{location} is already image {first[location]}"
        names: dict[str, None] = {}
        for shape in image:
            label = (shape.get("label") or "").strip()
            if shape.tag not in _SHAPES:
                ignored[shape.tag] = ignored.get(shape.tag, 0) + 1
            elif not label:
                problem = problem or f"a {shape.tag} has no label"
            else:
                names[listing.classes.add(label, place)] = None
        if problem:
            problems.add(place, None, problem)
            continue
        listing.photos.append(
            ListedPhoto(
                location, own_split or finder.split(location, shares), tuple(names), None, place
            )
        )
    attributes = [element.get("name") or "" for element in root.findall("image//attribute")]
    _add_notes(listing, path.name, ignored, attributes)
    if not images:
        problems.add(path.name, None, "lists no photos")
    return listing


def _root(path: pathlib.Path) -> Any:
    if not path.is_file():
        raise UserError(f"{path}: no such file; give annotations.xml of {FORM!r}")
    try:
        content = path.read_bytes()
        if content.startswith(b"PK"):
            raise UserError(f"{path}: is a ZIP archive; unpack it and give annotations.xml")
        root = parse_xml(content)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path}: {error}") from None
    if root.tag != "annotations":
        raise UserError(f"{path}: begins with <{root.tag}>; {FORM!r} begins with <annotations>")
    if root.find("track") is not None:
        raise UserError(f"{path}: is of a video; export it from CVAT as {FORM!r}")
    return root


def _labels(root: Any) -> list[str]:
    """Returns the labels of the project or task; parts of skeletons are no labels of photos."""
    return [
        name
        for label in root.findall("./meta//labels/label")
        if (name := (label.findtext("name") or "").strip()) and label.find("parent") is None
    ]


def _find(
    image: Any,
    subset: str,
    beside: pathlib.Path,
    folder: pathlib.Path | None,
    replacements: Sequence[str],
) -> tuple[PhotoPaths, str, str | None]:
    """Returns what found the photo, its location, and what is wrong or None."""
    folders = [folder] if folder else [beside / "images" / subset, beside / "images", beside]
    found = []
    for candidate in folders:
        finder = PhotoPaths(candidate, replacements)
        location, problem = finder.find(image.get("name") or "")
        found.append((finder, location, problem))
        if not problem and os.path.lexists(location):
            return found[-1]
    return found[0] if folder else found[1]


def _add_notes(
    listing: Listing, file: str, ignored: dict[str, int], attributes: Sequence[str]
) -> None:
    empty = sum(not photo.labels for photo in listing.photos)
    if empty:
        listing.notes.append(
            f"{file}: {empty} of {len(listing.photos)} photos have no tag and no shape; they are "
            "kept, as showing no class"
        )
    if attributes:
        listing.notes.append(
            f"{file}: attributes such as {attributes[0]!r} are not taken ({len(attributes)} values)"
        )
    if ignored:
        kinds = [f"{count} <{tag}>" for tag, count in ignored.items()]
        listing.notes.append(f"{file}: not taken: {some_of(kinds, 10)}")
