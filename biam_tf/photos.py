"""Decoding of photos: supported files, the size limit and the conversion to pixels.

A photo is a complete JPEG, PNG, GIF or BMP file that TensorFlow can decode and whose header claims
at most `MAX_PIXELS` pixels. There are two decoders, which reject the same files: `decode_photo` in
a TensorFlow graph, for training and serving, and `open_photo` with Pillow, for code that does not
need TensorFlow (imports, descriptions, pictures for display).

Special cases: grayscale is repeated over the three channels, CMYK JPEGs are converted, 16 bits are
reduced to 8, transparency is dropped without blending (which shows the stored color), and only the
first frame of an animated GIF is decoded. EXIF orientation is ignored. TensorFlow decodes the
palette indices of a BMP as shades of gray.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import os
import pathlib
import unicodedata
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    import tensorflow as tf

FORMATS = ("JPEG", "PNG", "GIF", "BMP")
ENDINGS = (".jpg", ".jpeg", ".png", ".gif", ".bmp")  # file name extensions
# Decoded, a pixel has 3 bytes, and 12 for resizing: 64 million pixels need 1 GB.
MAX_PIXELS = 64_000_000

NO_FILE, IS_FOLDER, IS_EMPTY = "no such file", "is a folder", "the file is empty"
NOT_WHOLE = "not a whole JPEG, PNG, GIF or BMP photo"

_BMP_BITS = (8, 24, 32)  # bits per pixel that TensorFlow supports


def too_large(max_pixels: int = MAX_PIXELS) -> str:
    """Returns the reason for rejecting a photo with more pixels."""
    return f"more than {max_pixels} pixels"


class PhotoError(ValueError):
    """A photo cannot be read; the message is the reason, without the name of the photo."""


# === TensorFlow ===


def decode_photo(contents: tf.Tensor, image_size: int, max_pixels: int = MAX_PIXELS) -> tf.Tensor:
    """Decodes a photo and resizes it to a square.

    The photo is not cropped and its aspect ratio is not kept, as in the authors' released code.
    Resizing is bilinear, with antialiasing when shrinking.

    Args:
        contents: scalar string, an encoded JPEG, PNG, GIF or BMP.
        image_size: side S of the result in pixels.
        max_pixels: photos whose header claims more pixels are rejected.

    Returns:
        float32 `(S, S, 3)`, RGB from 0 to 255, with a static shape, for `tf.data` and serving
        signatures.

    Raises:
        tf.errors.InvalidArgumentError: at run time, if the bytes are not a complete photo or claim
            too many pixels; `decoding_problem` returns the reason.
    """
    return resize_photo(decode_whole_photo(contents, max_pixels), image_size)


def decode_whole_photo(contents: tf.Tensor, max_pixels: int = MAX_PIXELS) -> tf.Tensor:
    """Decodes a photo at its original size, uint8 `(height, width, 3)`; see `decode_photo`.

    Checks the number of pixels after decoding, which is much faster in tf.data than reading every
    header (`decode_if_allowed`), and safe because the decoder rejects photos of more than 512 MB.
    """
    import tensorflow as tf

    is_gif = tf.strings.substr(contents, 0, 3) == b"GIF"
    first_frame = _graph_functions().first_gif_frame
    photo = _decode(tf.cond(is_gif, lambda: first_frame(contents), lambda: contents))
    height, width = tf.unstack(tf.shape(photo)[:2])
    is_webp = tf.strings.substr(contents, 0, 4) == b"RIFF"
    is_allowed = (height * width <= max_pixels) & ~is_webp
    # The slice is the whole photo or fails. An assertion would be stateful and slow down tf.data.
    rows = tf.where(is_allowed, height, height + 1)
    return tf.slice(photo, [0, 0, 0], tf.stack([rows, width, 3]))


def decode_if_allowed(contents: tf.Tensor, max_pixels: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes a photo, unless its header is invalid or claims too many pixels.

    Args:
        contents: scalar string, an encoded JPEG, PNG, GIF or BMP.
        max_pixels: photos whose header claims more pixels are rejected.

    Returns:
        The number of pixels that the header claims, int64, 0 or less if the header is invalid; and
        the photo, uint8 `(height, width, 3)`, `(0, 0, 3)` if it is rejected.

    Raises:
        tf.errors.InvalidArgumentError: at run time, if the bytes after the header are invalid.
    """
    import tensorflow as tf

    from biam_tf.photo_headers import header_pixels

    contents, pixels = header_pixels(contents)
    photo = tf.cond(
        (0 < pixels) & (pixels <= max_pixels),
        lambda: _decode(contents),
        lambda: tf.zeros((0, 0, 3), tf.uint8),
    )
    return pixels, photo


