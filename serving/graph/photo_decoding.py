"""Decodes untrusted photos in the serving graph: checks sizes first, and names rejected photos."""

from collections.abc import Callable

import tensorflow as tf

from biam_tf.photos import NOT_WHOLE, decode_if_allowed, resize_photo, too_large

_BROKEN = -1
_AT_A_TIME = 4  # photos of a request that are decoded in parallel, at full size


def photo_decoder(image_size: int, max_pixels: int) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns a function that decodes a batch of photos as `biam_tf.photos.decode_photo` does.

    The size of a photo is read from its header before decoding. Only the first frame of an
    animated GIF is decoded.

    The function maps encoded photos, string `(B,)`, JPEG, PNG, GIF or BMP, to float32
    `(B, S, S, 3)`, RGB from 0 to 255. It raises `tf.errors.InvalidArgumentError` at run time for
    photos that are too large or cannot be decoded; the message contains their indices.

    Args:
        image_size: side S of the result in pixels.
        max_pixels: photos that claim more pixels are rejected.
    """
    signature = [tf.TensorSpec((None,), tf.string)]
    # A tf.function runs stateful operations, including data sets, one after the other, and so would
    # decode the photos of a request sequentially. wrap_function adds no such dependencies.
    return tf.compat.v1.wrap_function(
        lambda images: _decode_photos(images, image_size, max_pixels), signature
    )


def _decode_photos(images: tf.Tensor, image_size: int, max_pixels: int) -> tf.Tensor:
    def decode(contents: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        pixels, photo = _decode_or_empty(contents, max_pixels)
        # map_fn needs a result for each photo: a black pixel for a rejected one.
        photo = tf.cond(tf.size(photo) > 0, lambda: photo, lambda: tf.zeros((1, 1, 3), tf.uint8))
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
    checks = [
        _refuse(pixels > max_pixels, f"{too_large(max_pixels)}, the limit of this model"),
        _refuse(pixels <= 0, NOT_WHOLE),
    ]
    with tf.control_dependencies(checks):
        return tf.identity(photos)


def _refuse(bad: tf.Tensor, problem: str) -> tf.Operation:
    indices = tf.strings.as_string(tf.where(bad)[:, 0])
    listed = tf.strings.reduce_join(indices, separator=", ")
    message = tf.strings.join(["images[", listed, "]: ", problem])
    return tf.debugging.Assert(~tf.reduce_any(bad), [message])


def _decode_or_empty(contents: tf.Tensor, max_pixels: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the pixels that a photo claims and the photo, uint8 `(h, w, 3)`, empty if rejected.

    A graph cannot catch the error of a decoder, but a data set can skip an element that fails; the
    next element then represents the broken photo.
    """
    broken = tf.data.Dataset.from_tensors(
        (tf.constant(_BROKEN, tf.int64), tf.zeros((0, 0, 3), tf.uint8))
    )
    photo = tf.data.Dataset.from_tensors(contents).map(
        lambda contents: decode_if_allowed(contents, max_pixels)
    )
    photo = photo.ignore_errors().concatenate(broken).take(1)
    # For a single element, optimizing the data set takes longer than decoding a small photo.
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    pixels, photo = photo.with_options(options).get_single_element()
    return tf.ensure_shape(pixels, ()), tf.ensure_shape(photo, (None, None, 3))
