"""Photos of strangers, decoded in the graph: sizes are checked before, errors name the photo."""

from collections.abc import Callable

import tensorflow as tf

from biam_tf.photos import NOT_WHOLE, decode_if_allowed, resize_photo, too_large

_BROKEN = -1
_AT_A_TIME = 4  # photos of one request in memory at full size


def photo_decoder(image_size: int, max_pixels: int) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns a function of encoded photos to what `biam_tf.photos.decode_photo` makes of them.

    The number of pixels that a photo claims is read from its header before anything is decoded
    (of an animated GIF, only the first frame is ever decoded).

    The function takes string `(B,)`, JPEG, PNG, GIF or BMP, and returns float32 `(B, S, S, 3)`,
    RGB from 0 to 255. It raises `tf.errors.InvalidArgumentError`, when it runs, for photos that
    are too large or can't be decoded; the message names them by their index.

    Args:
        image_size: side S of the result.
        max_pixels: photos that claim more are refused.
    """
    signature = [tf.TensorSpec((None,), tf.string)]
    # A tf.function keeps everything in it that has a state in order, data sets too, and would
    # decode one photo of a request after the other. Wrapped, only the order asked for is kept.
    return tf.compat.v1.wrap_function(
        lambda images: _decode_photos(images, image_size, max_pixels), signature
    )


def _decode_photos(images: tf.Tensor, image_size: int, max_pixels: int) -> tf.Tensor:
    def decode(contents):
        pixels, photo = _decode_or_empty(contents, max_pixels)
        # Of a refused photo one black pixel is resized: map_fn wants a result of each.
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
    """The pixels that a photo claims and its uint8 `(h, w, 3)`, empty if it is refused.

    A graph can't catch the error of a decoder. A data set can leave out an element that fails:
    what is left then is the second one, which stands for a broken photo.
    """
    broken = tf.data.Dataset.from_tensors(
        (tf.constant(_BROKEN, tf.int64), tf.zeros((0, 0, 3), tf.uint8))
    )
    photo = tf.data.Dataset.from_tensors(contents).map(
        lambda contents: decode_if_allowed(contents, max_pixels)
    )
    photo = photo.ignore_errors().concatenate(broken).take(1)
    # One element needs none of what speeds up a data set, and setting that up takes longer
    # than decoding a small photo.
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    pixels, photo = photo.with_options(options).get_single_element()
    return tf.ensure_shape(pixels, ()), tf.ensure_shape(photo, (None, None, 3))