def decoding_problem(contents: bytes, max_pixels: int = MAX_PIXELS) -> str | None:
    """Returns why `decode_photo` rejects a photo, or None if it does not."""
    import tensorflow as tf

    if not contents:
        return IS_EMPTY
    try:
        first, pixels = _graph_functions().header_pixels(tf.constant(contents))
        if pixels > max_pixels:
            return too_large(max_pixels)
        if pixels > 0:
            _decode(first)
            return None
    except tf.errors.InvalidArgumentError:
        pass
    return NOT_WHOLE


def resize_photo(photo: tf.Tensor, image_size: int) -> tf.Tensor:
    """Resizes a decoded photo to a square, as `decode_photo` does.

    Args:
        photo: `(height, width, 3)`, values 0 to 255.
        image_size: side S of the result in pixels.

    Returns:
        float32 `(S, S, 3)`, values 0 to 255.
    """
    import tensorflow as tf

    photo = tf.ensure_shape(photo, (None, None, 3))
    photo = tf.image.resize(photo, (image_size, image_size), method="bilinear", antialias=True)
    return tf.clip_by_value(photo, 0.0, 255.0)  # the weights may sum to 1 + 1e-7


class _GraphFunctions:
    """Graph functions for decoding; eagerly, their loops would take minutes for a large GIF."""

    def __init__(self) -> None:
        import tensorflow as tf

        from biam_tf.photo_headers import header_pixels

        def first_gif_frame(contents: tf.Tensor) -> tf.Tensor:
            return header_pixels(contents)[0]

        # Not inlined, so that photos that are not GIFs do not run each of their operations.
        options = {
            "input_signature": [tf.TensorSpec((), tf.string)],
            "experimental_attributes": {"_noinline": True},
        }
        self.header_pixels = tf.function(header_pixels, **options)
        self.first_gif_frame = tf.function(first_gif_frame, **options)


@functools.cache
def _graph_functions() -> _GraphFunctions:
    return _GraphFunctions()


def _decode(contents: tf.Tensor) -> tf.Tensor:
    import tensorflow as tf

    photo = tf.io.decode_image(contents, channels=3, expand_animations=False)
    return tf.ensure_shape(photo, (None, None, 3))  # decode_image does not give the rank


# === Pillow ===


@dataclasses.dataclass(frozen=True)
class OpenPhoto:
    """A photo that Pillow has decoded.

    Attributes:
        image: the pixels, in the requested mode.
        size: (width, height) in the file, in pixels; `image` may be smaller.
        form: format of the file, such as "JPEG".
    """

    image: Image.Image
    size: tuple[int, int]
    form: str


