"""Decodes BMPs in a TensorFlow graph, with its general operations.

TensorFlow's own decoder gives the indices of a palette as shades of gray, and takes compressed
BMPs for uncompressed ones. The rules are those of `biam_tf.photo_decoding.file_headers`.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from biam_tf.photo_decoding.graph_frames import BROKEN
from biam_tf.photo_decoding.graph_headers import length_of, number_at, padded, part_of


class BmpHeader(NamedTuple):
    """Where the pixels of a BMP are and how they are stored; see `file_headers.BmpHeader`."""

    usual: tf.Tensor
    claims: tf.Tensor
    whole: tf.Tensor
    width: tf.Tensor
    height: tf.Tensor
    top_down: tf.Tensor
    bits: tf.Tensor
    green_bits: tf.Tensor
    has_alpha: tf.Tensor
    palette: tf.Tensor
    pixels: tf.Tensor
    row: tf.Tensor


def bmp_header(contents: tf.Tensor) -> BmpHeader:
    """Reads the header of a BMP.

    `usual` tells whether its kind is supported, `claims` how many pixels it claims, `BROKEN` if its
    sides are invalid, and `whole` whether the file has them all.
    """
    header = padded(contents, 0, 70)
    size, bits = number_at(header, 14, 4), number_at(header, 28, 2)
    masks = [number_at(header, at, 4) for at in (54, 58, 62)]
    has_masks = number_at(header, 30, 4) == 3
    alpha = tf.where(has_masks & (size >= 56), number_at(header, 66, 4), 0)

    def masked(*expected: int) -> tf.Tensor:
        return has_masks & tf.reduce_all([m == e for m, e in zip(masks, expected, strict=True)])

    def one_of(value: tf.Tensor, *known: int) -> tf.Tensor:
        return tf.reduce_any(value == tf.constant(known, tf.int64))

    green_6 = masked(0xF800, 0x7E0, 0x1F)
    usual = one_of(size, 40, 52, 56, 108, 124) & one_of(alpha, 0, 0xFF000000)
    usual &= (
        ((number_at(header, 30, 4) == 0) & one_of(bits, 1, 4, 8, 16, 24, 32))
        | ((green_6 | masked(0x7C00, 0x3E0, 0x1F)) & (bits == 16))
        | (masked(0xFF0000, 0xFF00, 0xFF) & (bits == 32))
    )
    width, height = (
        tf.where(side < 2**31, side, side - 2**32)
        for side in (number_at(header, 18, 4), number_at(header, 22, 4))
    )
    row = (width * bits + 31) // 32 * 4
    colors = number_at(header, 46, 4)
    colors = tf.minimum(tf.where(colors > 0, colors, 256), 2 ** tf.minimum(bits, 8))
    start = number_at(header, 10, 4)
    end = start + row * tf.abs(height)
    palette_end = tf.minimum(14 + size + 4 * colors, start)
    return BmpHeader(
        usual=usual,
        claims=tf.where((width > 0) & (height != 0), width * tf.abs(height), BROKEN),
        whole=(start >= 54) & (end <= length_of(contents)),
        width=width,
        height=tf.abs(height),
        top_down=height < 0,
        bits=bits,
        green_bits=tf.where(green_6, tf.constant(6, tf.int64), 5),
        has_alpha=(bits == 32) & (alpha != 0),
        palette=padded(part_of(contents, 14 + size, palette_end - 14 - size), 0, 1024),
        pixels=part_of(contents, start, end - start),
        row=row,
    )


def decode_bmp(contents: tf.Tensor) -> tf.Tensor:
    """Decodes a BMP of which `bmp_header` says that it is usual and whole.

    Returns:
        uint8 `(height, width, 3)`, RGB; or 4 channels where it has opacity.
    """
    header = bmp_header(contents)
    rows = tf.io.decode_raw(header.pixels, tf.uint8)
    rows = tf.reshape(rows, tf.stack([header.height, header.row]))
    rows = tf.cond(header.top_down, lambda: rows, lambda: tf.reverse(rows, [0]))
    width, bits = header.width, header.bits

    def palette() -> tf.Tensor:
        colors = tf.reshape(tf.io.decode_raw(header.palette, tf.uint8), (256, 4))[:, 2::-1]
        per_byte = 8 // tf.minimum(bits, 8)
        shifts = tf.cast(tf.range(8 - bits, -1, -tf.minimum(bits, 8)), tf.uint8)
        indices = tf.bitwise.right_shift(rows[..., tf.newaxis], shifts)
        indices = tf.bitwise.bitwise_and(indices, tf.cast(2**bits - 1, tf.uint8))
        indices = tf.reshape(indices, tf.stack([header.height, header.row * per_byte]))
        return tf.gather(colors, tf.cast(indices[:, :width], tf.int32))

    def sixteen() -> tf.Tensor:
        pairs = tf.cast(tf.reshape(rows, tf.stack([header.height, header.row // 2, 2])), tf.int32)
        values = (pairs[..., 0] + 256 * pairs[..., 1])[:, :width]
        green = tf.cast(2**header.green_bits, tf.int32)
        parts = (
            values // (32 * green) % 32 * 255 // 31,
            values // 32 % green * 255 // (green - 1),
            values % 32 * 255 // 31,
        )
        return tf.cast(tf.stack(parts, axis=-1), tf.uint8)

    def direct() -> tf.Tensor:
        places = rows[:, : width * bits // 8]
        places = tf.reshape(places, tf.stack([header.height, width, bits // 8]))
        # Some programs leave the opacity of an opaque BMP at zero.
        is_transparent = header.has_alpha & tf.reduce_any(places[..., 3:] > 0)
        order = tf.constant([2, 1, 0, 3])[: tf.where(is_transparent, 4, 3)]
        return tf.gather(places, order, axis=-1)

    pixels = tf.case([(bits <= 8, palette), (tf.equal(bits, 16), sixteen)], default=direct)
    return tf.ensure_shape(pixels, (None, None, None))
