"""Reads the headers of photos in a TensorFlow graph, to check their size before decoding."""

import tensorflow as tf

_HEADER = 26  # bytes; contains the sizes of PNG, GIF and BMP
_BROKEN = -1
_GIF_BLOCKS = 100_000  # usually 25 MB; limits the search for the end of the first frame


def header_pixels(contents: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Reads the header of a photo without decoding it.

    Args:
        contents: scalar string, the contents of a file.

    Returns:
        The bytes to decode (only the first frame of a GIF), and the number of pixels that they
        claim, int64, 0 or less if the header is invalid.
    """
    header = tf.strings.substr(
        tf.strings.substr(contents, 0, _HEADER) + b"\0" * _HEADER, 0, _HEADER
    )
    data = tf.cast(tf.io.decode_raw(header, tf.uint8), tf.int64)

    def starts_with(magic: bytes) -> tf.Tensor:
        return tf.strings.substr(header, 0, len(magic)) == magic

    def jpeg() -> tuple[tf.Tensor, tf.Tensor]:
        shape = tf.cast(tf.image.extract_jpeg_shape(contents), tf.int64)
        return contents, shape[0] * shape[1]

    def png() -> tuple[tf.Tensor, tf.Tensor]:  # big-endian width and height
        return contents, _size(_number(data, 19, -1, 4)) * _size(_number(data, 23, -1, 4))

    def bmp() -> tuple[tf.Tensor, tf.Tensor]:  # a negative height means top-down rows
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
    """Returns the number with its lowest byte at `first` and each next byte `step` further."""
    return tf.add_n([data[first + i * step] * 256**i for i in range(count)])


def _size(number: tf.Tensor) -> tf.Tensor:
    """Returns the absolute value of a signed 32-bit number; a product of two fits in 64 bits."""
    return tf.where(number < 2**31, number, 2**32 - number)


def _first_gif_frame(contents: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Truncates a GIF after its first frame; also returns the number of pixels it claims.

    The decoder would decode all frames, each at the size it claims, to return the first one. A
    small file could thus require any amount of memory.
    """
    # Past the end of a truncated file there are zeros: end of data, then an invalid block.
    data = tf.concat([tf.io.decode_raw(contents, tf.uint8), tf.zeros(32, tf.uint8)], axis=0)
    length = tf.strings.length(contents)

    def byte(position: tf.Tensor) -> tf.Tensor:
        return tf.cast(data[tf.minimum(position, length)], tf.int32)

    def color_table(flags: tf.Tensor) -> tf.Tensor:
        return tf.where(flags >= 0x80, 3 * 2 ** (flags % 8 + 1), 0)

    def after_data(position: tf.Tensor, left: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # Blocks of 1 to 255 bytes, ended by a block of 0 bytes.
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
