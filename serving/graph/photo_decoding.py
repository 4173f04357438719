"""Decodes untrusted photos in the serving graph: checks sizes first, and names rejected photos."""

from collections.abc import Callable

import tensorflow as tf

from biam_tf.photo_decoding.graph_formats import (
    JPEG,
    UNUSUAL,
    Prepared,
    Reading,
    available_formats,
    graph_functions,
    is_simple,
    run_decoder,
)
from biam_tf.photos import UNUSUAL_BMP, not_whole, resize_photo, too_large

_BROKEN = -1
_AT_A_TIME = 4  # photos of a request that are decoded in parallel, at full size


def photo_decoder(
    image_size: int, max_pixels: int, reading: Reading | None = None
) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns a function that decodes a batch of photos as `biam_tf.photos.decode_photo` does.

    The size of a photo is read from its header before decoding. Only the first frame of an
    animation is decoded.

    The function maps encoded photos, string `(B,)`, to float32 `(B, S, S, 3)`, RGB from 0 to 255.
    It raises `tf.errors.InvalidArgumentError` at run time for photos that are too large or cannot
    be decoded; the message contains their indices.

    Args:
        image_size: side S of the result in pixels.
        max_pixels: photos that claim more pixels are rejected.
        reading: the formats that are decoded, and whether photos are turned upright; None: as
            `decode_photo` does by default.
    """
    chosen = reading or Reading("follow", available_formats())
    signature = [tf.TensorSpec((None,), tf.string)]
    # A tf.function runs stateful operations, including data sets, one after the other, and so would
    # decode the photos of a request sequentially. wrap_function adds no such dependencies.
    return tf.compat.v1.wrap_function(
        lambda images: _decode_photos(images, image_size, max_pixels, chosen), signature
    )


def _decode_photos(
    images: tf.Tensor, image_size: int, max_pixels: int, reading: Reading
) -> tf.Tensor:
    def decode(contents: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        pixels, photo = _decode_or_black(contents, max_pixels, reading)
        return pixels, resize_photo(photo, image_size)

    pixels, photos = tf.map_fn(
        decode,
        images,
        fn_output_signature=(
            tf.TensorSpec((), tf.int64),
            tf.TensorSpec((image_size, image_size, 3), tf.float32),
        ),
        parallel_iterations=_AT_A_TIME,
    )
    is_unusual = tf.equal(pixels, UNUSUAL)
    checks = [
        _refuse(pixels > max_pixels, f"{too_large(max_pixels)}, the limit of this model"),
        _refuse((pixels <= 0) & ~is_unusual, not_whole(reading.formats)),
        _refuse(is_unusual, UNUSUAL_BMP),
    ]
    with tf.control_dependencies(checks):
        return tf.identity(photos)


def _refuse(bad: tf.Tensor, problem: str) -> tf.Operation:
    indices = tf.strings.as_string(tf.where(bad)[:, 0])
    listed = tf.strings.reduce_join(indices, separator=", ")
    message = tf.strings.join(["images[", listed, "]: ", problem])
    return tf.debugging.Assert(~tf.reduce_any(bad), [message])


def _decode_or_black(
    contents: tf.Tensor, max_pixels: int, reading: Reading
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the pixels that a photo claims and the photo, uint8 `(h, w, 3)`.

    A rejected photo is a black pixel, as map_fn needs a result for each.
    """
    functions, simple = graph_functions(reading), is_simple(contents, reading)
    zero, pair = tf.constant(0, tf.int64), tf.zeros(2, tf.int64)
    prepared = Prepared(
        *tf.cond(
            simple,
            lambda: Prepared(tf.constant(JPEG), contents, zero, pair, pair, zero + 1),
            lambda: functions.prepare(contents),
        )
    )
    pixels, raw = _run_decoder(prepared, max_pixels, reading.formats)
    as_decoded = simple | (pixels <= 0) | (pixels > max_pixels)
    photo = tf.cond(as_decoded, lambda: raw, lambda: functions.finish(prepared, raw))
    return pixels, tf.ensure_shape(photo, (None, None, 3))


def _run_decoder(
    prepared: Prepared, max_pixels: int, formats: tuple[str, ...]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the pixels that a photo claims and what its decoder returns, or a black pixel.

    A graph cannot catch the error of a decoder, but a data set can skip an element that fails; the
    next element then represents the broken photo.
    """
    black = tf.zeros((1, 1, 3), tf.uint8)

    def run(decoder: tf.Tensor, encoded: tf.Tensor, claimed: tf.Tensor) -> tuple[tf.Tensor, ...]:
        shape = tf.cond(
            tf.equal(decoder, JPEG),
            lambda: tf.cast(tf.image.extract_jpeg_shape(encoded)[:2], tf.int64),
            lambda: tf.stack([claimed, 1]),
        )
        pixels = tf.reduce_prod(shape)
        is_allowed = (0 < pixels) & (pixels <= max_pixels)
        return pixels, tf.cond(
            is_allowed, lambda: run_decoder(decoder, encoded, formats), lambda: black
        )

    broken = tf.data.Dataset.from_tensors((tf.constant(_BROKEN, tf.int64), black))
    photo = tf.data.Dataset.from_tensors((prepared.decoder, prepared.encoded, prepared.pixels))
    photo = photo.map(run).ignore_errors().concatenate(broken).take(1)
    # For a single element, optimizing the data set takes longer than decoding a small photo.
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    pixels, raw = photo.with_options(options).get_single_element()
    return tf.ensure_shape(pixels, ()), tf.ensure_shape(raw, (None, None, None))
