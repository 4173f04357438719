"""Photos that a person uploads, and small pictures of them."""

import dataclasses
import os
import pathlib

from PIL import Image

from biam_tf.errors import UserError
from biam_tf.photos import PhotoError, open_photo

# A message's 64 MB, less what is around the photo.
MAX_BYTES = 60 * 2**20


@dataclasses.dataclass(frozen=True)
class PhotoFile:
    """The file of a photo.

    Attributes:
        path: of the file.
        name: of the file, for messages.
        size: (width, height) in pixels.
    """

    path: pathlib.Path
    name: str
    size: tuple[int, int]

    def read(self) -> bytes:
        """Returns the bytes of the file.

        Raises:
            UserError: it cannot be read.
        """
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise UserError(f"{self.name}: {error.strerror}") from error


def open_photo_file(path: str | os.PathLike) -> PhotoFile:
    """Checks an uploaded file.

    Raises:
        UserError: it is not a photo that can be read, or too large to be sent.
    """
    path = pathlib.Path(path)
    try:
        size = path.stat().st_size
    except OSError as error:
        raise UserError(f"{path.name}: {error.strerror or error}") from error
    if size > MAX_BYTES:
        raise UserError(
            f"{path.name}: {size / 2**20:.0f} MB; photos of at most {MAX_BYTES >> 20} MB can be "
            "sent, so make it smaller"
        )
    try:
        return PhotoFile(path, path.name, open_photo(path, at_least=(1, 1)).size)
    except PhotoError as error:
        raise UserError(f"{path.name}: {error}") from error


def read_picture(path: pathlib.Path, side: int) -> Image.Image:
    """Returns a photo as RGB, its longer side `side` pixels long, larger or smaller than it is.

    As the model sees it: the orientation note of a camera is not followed.

    Raises:
        UserError: it cannot be decoded.
    """
    try:
        photo = open_photo(path, at_least=(side, side)).image
    except PhotoError as error:
        raise UserError(f"{path.name}: cannot be shown: {error}") from error
    scale = side / max(photo.size)
    size = (max(1, round(photo.width * scale)), max(1, round(photo.height * scale)))
    return photo.resize(size, Image.Resampling.LANCZOS)
