"""Where a photo lies that a list names, and the split that its path selects."""

import hashlib
import os
import pathlib
import re
import urllib.parse
from collections.abc import Sequence

from biam_tf.embeddings.names import normalize
from biam_tf.errors import UserError
from training.data.dataset import SPLITS
from training.data.imports.downloads import url_problem
from training.data.imports.photo_collection import is_url

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:(//|.*;base64,)")
_DRIVE = re.compile(r"[A-Za-z]:/")
_SPLIT_NAMES = {
    "training": "train",
    "valid": "val",
    "validation": "val",
    "testing": "test",
} | {split: split for split in SPLITS}


class PhotoPaths:
    """Turns the paths and URLs of a list into locations, one for each photo.

    Args:
        folder: that relative paths start from.
        replacements: "OLD=NEW" for beginnings of paths that are replaced; the first that fits is.
        suffix: added to paths without one, such as ".jpg" for lists that name photos by their id.

    Raises:
        UserError: a replacement is not "OLD=NEW".
    """

    def __init__(self, folder: pathlib.Path, replacements: Sequence[str] = (), suffix: str = ""):
        self._folder = folder
        self._suffix = suffix
        self._below = "" if folder == pathlib.Path() else f"{str(folder).rstrip(os.sep)}{os.sep}"
        self._written: dict[str, str] = {}
        self._replacements: list[tuple[str, str]] = []
        for text in replacements:
            old, sign, new = text.partition("=")
            if not old.strip() or not sign:
                raise UserError(f"--replace-path {text!r}: expected OLD=NEW")
            self._replacements.append((_with_slashes(old.strip()), new.strip()))

    def find(self, text: str) -> tuple[str, str | None]:
        """Returns the path or URL of a photo, and what is wrong with it or None."""
        image = self._replaced(text.strip())
        if not image:
            return "", "names no photo"
        if self._suffix and not image.lower().endswith(self._suffix.lower()):
            image += self._suffix
        if is_url(image):
            return image, url_problem(image)
        if image.lower().startswith("file:///"):
            image = urllib.parse.unquote(image[7:])
        if _SCHEME.match(image):
            return "", (
                f"{image[:60]!r}: only http and https addresses are downloaded; copy these photos "
                "and give --replace-path OLD=NEW for the beginning of their paths"
            )
        if "\\" in image and os.sep == "/" and not (self._folder / image).exists():
            image = _with_slashes(image)
        if os.sep == "/" and (_DRIVE.match(image) or image.startswith("//")):
            return "", (
                f"{text.strip()!r} is a path of a Windows computer; give --replace-path OLD=NEW, "
                f"such as --replace-path {_beginning(image)}=photos/"
            )
        return self._known(str(self._folder / image)), None

    def split(self, location: str, shares: tuple[float, float]) -> str:
        """Returns the split that the hash of a photo's path selects, the same in every import.

        Args:
            location: path or URL. Of a path below the list's folder, what stands below it counts.
            shares: of the photos in val and test.
        """
        key = location
        if not is_url(location):
            key = location.removeprefix(self._below).replace(os.sep, "/")
        digest = hashlib.sha256(normalize(key).encode()).digest()
        position = int.from_bytes(digest[:8], "big") / 2**64
        val, test = shares
        return "val" if position < val else "test" if position < val + test else "train"

    def _known(self, path: str) -> str:
        """Returns the path as it was written before, where only the Unicode form differs."""
        before = self._written.setdefault(normalize(path), path)
        are_two = before != path and os.path.lexists(before) and os.path.lexists(path)
        return path if are_two else before

    def _replaced(self, image: str) -> str:
        for old, new in self._replacements:
            with_slashes = image if is_url(image) else _with_slashes(image)
            if with_slashes.startswith(old):
                return new + with_slashes.removeprefix(old)
        return image


def split_named(text: str) -> str | None:
    """Returns the split that a list names, in any case and under its usual names, or None."""
    return _SPLIT_NAMES.get(text.strip().lower())


def _with_slashes(path: str) -> str:
    return path.replace("\\", "/")


def _beginning(path: str) -> str:
    return path.rpartition("/")[0] + "/"
