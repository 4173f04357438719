"""Decoding of photos: supported files, the size limit and the conversion to pixels.

A photo is a complete JPEG, PNG, GIF, BMP or WebP file (WebP needs TensorFlow 2.20 in a graph) with
at most `MAX_PIXELS` pixels. Python also reads TIFF and, with the packages of the extra [formats],
HEIC, AVIF and JPEG XL. There are two decoders, which accept the same files and give the same
pixels: `decode_photo` in a TensorFlow graph, for training and serving, and `open_photo` with
Pillow, for code that does not need TensorFlow (imports, descriptions, pictures for display).

Photos are turned upright as their EXIF orientation says, unless it is ignored; transparent parts
are blended over white; of an animation and of a file of several pages, the first picture is taken;
grayscale is repeated over the three channels; CMYK JPEGs are converted; 16 bits are reduced to 8.
docs/photos.md lists all cases.
"""

from __future__ import annotations

import concurrent.futures
import os
import pathlib
import unicodedata
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from biam_tf.files import require_regular
from biam_tf.photo_decoding import pillow_decoding
from biam_tf.photo_decoding.file_headers import (
    GRAPH_FORMATS,
    IS_EMPTY,
    MAX_PIXELS,
    NOT_WHOLE,
    PYTHON_FORMATS,
    UNUSUAL_BMP,
    PhotoError,
    exif_orientation,
    format_of,
    not_whole,
    too_large,
)
from biam_tf.photo_decoding.pillow_decoding import OpenPhoto, Orientation

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = [
    "ENDINGS",
    "FORMATS",
    "IS_EMPTY",
    "IS_FOLDER",
    "MAX_PIXELS",
    "NOT_WHOLE",
    "NO_FILE",
    "UNUSUAL_BMP",
    "OpenPhoto",
    "Orientation",
    "PhotoError",
    "as_sent",
    "decode_photo",
    "decode_whole_photo",
    "decoding_problem",
    "exif_orientation",
    "format_of",
    "not_whole",
    "open_photo",
    "photo_problem",
    "photo_problems",
    "read_photo_file",
    "resize_photo",
    "stored_name",
    "too_large",
]

FORMATS = (*GRAPH_FORMATS, *PYTHON_FORMATS)
ENDINGS = (  # file name extensions
    *(".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp"),
    *(".tif", ".tiff", ".heic", ".heif", ".avif", ".jxl"),
)
NO_FILE, IS_FOLDER = "no such file", "is a folder"


# === TensorFlow ===


def decode_photo(
    contents: tf.Tensor,
    image_size: int,
    max_pixels: int = MAX_PIXELS,
    *,
    orientation: Orientation = "follow",
    in_python: bool = False,
    formats: tuple[str, ...] | None = None,
) -> tf.Tensor:
    """Decodes a photo and resizes it to a square.

    The photo is not cropped and its aspect ratio is not kept, as in the authors' released code.
    Resizing is bilinear, with antialiasing when shrinking.

    Args:
        contents: scalar string, an encoded photo.
        image_size: side S of the result in pixels.
        max_pixels: photos with more pixels are rejected.
        orientation: "follow" turns the photo upright as its EXIF data say; "ignore" takes it as it
            is stored, as the authors' released code does.
        in_python: whether Python decodes what is no plain JPEG, also formats that TensorFlow lacks.
            For tf.data, which makes its graph anew for every iterator; such a graph cannot be
            saved.
        formats: the formats that are decoded, of which few make a small graph. Defaults to `None`:
            all that this version of TensorFlow can.

    Returns:
        float32 `(S, S, 3)`, RGB from 0 to 255, with a static shape, for `tf.data` and serving
        signatures.

    Raises:
        tf.errors.InvalidArgumentError: at run time, if the bytes are not a complete photo or have
            too many pixels; `decoding_problem` returns the reason.
    """
    photo = decode_whole_photo(
        contents, max_pixels, orientation=orientation, in_python=in_python, formats=formats
    )
    return resize_photo(photo, image_size)


def decode_whole_photo(
    contents: tf.Tensor,
    max_pixels: int = MAX_PIXELS,
    *,
    orientation: Orientation = "follow",
    in_python: bool = False,
    formats: tuple[str, ...] | None = None,
) -> tf.Tensor:
    """Decodes a photo at its original size, uint8 `(height, width, 3)`; see `decode_photo`."""
    from biam_tf.photo_decoding import graph_formats

    reading = graph_formats.Reading(orientation, formats or graph_formats.available_formats())
    return graph_formats.decode(contents, max_pixels, reading, in_python)


