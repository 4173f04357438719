"""One pass over all photos: which cannot be read, what they look like, which are the same file."""

import concurrent.futures
import dataclasses
import hashlib
import io
import os
import pathlib
import warnings
from collections.abc import Callable, Sequence

from PIL import Image

from training.data.folder.reader import PHOTO_FORMATS, decoding_problem
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
    """A photo that was opened.

    Attributes:
        problem: why it cannot be read; None: it can.
        size: width and height in pixels.
        form: its format, such as "JPEG".
        sha256: of the file.
        hash: of `perceptual_hash`.
        coarse: of `coarse_picture`, as 64 bytes.
    """

    problem: str | None
    size: tuple[int, int] = (0, 0)
    form: str = ""
    sha256: bytes = b""
    hash: int = 0
    coarse: bytes = b""


def scan_photos(
    directory: pathlib.Path,
    images: Sequence[str],
    update: Callable[[int], object] = lambda count: None,
) -> list[Photo]:
    """Opens all photos, several at a time.

    Args:
        directory: the folder that `images` are relative to.
        images: N relative paths.
        update: is told of each photo that is done.

    Returns:
        N photos, in the order of `images`.
    """
    photos = []
    # Pillow decodes without holding the interpreter's lock, so threads are enough.
    threads = concurrent.futures.ThreadPoolExecutor(min(os.cpu_count() or 1, _THREADS))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # unusual metadata is no defect of a picture
            for start in range(0, len(images), _AHEAD):
                part = images[start : start + _AHEAD]
                for photo in threads.map(lambda image: open_photo(directory / image), part):
                    photos.append(photo)
                    update(1)
    finally:
        threads.shutdown(cancel_futures=True)  # at Ctrl-C, not after the last photo
    return photos


def open_photo(path: pathlib.Path) -> Photo:
    """Reads a photo to its end."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return Photo("no such file")
    except OSError as error:
        return Photo(f"cannot be opened: {error.strerror}")
    if not content:
        return Photo("the file is empty")
    try:
        with Image.open(io.BytesIO(content), formats=PHOTO_FORMATS) as photo:
            size, form = photo.size, photo.format
            # A JPEG is decoded at the smallest scale that is large enough, and still read to its
            # end.
            photo.draft("L", (2 * SIDE, 2 * SIDE))
            gray = gray_picture(photo)
    except Exception as error:  # decoders raise whatever the broken bytes lead them to
        return Photo(decoding_problem(error))
    checksum, coarse = hashlib.sha256(content).digest(), coarse_picture(gray).tobytes()
    return Photo(None, size, form, checksum, int(perceptual_hash(gray)), coarse)