def open_photo(
    source: str | os.PathLike[str] | bytes,
    mode: Literal["RGB", "L"] = "RGB",
    at_least: tuple[int, int] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> OpenPhoto:
    """Decodes a photo completely with Pillow.

    Args:
        source: a path, or the bytes of a file.
        mode: mode of the result, "RGB" or "L" (grayscale).
        at_least: (width, height); a JPEG may be decoded at a fraction of its size that is at least
            this large, which is faster. None decodes it at its original size.
        max_pixels: photos whose header claims more pixels are rejected.

    Raises:
        PhotoError: the file is missing, empty or not a complete photo, or claims too many pixels.
    """
    contents = source if isinstance(source, bytes) else read_photo_file(source)
    if not contents:
        raise PhotoError(IS_EMPTY)
    try:
        with Image.open(io.BytesIO(contents), formats=FORMATS) as photo:
            size, form = photo.size, photo.format or ""
            if size[0] * size[1] > max_pixels:
                raise PhotoError(too_large(max_pixels))
            if not _is_whole(contents, form):
                raise PhotoError(NOT_WHOLE)
            if at_least is not None:
                photo.draft(mode, at_least)
            photo.load()
            return OpenPhoto(_as_decoded(photo).convert(mode), size, form)
    except Image.DecompressionBombError as error:
        raise PhotoError(too_large(max_pixels)) from error
    except PhotoError:
        raise
    except Exception as error:  # decoders raise many types of errors for broken bytes
        raise PhotoError(NOT_WHOLE) from error


def photo_problem(source: str | os.PathLike[str] | bytes) -> str | None:
    """Returns why a photo (a path or bytes) cannot be read, or None if it can."""
    try:
        # A JPEG is read completely at any scale; 1/8 is the fastest.
        open_photo(source, at_least=(1, 1))
    except PhotoError as error:
        return str(error)
    return None


def read_photo_file(path: str | os.PathLike[str]) -> bytes:
    """Returns the contents of a photo file.

    Raises:
        PhotoError: the file cannot be read.
    """
    try:
        return pathlib.Path(path).read_bytes()
    except FileNotFoundError as error:
        raise PhotoError(NO_FILE) from error
    except IsADirectoryError as error:
        raise PhotoError(IS_FOLDER) from error
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the name
        reason = getattr(error, "strerror", None) or error
        raise PhotoError(f"cannot be opened: {reason}") from error


def _is_whole(contents: bytes, form: str) -> bool:
    """Checks what TensorFlow's decoders require but Pillow ignores."""
    if form == "PNG":
        return b"IEND\xaeB`\x82" in contents
    if form == "GIF":
        return _first_gif_frame_end(contents) <= len(contents)
    if form == "BMP":
        return len(contents) > 30 and int.from_bytes(contents[28:30], "little") in _BMP_BITS
    return True


def _first_gif_frame_end(contents: bytes) -> int:
    """Returns the end of the first frame of a GIF; larger than the file if it is incomplete."""
    data = contents + bytes(32)

    def after_data(position: int) -> int:
        while position < len(contents) and data[position]:
            position += 1 + data[position]
        return position + 1

    def color_table(flags: int) -> int:
        return 3 * 2 ** (flags % 8 + 1) if flags >= 0x80 else 0

    frame = 13 + color_table(data[10])
    while frame < len(contents) and data[frame] == 0x21:  # an extension
        frame = after_data(frame + 2)
    if frame >= len(contents) or data[frame] != 0x2C:
        return len(data)
    return after_data(frame + 11 + color_table(data[min(frame + 9, len(contents))]))


def _as_decoded(photo: Image.Image) -> Image.Image:
    """Converts a photo where Pillow and TensorFlow decode different pixels."""
    if photo.mode.startswith("I"):  # 16 bits per pixel
        return Image.fromarray((np.asarray(photo).astype(np.uint32) >> 8).astype(np.uint8))
    if photo.mode == "P" and photo.format == "BMP":
        return Image.fromarray(np.asarray(photo))
    return photo


# === Names of files ===


def stored_name(directory: str | os.PathLike[str], image: str) -> str:
    """Returns the path of a photo relative to a folder, in the Unicode form used on the disk.

    A list may contain an accented letter as one character (NFC) and the disk as two (NFD), or vice
    versa. A path that exists in neither form is returned unchanged.
    """
    if image.isascii():
        return image
    found = ""
    for part in image.split("/"):
        forms = (part, unicodedata.normalize("NFC", part), unicodedata.normalize("NFD", part))
        path = next((f for f in forms if os.path.lexists(os.path.join(directory, found + f))), None)
        if path is None:
            return image
        found += f"{path}/"
    return found.removesuffix("/")