def decoding_problem(contents: bytes, max_pixels: int = MAX_PIXELS) -> str | None:
    """Returns why `decode_photo` rejects a photo, or None if it does not (or only of its format).

    Formats that TensorFlow cannot decode are read in Python.
    """
    import tensorflow as tf

    from biam_tf.photo_decoding import graph_formats

    form = str(format_of(contents))
    if form not in graph_formats.available_formats():
        return photo_problem(contents, max_pixels)
    reading = graph_formats.Reading("ignore", (form,))
    functions, photo = graph_formats.graph_functions(reading), tf.constant(contents)
    pixels = int(functions.prepare(photo).pixels)
    try:
        if form == "JPEG":
            pixels = int(tf.reduce_prod(tf.cast(tf.image.extract_jpeg_shape(photo)[:2], tf.int64)))
        if pixels > max_pixels:
            return too_large(max_pixels)
        if pixels == graph_formats.UNUSUAL:
            return UNUSUAL_BMP
        if pixels > 0:
            functions.decode(photo, tf.constant(max_pixels, tf.int64))
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
    # One axis after the other, as TensorFlow does it, with the same bits. But its loop over pixels
    # of three channels takes twice the time of loops over whole rows and columns.
    for _ in ("height", "width"):
        length, other = tf.shape(photo)[0], tf.shape(photo)[1]
        lines = tf.reshape(photo, (1, length, 1, 3 * other))
        lines = tf.image.resize(lines, (image_size, 1), method="bilinear", antialias=True)
        photo = tf.transpose(tf.reshape(lines, (image_size, other, 3)), (1, 0, 2))
    photo = tf.ensure_shape(photo, (image_size, image_size, 3))
    return tf.clip_by_value(photo, 0.0, 255.0)  # the weights may sum to 1 + 1e-7


# === Pillow ===


def open_photo(
    source: str | os.PathLike[str] | bytes,
    mode: Literal["RGB", "L"] = "RGB",
    at_least: tuple[int, int] | None = None,
    max_pixels: int = MAX_PIXELS,
    *,
    orientation: Orientation = "follow",
) -> OpenPhoto:
    """Decodes a photo completely with Pillow.

    Args:
        source: a path, or the bytes of a file.
        mode: mode of the result, "RGB" or "L" (grayscale).
        at_least: (width, height); a JPEG may be decoded at a fraction of its size that is at least
            this large, which is faster. None decodes it at its original size.
        max_pixels: photos whose header claims more pixels are rejected.
        orientation: as in `decode_photo`.

    Raises:
        PhotoError: the file is missing, empty or not a complete photo, claims too many pixels, or
            needs a package that is not installed.
    """
    contents = source if isinstance(source, bytes) else read_photo_file(source)
    return pillow_decoding.decode(contents, mode, at_least, max_pixels, orientation)


def photo_problem(
    source: str | os.PathLike[str] | bytes, max_pixels: int = MAX_PIXELS
) -> str | None:
    """Returns why a photo (a path or bytes) cannot be read, or None if it can."""
    try:
        # A JPEG is read completely at any scale; 1/8 is the fastest.
        open_photo(source, at_least=(1, 1), max_pixels=max_pixels)
    except PhotoError as error:
        return str(error)
    return None


def photo_problems(
    photos: Sequence[tuple[str, pathlib.Path]],
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, str]:
    """Decodes photos completely and returns the problem of each that cannot be read, by its name.

    Args:
        photos: name and path of each.
        progress: called with (photos done, total photos) after each photo.
    """
    broken: dict[str, str] = {}
    # Pillow decodes without holding the interpreter's lock, so threads are enough.
    threads = concurrent.futures.ThreadPoolExecutor(min(os.cpu_count() or 1, 16))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # unusual metadata is not an error
            complaints = threads.map(photo_problem, [path for _, path in photos])
            numbered = enumerate(zip(photos, complaints, strict=True), start=1)
            for done, ((image, _), complaint) in numbered:
                if complaint:
                    broken[image] = complaint
                if progress:
                    progress(done, len(photos))
    finally:
        threads.shutdown(cancel_futures=True)  # do not finish all photos after Ctrl-C
    return broken


def as_sent(contents: bytes) -> bytes:
    """Returns a photo as it is sent to a server: in a format that every exported model decodes.

    JPEG, PNG, GIF and BMP are returned unchanged. Photos of other formats become PNGs with the
    same pixels and EXIF orientation; what cannot be read is returned unchanged, for the server to
    reject.

    Raises:
        PhotoError: the format needs a package that is not installed.
    """
    return pillow_decoding.as_png(contents)


def read_photo_file(path: str | os.PathLike[str]) -> bytes:
    """Returns the contents of a photo file.

    Raises:
        PhotoError: the file cannot be read.
    """
    try:
        require_regular(path)
        return pathlib.Path(path).read_bytes()
    except FileNotFoundError as error:
        raise PhotoError(NO_FILE) from error
    except IsADirectoryError as error:
        raise PhotoError(IS_FOLDER) from error
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the name
        reason = getattr(error, "strerror", None) or error
        raise PhotoError(f"cannot be opened: {reason}") from error


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
