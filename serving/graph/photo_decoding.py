"""Photos of strangers, decoded in the graph: sizes are checked before, errors name the photo."""

from collections.abc import Callable

import tensorflow as tf

from biam_tf.photos import resize_photo

# A photo is decoded to 3 bytes a pixel and resized from 12: 64 million pixels take 1 GB.
DEFAULT_MAX_PIXELS = 64_000_000

_HEADER = 26  # bytes; holds the sizes of PNG, GIF and BMP
_BROKEN = -1
_GIF_BLOCKS = 100_000  # 25 MB as usually written; bounds the search for the first frame's end
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
        _refuse(pixels > max_pixels, f"more than {max_pixels} pixels, the limit of this model"),
        _refuse(pixels <= 0, "not a whole JPEG, PNG, GIF or BMP photo"),
    ]
    with tf.control_dependencies(checks):
        return tf.identity(photos)


def _refuse(bad: tf.Tensor, problem: str) -> tf.Operation:
    indices = tf.strings.as_string(tf.where(bad)[:, 0])
    listed = tf.strings.reduce_join(indices, separator=", ")
    message = tf.strings.join(["images[", listed, "]: ", problem])
    return tf.debugging.Assert(~tf.reduce_any(bad), [message])


def _decode_or_empty(contents: tf.Tensor, max_pixels: int) -> tuple[tf.Tensor, tf.Tensor]:
    """The pixels that a photo claims and its uint8 `(h, w, 3)`, empty if those are too many.

    A graph can't catch the error of a decoder. A data set can leave out an element that fails:
    what is left then is the second one, which stands for a broken photo.
    """
    empty = tf.zeros((0, 0, 3), tf.uint8)

    def decode(contents):
        contents, pixels = _first_frame_and_pixels(contents)
        photo = tf.cond(
            (0 < pixels) & (pixels <= max_pixels),
            lambda: tf.io.decode_image(contents, channels=3, expand_animations=False),
            lambda: empty,
        )
        return pixels, photo

    broken = tf.data.Dataset.from_tensors((tf.constant(_BROKEN, tf.int64), empty))
    photo = tf.data.Dataset.from_tensors(contents).map(decode).ignore_errors()
    photo = photo.concatenate(broken).take(1)
    # One element needs none of what speeds up a data set, and setting that up takes longer
    # than decoding a small photo.
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    pixels, photo = photo.with_options(options).get_single_element()
    return tf.ensure_shape(pixels, ()), tf.ensure_shape(photo, (None, None, 3))


def _first_frame_and_pixels(contents: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The bytes to decode and the pixels they claim, `_BROKEN` for any other kind of file."""
    header = tf.strings.substr(
        tf.strings.substr(contents, 0, _HEADER) + b"\0" * _HEADER, 0, _HEADER
    )
    data = tf.cast(tf.io.decode_raw(header, tf.uint8), tf.int64)

    def starts_with(magic: bytes) -> tf.Tensor:
        return tf.strings.substr(header, 0, len(magic)) == magic

    def jpeg():
        shape = tf.cast(tf.image.extract_jpeg_shape(contents), tf.int64)
        return contents, shape[0] * shape[1]

    def png():  # width and height, big-endian
        return contents, _size(_number(data, 19, -1, 4)) * _size(_number(data, 23, -1, 4))

    def bmp():  # a negative height says that the rows go from top to bottom
        return contents, _size(_number(data, 18, 1, 4)) * _size(_number(data, 22, 1, 4))

    return tf.case(
        [
            (starts_with(b"\xff\xd8\xff"), jpeg),
            (starts_with(b"\x89PNG\r\n\x1a\n"), png),
            (starts_with(b"GIF87a") | starts_with(b"GIF89a"), lambda: _first_gif_frame(contents)),
            (starts_with(b"BM"), bmp),
        ],
        default=lambda: (contents, tf.constant(_BROKEN, tf.int64)),
    )


def _number(data: tf.Tensor, first: int, step: int, count: int) -> tf.Tensor:
    """The number whose lowest byte is at `first` and the next ones `step` further each."""
    return tf.add_n([data[first + i * step] * 256**i for i in range(count)])


def _size(number: tf.Tensor) -> tf.Tensor:
    """A width or height of 32 bits with its sign dropped; two of them fit into 64 bits."""
    return tf.where(number < 2**31, number, 2**32 - number)


def _first_gif_frame(contents: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Cuts an animated GIF after its first frame; also returns the pixels it claims.

    The decoder would unpack every frame, in the size that each claims, to return the first: a
    small file can ask for any amount of memory that way.
    """
    # Reading past the end of a file that is cut short gives zeros: end of data, then no block.
    data = tf.concat([tf.io.decode_raw(contents, tf.uint8), tf.zeros(32, tf.uint8)], axis=0)
    length = tf.strings.length(contents)

    def byte(position):
        return tf.cast(data[tf.minimum(position, length)], tf.int32)

    def color_table(flags):
        return tf.where(flags >= 0x80, 3 * 2 ** (flags % 8 + 1), 0)

    def after_data(position, left):  # blocks of 1 to 255 bytes; one of 0 bytes ends them
        end, left = tf.while_loop(
            lambda at, left: (byte(at) > 0) & (left > 0),
            lambda at, left: (at + 1 + byte(at), left - 1),
            (position, left),
        )
        return end + 1, left

    frame, left = tf.while_loop(
        lambda at, left: tf.equal(byte(at), 0x21) & (left > 0),  # an extension
        lambda at, left: after_data(at + 2, left - 1),
        (13 + color_table(byte(10)), tf.constant(_GIF_BLOCKS)),
    )
    start = tf.minimum(frame, length)
    sizes = tf.cast(data[start + 5 : start + 9], tf.int64)
    screen = tf.cast(data[6:10], tf.int64)
    pixels = tf.maximum(
        _number(sizes, 0, 1, 2) * _number(sizes, 2, 1, 2),
        _number(screen, 0, 1, 2) * _number(screen, 2, 1, 2),
    )
    end, left = after_data(frame + 11 + color_table(byte(frame + 9)), left)
    whole = tf.equal(byte(frame), 0x2C) & (end <= length) & (left > 0)
    first_frame = tf.strings.substr(contents, 0, tf.minimum(end, length)) + b"\x3b"
    return first_frame, tf.where(whole, pixels, _BROKEN)
