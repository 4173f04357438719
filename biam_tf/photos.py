"""Photos: which files can be read, the largest size, and how they become pixels.

A photo is a whole JPEG, PNG, GIF or BMP file that TensorFlow decodes and that claims at most
`MAX_PIXELS` pixels. There are two readers, which refuse the same files: `decode_photo` in a
TensorFlow graph, for training and serving, and `open_photo` with Pillow, for what does without
TensorFlow (imports, descriptions, pictures for people).

What becomes of less usual files: grayscale is repeated over the three channels, CMYK JPEGs are
converted, 16 bits become 8, transparency is dropped without blending (the color that is stored
under it shows), an animated GIF gives its first frame. The orientation note of a camera (EXIF) is
not followed. TensorFlow takes the indices of a BMP with a palette for shades of gray.
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
ENDINGS = (".jpg", ".jpeg", ".png", ".gif", ".bmp")  # of their files
# A photo is decoded to 3 bytes per pixel and resized from 12: 64 million pixels take 1 GB.
MAX_PIXELS = 64_000_000

NO_FILE, IS_FOLDER, IS_EMPTY = "no such file", "is a folder", "the file is empty"
NOT_WHOLE = "not a whole JPEG, PNG, GIF or BMP photo"

_BMP_BITS = (8, 24, 32)  # per pixel, those that TensorFlow decodes


def too_large(max_pixels: int = MAX_PIXELS) -> str:
    """Returns the reason for which a photo of more pixels is refused."""
    return f"more than {max_pixels} pixels"


class PhotoError(ValueError):
    """A photo cannot be read; the message is the reason, without the photo's name."""


# === TensorFlow ===


def decode_photo(contents: tf.Tensor, image_size: int, max_pixels: int = MAX_PIXELS) -> tf.Tensor:
    """Decodes a photo and resizes it straight to a square.

    The whole photo is kept and its proportions are not, as in the authors' released code; the
    resizing is bilinear, with antialiasing where it shrinks.

    Args:
        contents: scalar string, an encoded JPEG, PNG, GIF or BMP.
        image_size: side S of the result.
        max_pixels: photos whose header claims more are refused.

    Returns:
        float32 `(S, S, 3)`, RGB from 0 to 255, with a static shape: fit for `tf.data` and for
        a serving signature.

    Raises:
        tf.errors.InvalidArgumentError: when it runs, if the bytes are not a whole photo or claim
            more pixels; `decoding_problem` returns the reason.
    """
    return resize_photo(decode_whole_photo(contents, max_pixels), image_size)


def decode_whole_photo(contents: tf.Tensor, max_pixels: int = MAX_PIXELS) -> tf.Tensor:
    """Decodes a photo in its own size, uint8 `(height, width, 3)`; otherwise as `decode_photo`.

    The decoder itself refuses what takes more than 512 MB, so that the number of pixels is checked
    afterwards, which is much faster in tf.data than reading every header (`decode_if_allowed`).
    """
    import tensorflow as tf

    is_gif = tf.strings.substr(contents, 0, 3) == b"GIF"
    first_frame = _graph_functions().first_gif_frame
    photo = _decode(tf.cond(is_gif, lambda: first_frame(contents), lambda: contents))
    height, width = tf.unstack(tf.shape(photo)[:2])
    is_webp = tf.strings.substr(contents, 0, 4) == b"RIFF"
    is_allowed = (height * width <= max_pixels) & ~is_webp
    # The slice is the whole photo, or is refused. An assertion would be a state, which slows
    # tf.data down.
    rows = tf.where(is_allowed, height, height + 1)
    return tf.slice(photo, [0, 0, 0], tf.stack([rows, width, 3]))


def decode_if_allowed(contents: tf.Tensor, max_pixels: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes a photo, unless its header claims too much or is broken.

    Returns:
        The pixels that the header claims, int64, 0 or less where it is not that of a photo; and
        uint8 `(height, width, 3)`, `(0, 0, 3)` where the photo is refused.

    Raises:
        tf.errors.InvalidArgumentError: when it runs, if the bytes after the header are broken.
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
    """Returns why `decode_photo` refuses a photo, or None where it does not."""
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
    """Resizes a decoded photo as `decode_photo` does.

    Args:
        photo: `(height, width, 3)`, values 0 to 255.
        image_size: side S of the result.

    Returns:
        float32 `(S, S, 3)`.
    """
    import tensorflow as tf

    photo = tf.ensure_shape(photo, (None, None, 3))
    photo = tf.image.resize(photo, (image_size, image_size), method="bilinear", antialias=True)
    return tf.clip_by_value(photo, 0.0, 255.0)  # weights that sum to 1 + 1e-7 overshoot


class _GraphFunctions:
    """Parts of the decoding as graphs: eagerly, their loops would take minutes for a large GIF."""

    def __init__(self) -> None:
        import tensorflow as tf

        from biam_tf.photo_headers import header_pixels

        def first_gif_frame(contents: tf.Tensor) -> tf.Tensor:
            return header_pixels(contents)[0]

        # Inlined, each of their operations would take time with every photo that is not a GIF.
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
        image: the pixels, in the mode that was asked for.
        size: (width, height) of the file; `image` may be smaller.
        form: the file's format, such as "JPEG".
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
    """Decodes a photo with Pillow, to its end.

    Args:
        source: a path, or the bytes of a file.
        mode: of the image that is returned: the colors, or shades of gray.
        at_least: a JPEG may be decoded at a fraction of its size that has at least this width and
            height, which takes a part of the time; None: in its own size.
        max_pixels: photos whose header claims more are refused.

    Raises:
        PhotoError: the file is missing, empty, or not a whole photo, or claims more pixels.
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
    except Exception as error:  # decoders raise whatever the broken bytes lead them to
        raise PhotoError(NOT_WHOLE) from error


def photo_problem(source: str | os.PathLike[str] | bytes) -> str | None:
    """Returns why a photo, a path or the bytes of a file, cannot be read, or None where it can."""
    try:
        # A JPEG is read to its end at any scale; an eighth is the quickest.
        open_photo(source, at_least=(1, 1))
    except PhotoError as error:
        return str(error)
    return None


def read_photo_file(path: str | os.PathLike[str]) -> bytes:
    """Returns the bytes of a photo's file.

    Raises:
        PhotoError: it cannot be opened.
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
    """Tells whether all is there that TensorFlow's decoders need and Pillow ignores."""
    if form == "PNG":
        return b"IEND\xaeB`\x82" in contents
    if form == "GIF":
        return _first_gif_frame_end(contents) <= len(contents)
    if form == "BMP":
        return len(contents) > 30 and int.from_bytes(contents[28:30], "little") in _BMP_BITS
    return True


def _first_gif_frame_end(contents: bytes) -> int:
    """Returns where the first frame of a GIF ends, or more than there are bytes."""
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
    """Returns a photo with the pixels that TensorFlow gives, where Pillow understands others."""
    if photo.mode.startswith("I"):  # 16 bits per pixel
        return Image.fromarray((np.asarray(photo).astype(np.uint32) >> 8).astype(np.uint8))
    if photo.mode == "P" and photo.format == "BMP":
        return Image.fromarray(np.asarray(photo))
    return photo


# === Names of files ===


def stored_name(directory: str | os.PathLike[str], image: str) -> str:
    """Returns the path of a photo below a folder in the Unicode form that the disk has.

    A list may write an accented letter as one character (NFC) and the disk as two (NFD), or the
    other way around. A path that is there in neither form is returned as it is.
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
