"""Decodes photos of each format in a TensorFlow graph, in three steps.

TensorFlow's decoders drop transparency and orientation, misread BMPs with palettes, and decode
every frame of an animation. So `prepare` reads the header and chooses a decoder and the bytes for
it, `run_decoder` runs it, the only step that can fail, and `finish` makes the photo of the result.
A JPEG without EXIF data needs the second step alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from biam_tf.photo_decoding import pillow_decoding
from biam_tf.photo_decoding.file_headers import GRAPH_FORMATS, NOT_WHOLE, PhotoError, format_of
from biam_tf.photo_decoding.graph_bmp import bmp_header, decode_bmp
from biam_tf.photo_decoding.graph_frames import BROKEN, Frame, first_gif_frame, first_webp_frame
from biam_tf.photo_decoding.graph_headers import (
    is_plain_jpeg,
    jpeg_exif,
    kind_of,
    length_of,
    number_at,
    orientation_of_exif,
    png_chunks,
)
from biam_tf.photo_decoding.pillow_decoding import Orientation

UNUSUAL = -2  # in place of the number of pixels
UNKNOWN = 0  # likewise: of a JPEG, until its decoder has read it
# Positions in the list of `run_decoder`.
JPEG, PNG, PNG_WITH_OPACITY, GIF, WEBP, NONE, FAIL = range(7)


class Reading(NamedTuple):
    """What a graph reads, and how.

    Attributes:
        orientation: whether photos are turned upright as EXIF data say.
        formats: the formats that are decoded, of `available_formats()`.
    """

    orientation: Orientation
    formats: tuple[str, ...]


class Prepared(NamedTuple):
    """A photo whose header has been read.

    Attributes:
        decoder: int32, position in the list of `run_decoder`.
        encoded: scalar string, the bytes to decode.
        pixels: int64, what the header claims; `BROKEN`, `UNUSUAL` or `UNKNOWN`.
        canvas: int64 (2,), height and width of the stored picture; (0, 0): those of the result.
        offset: int64 (2,), (top, left) of the decoded pixels in it; the rest is white.
        orientation: int64, 1 to 8; turns the stored picture upright.
    """

    decoder: tf.Tensor
    encoded: tf.Tensor
    pixels: tf.Tensor
    canvas: tf.Tensor
    offset: tf.Tensor
    orientation: tf.Tensor


def available_formats() -> tuple[str, ...]:
    """Returns the formats that graphs of this version of TensorFlow can decode."""
    has_webp = hasattr(tf.raw_ops, "DecodeWebP")  # since TensorFlow 2.20
    return tuple(form for form in GRAPH_FORMATS if form != "WEBP" or has_webp)


def decode(contents: tf.Tensor, max_pixels: int, reading: Reading, in_python: bool) -> tf.Tensor:
    """Decodes a photo at its original size, uint8 `(height, width, 3)`.

    Args:
        contents: scalar string, an encoded photo.
        max_pixels: photos with more pixels are rejected.
        reading: what is read, and how.
        in_python: whether Python decodes what is no plain JPEG, with the same functions: also other
            formats, and with a much smaller graph, which tf.data optimizes for every iterator.

    Raises:
        tf.errors.InvalidArgumentError: at run time, if the bytes are not a complete photo or have
            too many pixels.
    """

    def others() -> tf.Tensor:
        if not in_python:
            return graph_functions(reading).decode(contents, tf.constant(max_pixels, tf.int64))
        read = _in_python(max_pixels, reading)
        return tf.numpy_function(read, [contents], tf.uint8, stateful=False)

    def plain_jpeg() -> tf.Tensor:
        return if_allowed(tf.io.decode_jpeg(contents, channels=3), max_pixels)

    photo = tf.cond(is_simple(contents, reading), plain_jpeg, others)
    return tf.ensure_shape(photo, (None, None, 3))


@functools.cache
def _in_python(max_pixels: int, reading: Reading) -> Callable[[bytes | np.ndarray], np.ndarray]:
    """Returns `decode_in_python` of two arguments; graphs do not keep it alive."""
    return functools.partial(decode_in_python, max_pixels=max_pixels, reading=reading)


def decode_in_python(contents: bytes | np.ndarray, max_pixels: int, reading: Reading) -> np.ndarray:
    """Decodes any photo eagerly, as `decode` does.

    Raises:
        PhotoError: the bytes are not a complete photo or have too many pixels.
    """
    # An array, if the `numpy_function` runs eagerly.
    contents = contents if isinstance(contents, bytes) else contents.item()
    form = str(format_of(contents))
    if form not in reading.formats:
        photo = pillow_decoding.decode(contents, "RGB", None, max_pixels, reading.orientation)
        return np.asarray(photo.image)
    try:
        with tf.device("CPU"):
            limit = tf.constant(max_pixels, tf.int64)
            # The graph of one format is made in a fraction of the seconds that that of all takes.
            functions = graph_functions(reading._replace(formats=(form,)))
            return functions.decode(tf.constant(contents), limit).numpy()
    except tf.errors.InvalidArgumentError as error:
        raise PhotoError(NOT_WHOLE) from error


def is_simple(contents: tf.Tensor, reading: Reading) -> tf.Tensor:
    """Returns whether a photo is certainly a JPEG to be decoded and not to be turned."""
    if "JPEG" not in reading.formats:
        return tf.constant(False)
    if reading.orientation == "ignore":
        return tf.strings.substr(contents, 0, 3) == b"\xff\xd8\xff"
    return is_plain_jpeg(contents)


class GraphFunctions:
    """Functions that are not inlined, so that a plain JPEG does not run their operations.

    Eagerly, their loops would take minutes for a large GIF.

    Attributes:
        prepare: the contents of a file to its `Prepared`.
        finish: a `Prepared` and the result of `run_decoder` to the photo.
        decode: contents and the largest number of pixels, int64, to the photo.
    """

    def __init__(self, reading: Reading) -> None:
        text, number = tf.TensorSpec((), tf.string), tf.TensorSpec((), tf.int64)
        pair, pixels = tf.TensorSpec((2,), tf.int64), tf.TensorSpec((None, None, None), tf.uint8)
        prepared = Prepared(tf.TensorSpec((), tf.int32), text, number, pair, pair, number)
        apart = {"autograph": False, "experimental_attributes": {"_noinline": True}}

        def decode(contents: tf.Tensor, max_pixels: tf.Tensor) -> tf.Tensor:
            found = self.prepare(contents)
            is_allowed = (0 <= found.pixels) & (found.pixels <= max_pixels)
            decoder = tf.where(is_allowed, found.decoder, FAIL)
            raw = run_decoder(decoder, found.encoded, reading.formats)
            return if_allowed(self.finish(found, raw), max_pixels)

        self.prepare = tf.function(
            functools.partial(_prepare, reading=reading), input_signature=[text], **apart
        )
        self.finish = tf.function(
            functools.partial(_finish, formats=reading.formats),
            input_signature=[prepared, pixels],
            **apart,
        )
        self.decode = tf.function(decode, input_signature=[text, number], **apart)


@functools.cache
def graph_functions(reading: Reading) -> GraphFunctions:
    """Returns the functions for a kind of reading, made once."""
    return GraphFunctions(reading)


@functools.cache
def _apart(function: Callable[[tf.Tensor], Any]) -> Callable[[tf.Tensor], Any]:
    """A function of a rare format, which TensorFlow prepares when such a photo comes.

    Inlined, each of the signatures of an export would prepare it at its first request.
    """
    return tf.function(
        function,
        input_signature=[tf.TensorSpec((), tf.string)],
        autograph=False,
        experimental_attributes={"_noinline": True},
    )


# === First step ===

# Decoder, bytes for it, pixels, canvas and offset as in `Prepared`, and EXIF data.
_Step = tuple[int | tf.Tensor, tf.Tensor, int | tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]


def _prepare(contents: tf.Tensor, reading: Reading) -> Prepared:
    nothing, zero = tf.constant(b""), tf.zeros(2, tf.int64)

    def broken() -> _Step:
        return FAIL, nothing, BROKEN, zero, zero, nothing

    def jpeg() -> _Step:
        return JPEG, contents, UNKNOWN, zero, zero, jpeg_exif(contents)

    def png() -> _Step:
        exif, has_transparent_color = png_chunks(contents)
        # Opacity is asked for only if there is one: the decoder does not fill it with 255 if the
        # photo has less than 8 bits per channel.
        is_transparent = (number_at(contents, 25, 1) >= 4) | has_transparent_color
        decoder = tf.where(is_transparent, PNG_WITH_OPACITY, PNG)
        width, height = number_at(contents, 16, 4, big=True), number_at(contents, 20, 4, big=True)
        # An empty picture counts as broken, not as one of unknown size.
        pixels = tf.where(width * height > 0, width * height, BROKEN)
        return decoder, contents, pixels, zero, zero, exif

    def bmp() -> _Step:
        header = _apart(bmp_header)(contents)
        pixels = tf.where(header.usual, header.claims, UNUSUAL)
        pixels = tf.where(length_of(contents) >= 54, pixels, BROKEN)
        return tf.where(header.whole, NONE, FAIL), contents, pixels, zero, zero, nothing

    def frame(decoder: int, found: Frame) -> _Step:
        return decoder, found.contents, found.pixels, found.canvas, found.offset, found.exif

    steps = {
        "JPEG": jpeg,
        "PNG": png,
        "GIF": lambda: frame(GIF, _apart(first_gif_frame)(contents)),
        "BMP": bmp,
        "WEBP": lambda: frame(WEBP, _apart(first_webp_frame)(contents)),
    }

    def taken(form: str) -> tuple[tf.Tensor, ...]:
        decoder, encoded, pixels, *others = steps[form]() if form in reading.formats else broken()
        return tf.cast(decoder, tf.int32), encoded, tf.cast(pixels, tf.int64), *others

    *found, exif = tf.switch_case(
        kind_of(contents, reading.formats) + 1,
        [functools.partial(taken, form) for form in ("", *GRAPH_FORMATS)],
    )
    follows = reading.orientation == "follow"
    orientation = orientation_of_exif(exif) if follows else tf.constant(1, tf.int64)
    return Prepared._make((*found, orientation))


# === Second step ===


def run_decoder(decoder: tf.Tensor, encoded: tf.Tensor, formats: tuple[str, ...]) -> tf.Tensor:
    """Decodes what `prepare` chose, uint8 `(height, width, channels)`; `NONE` gives one pixel.

    Raises:
        tf.errors.InvalidArgumentError: at run time, if the bytes cannot be decoded.
    """

    def webp() -> tf.Tensor:
        if "WEBP" not in formats:  # servers may lack the operation
            return fail()
        return tf.raw_ops.DecodeWebP(contents=encoded, channels=0)[0]

    def fail() -> tf.Tensor:
        return tf.io.decode_png(b"", channels=3)

    photo = tf.switch_case(
        decoder,
        [
            lambda: tf.io.decode_jpeg(encoded, channels=3),
            lambda: tf.io.decode_png(encoded, channels=3),
            lambda: tf.io.decode_png(encoded, channels=4),
            lambda: tf.io.decode_gif(encoded)[0],
            webp,
            lambda: tf.zeros((1, 1, 3), tf.uint8),
            fail,
        ],
    )
    return tf.ensure_shape(photo, (None, None, None))


def if_allowed(photo: tf.Tensor, max_pixels: tf.Tensor | int) -> tf.Tensor:
    """Returns a photo, or fails if it has too many pixels.

    Checked after decoding, which is much faster in tf.data than reading every header, and safe
    because the decoder of JPEGs rejects photos of more than 512 MB.
    """
    height, width = tf.unstack(tf.shape(photo)[:2])
    is_allowed = height * width <= tf.cast(max_pixels, tf.int32)
    # The slice is the whole photo or fails. An assertion would be stateful and slow down tf.data.
    rows = tf.where(is_allowed, height, height + 1)
    return tf.slice(photo, [0, 0, 0], tf.stack([rows, width, 3]))


# === Third step ===


def _finish(prepared: Prepared, raw: tf.Tensor, formats: tuple[str, ...]) -> tf.Tensor:
    photo = raw
    if "BMP" in formats:
        is_bmp = tf.equal(prepared.decoder, NONE)
        photo = tf.cond(is_bmp, lambda: _apart(decode_bmp)(prepared.encoded), lambda: raw)
    photo = tf.cond(
        tf.equal(tf.shape(photo)[2], 4), lambda: _over_white(photo), lambda: photo[..., :3]
    )
    photo = tf.ensure_shape(photo, (None, None, 3))
    size = tf.cast(tf.shape(photo)[:2], tf.int64)
    before = prepared.offset
    after = tf.maximum(prepared.canvas - before - size, 0)

    def padded() -> tf.Tensor:
        margins = tf.stack([before, after], axis=1)
        margins = tf.concat([margins, tf.zeros((1, 2), tf.int64)], axis=0)
        return tf.pad(photo, margins, constant_values=255)

    photo = tf.cond(tf.reduce_sum(before + after) > 0, padded, lambda: photo)
    return _turned(photo, prepared.orientation)


def _turned(photo: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turns a stored picture upright; `orientation` as in EXIF, 1 to 8."""

    def turned() -> tf.Tensor:
        lying = tf.cond(orientation > 4, lambda: tf.transpose(photo, (1, 0, 2)), lambda: photo)
        place = tf.cast(orientation - 1, tf.int32)
        upside_down = tf.gather([False, False, True, True, False, False, True, True], place)
        mirrored = tf.gather([False, True, True, False, False, True, True, False], place)
        return tf.reverse(lying, tf.boolean_mask([0, 1], tf.stack([upside_down, mirrored])))

    return tf.cond(orientation > 1, turned, lambda: photo)


def _over_white(photo: tf.Tensor) -> tf.Tensor:
    """Blends uint8 `(height, width, 4)` over white, rounded."""
    # The sums are at most 65152.
    colors, opacity = tf.cast(photo[..., :3], tf.uint16), tf.cast(photo[..., 3:], tf.uint16)
    white = tf.constant(255, tf.uint16)
    blended = (colors * opacity + white * (white - opacity) + 127) // white
    return tf.cast(blended, tf.uint8)
