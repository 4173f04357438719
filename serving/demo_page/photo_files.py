"""Photos that a person hands in: what they are, and small pictures of them."""

import dataclasses
import os
import pathlib

from PIL import Image, UnidentifiedImageError

from biam_tf.errors import UserError

FORMATS = ("JPEG", "PNG", "GIF", "BMP")
# A message's 64 MB, less what is around the photo.
MAX_BYTES = 60 * 2**20


@dataclasses.dataclass(frozen=True)
class PhotoFile:
    """A file that may be a photo.

    Attributes:
        path: where it lies.
        name: what the person calls it.
        size: (width, height), as its header claims.
    """

    path: pathlib.Path
    name: str
    size: tuple[int, int]

    def read(self) -> bytes:
        """Returns its contents.

        Raises:
            UserError: it can't be read.
        """
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise UserError(f"{self.name}: {error.strerror}") from error


def open_photo_file(path: str | os.PathLike) -> PhotoFile:
    """Looks at a file's header; the pixels are not decoded.

    Raises:
        UserError: it is no JPEG, PNG, GIF or BMP, or too large to be sent.
    """
    path = pathlib.Path(path)
    try:
        size = path.stat().st_size
        with _open(path) as photo:
            found = PhotoFile(path, path.name, photo.size)
    except Image.DecompressionBombError as error:
        raise UserError(f"{path.name}: too many pixels; make it smaller") from error
    except (UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise UserError(f"{path.name}: no JPEG, PNG, GIF or BMP photo") from error
    except OSError as error:
        raise UserError(f"{path.name}: {error.strerror or error}") from error
    if size > MAX_BYTES:
        raise UserError(
            f"{path.name}: {size / 2**20:.0f} MB; photos of at most {MAX_BYTES >> 20} MB can be "
            "sent, so make it smaller"
        )
    return found


def read_picture(path: pathlib.Path, side: int) -> Image.Image:
    """Returns a photo as RGB, its longer side `side` pixels long, larger or smaller than it is.

    As the model sees it: the orientation note of a camera is not followed.

    Raises:
        UserError: it can't be decoded.
    """
    try:
        with _open(path) as photo:
            photo.draft("RGB", (side, side))  # a JPEG is decoded at a fraction of its size
            scale = side / max(photo.size)
            size = tuple(max(1, round(length * scale)) for length in photo.size)
            return photo.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{path.name}: can't be shown ({error})") from error


def _open(path: pathlib.Path) -> Image.Image:
    return Image.open(path, formats=FORMATS)
