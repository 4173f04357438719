"""Photos as callers have them: paths, bytes, Pillow images or arrays, one or many."""

import dataclasses
import io
import os
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from biam_tf.errors import UserError
from biam_tf.photos import PhotoError, as_sent, read_photo_file

# Modes that a PNG holds without loss.
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")


@dataclasses.dataclass(frozen=True)
class PhotoInput:
    """A photo to read.

    Attributes:
        name: its path, or its number; begins errors about it.
        source: as it was given.
    """

    name: str
    source: Any

    @property
    def key(self) -> Hashable:
        """The same for the same file, or for the same bytes or object in memory."""
        if isinstance(self.source, (str, os.PathLike)):
            return os.path.realpath(self.source)
        return bytes(self.source) if isinstance(self.source, bytes) else id(self.source)

    def read(self) -> bytes:
        """Returns the bytes of a photo with the same pixels, in a format that every model takes.

        Raises:
            PhotoError: the file cannot be read, its format needs a package that is not installed,
                or the array is no photo.
        """
        if isinstance(self.source, (bytes, bytearray, memoryview)):
            return as_sent(bytes(self.source))
        if isinstance(self.source, np.ndarray):
            return _as_png(_image_of(self.source))
        if isinstance(self.source, Image.Image):
            return _as_png(self.source)
        return as_sent(read_photo_file(os.fspath(self.source)))


def photo_inputs(photos: Any) -> tuple[list[PhotoInput], bool]:
    """Returns photos in their order, and whether it was a single one.

    Args:
        photos: a path, bytes, a Pillow image, an array (height, width[, channels]), or several:
            a sequence of these, or an array (photos, height, width, channels).

    Raises:
        UserError: there is no photo, or something is of another type.
    """
    if isinstance(photos, np.ndarray) and photos.ndim == 4:
        photos = list(photos)
    if _is_photo(photos):
        return [PhotoInput(_name(photos, 0), photos)], True
    if isinstance(photos, (str, os.PathLike)) or not isinstance(photos, Iterable):
        raise UserError(_wrong_type("photos", photos))
    several: Sequence[Any] = list(photos)
    if not several:
        raise UserError("photos: there are none; give at least one photo")
    for number, photo in enumerate(several):
        if not _is_photo(photo):
            raise UserError(_wrong_type(f"photos: number {number + 1}", photo))
    return [PhotoInput(_name(photo, number), photo) for number, photo in enumerate(several)], False


def _is_photo(value: Any) -> bool:
    if isinstance(value, (str, os.PathLike)):
        return bool(str(value))
    return isinstance(value, (bytes, bytearray, memoryview, Image.Image, np.ndarray))


def _name(photo: Any, number: int) -> str:
    return str(photo) if isinstance(photo, (str, os.PathLike)) else f"photo {number + 1}"


def _wrong_type(where: str, value: Any) -> str:
    found = "an empty text" if value == "" else f"a {type(value).__name__}"
    return f"{where}: expected a path, bytes, a Pillow image or a uint8 array, got {found}"


def _image_of(array: np.ndarray) -> Image.Image:
    if array.dtype != np.uint8:
        raise PhotoError(
            f"an array of {array.dtype}; pixels must be uint8, 0 to 255 (for values from 0 to 1: "
            "(255 * array).round().astype('uint8'))"
        )
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or 0 in array.shape or array.shape[2:] not in ((), (3,), (4,)):
        raise PhotoError(
            f"an array of shape {array.shape}; expected (height, width, channels) with 1, 3 or 4 "
            "channels, RGB"
        )
    return Image.fromarray(np.ascontiguousarray(array))


def _as_png(image: Image.Image) -> bytes:
    """Returns a PNG of the pixels and the EXIF orientation, which is followed on reading."""
    if 0 in image.size:
        raise PhotoError(f"a picture of {image.size[0]}x{image.size[1]} pixels")
    exif = image.getexif()
    if image.mode not in _PNG_MODES:
        has_alpha = image.mode in ("PA", "La", "RGBa")
        image = image.convert("RGBA" if has_alpha else "RGB")
    buffer = io.BytesIO()
    # Not compressed: it is decoded at once.
    image.save(buffer, "PNG", compress_level=0, **({"exif": exif} if exif else {}))
    return buffer.getvalue()
