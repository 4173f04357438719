"""First frames of GIFs and animated WebPs in a TensorFlow graph, as files of their own.

The rules are those of `biam_tf.photo_decoding.file_headers`. All loops are bounded.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from biam_tf.photo_decoding.file_headers import MOST_CHUNKS
from biam_tf.photo_decoding.graph_headers import (
    bytes_at,
    joined,
    length_of,
    number_at,
    padded,
    part_of,
    webp_chunks,
    webp_flags,
)

BROKEN = -1  # in place of the number of pixels
_LETTERS = [bytes([value]) for value in range(256)]


class Frame(NamedTuple):
    """The first frame of a GIF or WebP as a file of its own.

    Attributes:
        contents: scalar string; a GIF or WebP with this frame alone.
        canvas: (height, width) of the photo in pixels, int64 (2,).
        offset: (top, left) of the frame in it; the rest is transparent.
        pixels: number of pixels of the canvas; `BROKEN` if the frame is not whole.
        exif: EXIF data of the file, empty if it has none.
    """

    contents: tf.Tensor
    canvas: tf.Tensor
    offset: tf.Tensor
    pixels: tf.Tensor
    exif: tf.Tensor


def first_gif_frame(contents: tf.Tensor) -> Frame:
    """Returns the first frame of a GIF, in which the transparent color is white.

    The decoder would decode all frames, each at the size it claims, to return the first one. A
    small file could thus require any amount of memory.
    """
    # Past the end of a truncated file there are zeros: end of data, then an invalid block.
    data = tf.concat([tf.io.decode_raw(contents, tf.uint8), tf.zeros(32, tf.uint8)], axis=0)
    length = length_of(contents)

    def byte(position: tf.Tensor | int) -> tf.Tensor:
        return tf.cast(data[tf.minimum(tf.cast(position, tf.int64), length)], tf.int64)

    def table_length(flags: tf.Tensor) -> tf.Tensor:
        return tf.where(flags >= 0x80, 3 * 2 ** (flags % 8 + 1), 0)

    def after_data(position: tf.Tensor, left: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # Blocks of 1 to 255 bytes, ended by a block of 0 bytes.
        end, left = tf.while_loop(
            lambda at, left: (byte(at) > 0) & (left > 0),
            lambda at, left: (at + 1 + byte(at), left - 1),
            (position, left),
        )
        return end + 1, left

    def after_extension(
        at: tf.Tensor, left: tf.Tensor, transparent: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        controls = tf.equal(byte(at + 1), 0xF9) & (byte(at + 2) >= 4)
        color = tf.where(byte(at + 3) % 2 == 1, byte(at + 6), -1)
        return *after_data(at + 2, left - 1), tf.where(controls, color, transparent)

    table_end = 13 + table_length(byte(10))
    at, left, transparent = tf.while_loop(
        lambda at, left, transparent: tf.equal(byte(at), 0x21) & (left > 0),
        after_extension,
        (table_end, tf.constant(MOST_CHUNKS), tf.constant(-1, tf.int64)),
    )
    flags = byte(at + 9)
    own_table = table_length(flags)
    pixels_start = at + 10 + own_table
    end, left = after_data(pixels_start + 1, left)
    has_own = own_table > 0
    table = part_of(
        contents, tf.where(has_own, at + 10, 13), tf.where(has_own, own_table, table_end - 13)
    )
    has_table = tf.strings.length(table) > 0
    table = tf.strings.substr(table + b"\0" * 768, 0, 768)
    before, after = part_of(table, 0, 3 * transparent), part_of(table, 3 * transparent + 3, 768)
    table = tf.where(transparent >= 0, before + b"\xff\xff\xff" + after, table)
    left_top, size = bytes_at(contents, at + 1, 4), bytes_at(contents, at + 5, 4)
    offset = tf.stack([joined(left_top[2:]), joined(left_top[:2])])
    frame = tf.stack([joined(size[2:]), joined(size[:2])])
    screen = tf.stack([number_at(contents, 8, 2), number_at(contents, 6, 2)])
    canvas = tf.maximum(screen, offset + frame)
    whole = tf.equal(byte(at), 0x2C) & (end <= length) & (left > 0) & has_table
    whole &= tf.reduce_prod(frame) > 0
    sides = part_of(contents, at + 5, 4)
    alone = tf.strings.join(
        [
            tf.strings.join([b"GIF89a", sides, b"\0\0\0", b"\x2c\0\0\0\0", sides]),
            # Bit 7: a color table follows, of 2^(7 + 1) colors; bit 6: the rows are interlaced.
            tf.where(flags // 0x40 % 2 == 1, b"\xc7", b"\x87"),
            table,
            part_of(contents, pixels_start, end - pixels_start),
            b"\x3b",
        ]
    )
    pixels = tf.where(whole, tf.reduce_prod(canvas), BROKEN)
    return Frame(alone, canvas, offset, pixels, tf.constant(b""))


def first_webp_frame(contents: tf.Tensor) -> Frame:
    """Returns a WebP, or the first frame of an animated one.

    TensorFlow's decoder writes past its memory if an animation has another number of channels than
    it expects, so it must never get one.
    """
    flags = webp_flags(contents)
    animated, has_exif = flags // 2 % 2 == 1, flags // 8 % 2 == 1
    (start, end), exif = tf.cond(
        animated | has_exif,
        lambda: webp_chunks(contents, b"ANMF", b"EXIF"),
        lambda: [(tf.constant(0, tf.int64), tf.constant(0, tf.int64))] * 2,
    )
    # Decoders look for EXIF data only if the header says that there are any.
    exif_data = part_of(contents, exif[0], tf.where(has_exif, exif[1] - exif[0], 0))

    still = _still_webp_size(contents)
    canvas = tf.where(animated, _joined_pairs(contents, 24, 3) + 1, still)
    offset = tf.where(animated, 2 * _joined_pairs(contents, start, 3), 0)
    size = _joined_pairs(contents, start + 6, 3) + 1
    whole = (start > 0) & (end <= length_of(contents)) & (end - start >= 24)
    whole &= tf.reduce_all(offset + size <= canvas)
    frame = part_of(contents, start + 16, end - start - 16)
    sides = part_of(contents, start + 6, 6)
    extended = tf.strings.join([b"VP8X\x0a\0\0\0\x10\0\0\0", sides, frame])
    # Alpha of a lossy picture needs the extended header.
    frame = tf.where(padded(frame, 0, 4) == b"ALPH", extended, frame)
    alone = tf.strings.join([b"RIFF", _as_bytes(length_of(frame) + 4, 4), b"WEBP", frame])
    pixels = tf.where(whole | ~animated, tf.reduce_prod(canvas), BROKEN)
    pixels = tf.where(pixels > 0, pixels, BROKEN)
    return Frame(tf.where(animated, alone, contents), canvas, offset, pixels, exif_data)


def _still_webp_size(contents: tf.Tensor) -> tf.Tensor:
    """Returns (height, width) of a WebP that is not animated, int64; (0, 0) if it is broken."""
    kind, lossless = padded(contents, 12, 4), number_at(contents, 21, 4)
    size = tf.where(kind == b"VP8X", _joined_pairs(contents, 24, 3) + 1, tf.zeros(2, tf.int64))
    size = tf.where(kind == b"VP8L", tf.stack([lossless // 2**14, lossless]) % 2**14 + 1, size)
    return tf.where(kind == b"VP8 ", _joined_pairs(contents, 26, 2) % 2**14, size)


def _joined_pairs(contents: tf.Tensor, at: tf.Tensor | int, count: int) -> tf.Tensor:
    """Returns two numbers of `count` bytes each, which a file gives as (x, y), as (y, x)."""
    return joined(tf.reshape(bytes_at(contents, at, 2 * count), (2, count)))[::-1]


def _as_bytes(number: tf.Tensor, count: int) -> tf.Tensor:
    """Returns a number as a string of `count` bytes, the lowest first."""
    digits = tf.stack([number // 256**i % 256 for i in range(count)])
    return tf.strings.reduce_join(tf.gather(tf.constant(_LETTERS), digits))
