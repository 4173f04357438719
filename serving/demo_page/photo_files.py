"""Uploaded photos and their thumbnails."""

import dataclasses
import os
import pathlib

from PIL import Image

from biam_tf.errors import UserError
from biam_tf.photos import PhotoError, open_photo

# A message has at most 64 MB, including what surrounds the photo.
MAX_BYTES = 60 * 2**20


@dataclasses.dataclass(frozen=True)
class PhotoFile:
    """An uploaded photo.

    Attributes:
        path: path of the file.
        name: name of the file, for messages.
        size: (width, height) in pixels.
    """

    path: pathlib.Path
    name: str
    size: tuple[int, int]

    def read(self) -> bytes:
        """Returns the contents of the file.

        Raises:
            UserError: the file cannot be read.
        """
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise UserError(f"{self.name}: {error.strerror}") from error


def open_photo_file(path: str | os.PathLike) -> PhotoFile:
    """Checks an uploaded file.

    Raises:
        UserError: the file is not a readable photo or is too large.
    """
    path = pathlib.Path(path)
    try:
        size = path.stat().st_size
    except OSError as error:
        raise UserError(f"{path.name}: {error.strerror or error}") from error
    if size > MAX_BYTES:
        raise UserError(
            f"{path.name}: {size / 2**20:.0f} MB, but the largest allowed size is "
            f"{MAX_BYTES >> 20} MB; use a smaller photo"
        )
    try:
        return PhotoFile(path, path.name, open_photo(path, at_least=(1, 1)).size)
    except PhotoError as error:
        raise UserError(f"{path.name}: {error}") from error


def read_picture(path: pathlib.Path, side: int) -> Image.Image:
    """Returns a photo as RGB, resized up or down so that its longer side is `side` pixels.

    EXIF orientation is ignored, as for the model.

    Raises:
        UserError: the photo cannot be decoded.
    """
    try:
        photo = open_photo(path, at_least=(side, side)).image
    except PhotoError as error:
        raise UserError(f"{path.name}: cannot be displayed: {error}") from error
    scale = side / max(photo.size)
    size = (max(1, round(photo.width * scale)), max(1, round(photo.height * scale)))
    return photo.resize(size, Image.Resampling.LANCZOS)
