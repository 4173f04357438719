"""Scans all photos: problems, sizes, formats, checksums and perceptual hashes."""

import concurrent.futures
import dataclasses
import hashlib
import os
import pathlib
import warnings
from collections.abc import Callable, Sequence

from biam_tf.photos import PhotoError, open_photo, read_photo_file
from training.description.perceptual_hash import (
    SIDE,
    coarse_picture,
    gray_picture,
    perceptual_hash,
)

_THREADS = 16
_AHEAD = 4096


@dataclasses.dataclass(frozen=True)
class Photo:
    """The result of scanning a photo.

    Attributes:
        problem: why the photo cannot be read; None if it can.
        size: (width, height) in pixels.
        form: format of the file, such as "JPEG".
        sha256: SHA-256 of the file.
        hash: its `perceptual_hash`.
        coarse: its `coarse_picture`, as 64 bytes.
        is_turned: whether a camera's orientation other than upright is written in the file.
        is_transparent: whether parts are transparent.
    """

    problem: str | None
    size: tuple[int, int] = (0, 0)
    form: str = ""
    sha256: bytes = b""
    hash: int = 0
    coarse: bytes = b""
    is_turned: bool = False
    is_transparent: bool = False


def scan_photos(
    directory: pathlib.Path,
    images: Sequence[str],
    update: Callable[[int], object] = lambda count: None,
) -> list[Photo]:
    """Scans all photos in parallel.

    Args:
        directory: the folder that `images` are relative to.
        images: N relative paths.
        update: called with 1 after each photo.

    Returns:
        N photos, in the order of `images`.
    """
    photos = []
    # Pillow decodes without holding the interpreter's lock, so threads are enough.
    threads = concurrent.futures.ThreadPoolExecutor(min(os.cpu_count() or 1, _THREADS))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # unusual metadata is not an error
            for start in range(0, len(images), _AHEAD):
                part = images[start : start + _AHEAD]
                for photo in threads.map(lambda image: examine_photo(directory / image), part):
                    photos.append(photo)
                    update(1)
    finally:
        threads.shutdown(cancel_futures=True)  # do not finish all photos after Ctrl-C
    return photos


def examine_photo(path: pathlib.Path) -> Photo:
    """Decodes a photo completely and returns the result."""
    try:
        content = read_photo_file(path)
    except PhotoError as error:
        return Photo(str(error))
    try:
        photo = open_photo(content, "L", at_least=(2 * SIDE, 2 * SIDE))
    except PhotoError as error:
        return Photo(str(error))
    gray = gray_picture(photo.image)
    return Photo(
        None,
        photo.size,
        photo.form,
        hashlib.sha256(content).digest(),
        int(perceptual_hash(gray)),
        coarse_picture(gray).tobytes(),
        photo.turn > 1,
        photo.is_transparent,
    )
