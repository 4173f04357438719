"""Uploaded photos and their thumbnails."""

import dataclasses
import os
import pathlib

from PIL import Image

from biam_tf.errors import UserError
from biam_tf.photos import Orientation, PhotoError, as_sent, open_photo

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
        """Returns the photo as it is sent to a server, see `biam_tf.photos.as_sent`.

        Raises:
            UserError: the file cannot be read, or is too large to be sent.
        """
        try:
            contents = as_sent(self.path.read_bytes())
        except OSError as error:
            raise UserError(f"{self.name}: {error.strerror}") from error
        except PhotoError as error:
            raise UserError(f"{self.name}: {error}") from error
        _check_bytes(self.name, len(contents))
        return contents


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
    _check_bytes(path.name, size)
    try:
        return PhotoFile(path, path.name, open_photo(path, at_least=(1, 1)).size)
    except PhotoError as error:
        raise UserError(f"{path.name}: {error}") from error


def _check_bytes(name: str, size: int) -> None:
    if size > MAX_BYTES:
        raise UserError(
            f"{name}: {size / 2**20:.0f} MB, but the largest allowed size is "
            f"{MAX_BYTES >> 20} MB; use a smaller photo"
        )


def read_picture(path: pathlib.Path, side: int, orientation: Orientation = "follow") -> Image.Image:
    """Returns a photo as RGB, resized up or down so that its longer side is `side` pixels.

    Args:
        path: the file.
        side: of the result in pixels.
        orientation: that of the model, whose response maps are drawn over the photo.

    Raises:
        UserError: the photo cannot be decoded.
    """
    try:
        photo = open_photo(path, at_least=(side, side), orientation=orientation).image
    except PhotoError as error:
        raise UserError(f"{path.name}: cannot be displayed: {error}") from error
    scale = side / max(photo.size)
    size = (max(1, round(photo.width * scale)), max(1, round(photo.height * scale)))
    return photo.resize(size, Image.Resampling.LANCZOS)
