"""Reads the headers of photos in a TensorFlow graph: format, orientation, chunks.

The rules are those of `biam_tf.photo_decoding.file_headers`. All loops are bounded.
"""

from __future__ import annotations

import tensorflow as tf

from biam_tf.photo_decoding.file_headers import (
    EXIF_LIMIT,
    GRAPH_FORMATS,
    MOST_CHUNKS,
    MOST_SEGMENTS,
)

_MAGIC = {"JPEG": [b"\xff\xd8\xff"], "PNG": [b"\x89PNG\r\n\x1a\n"], "GIF": [b"GIF87a", b"GIF89a"]}


def kind_of(contents: tf.Tensor, formats: tuple[str, ...]) -> tf.Tensor:
    """Returns the position in `GRAPH_FORMATS` of a photo's format, -1 if it is not in `formats`."""
    head = padded(contents, 0, 12)

    def starts_with(magic: bytes, at: int = 0) -> tf.Tensor:
        return tf.strings.substr(head, at, len(magic)) == magic

    kind = tf.constant(-1)
    for form in formats:
        found = starts_with(b"BM")
        if form == "WEBP":
            found = starts_with(b"RIFF") & starts_with(b"WEBP", 8)
        elif form in _MAGIC:
            found = tf.reduce_any([starts_with(magic) for magic in _MAGIC[form]])
        kind = tf.where(found, GRAPH_FORMATS.index(form), kind)
    return kind


# === Numbers in a file ===


def length_of(contents: tf.Tensor) -> tf.Tensor:
    """Returns the number of bytes, int64."""
    return tf.cast(tf.strings.length(contents), tf.int64)


def part_of(contents: tf.Tensor, at: tf.Tensor | int, count: tf.Tensor | int) -> tf.Tensor:
    """Returns `count` bytes, fewer at the end of the file."""
    at = tf.clip_by_value(tf.cast(at, tf.int64), 0, length_of(contents))
    return tf.strings.substr(contents, at, tf.maximum(tf.cast(count, tf.int64), 0))


def padded(contents: tf.Tensor, at: tf.Tensor | int, count: int) -> tf.Tensor:
    """Returns `count` bytes, zeros beyond the end of the file."""
    return tf.strings.substr(part_of(contents, at, count) + b"\0" * count, 0, count)


def bytes_at(contents: tf.Tensor, at: tf.Tensor | int, count: int) -> tf.Tensor:
    """Returns `count` bytes as numbers, int64."""
    values = tf.io.decode_raw(padded(contents, at, count), tf.uint8)
    return tf.cast(tf.ensure_shape(values, (count,)), tf.int64)


def number_at(
    contents: tf.Tensor, at: tf.Tensor | int, count: int, big: tf.Tensor | bool = False
) -> tf.Tensor:
    """Returns an unsigned number of `count` bytes, int64, the lowest first unless it is `big`."""
    return joined(bytes_at(contents, at, count), big)


def joined(values: tf.Tensor, big: tf.Tensor | bool = False) -> tf.Tensor:
    """Returns the numbers whose bytes are along the last axis."""
    low_first = [256**i for i in range(values.shape[-1])]
    weights = tf.where(big, tf.constant(low_first[::-1], tf.int64), low_first)
    return tf.reduce_sum(values * weights, axis=-1)


# === EXIF orientation ===


def is_plain_jpeg(contents: tf.Tensor) -> tf.Tensor:
    """Returns whether a photo is a JPEG without EXIF data by its first bytes; few operations.

    After its first marker, or after a JFIF header without a preview, its tables begin; EXIF data
    stand before them. False says nothing.
    """
    head, tables = tf.strings.substr(contents, 0, 22) + b"\0" * 22, b"\xff\xdb"
    has_jfif = tf.strings.substr(head, 0, 6) == b"\xff\xd8\xff\xe0\x00\x10"
    after_jfif = tf.strings.substr(head, 20, 2) == tables
    return (has_jfif & after_jfif) | (tf.strings.substr(head, 0, 4) == b"\xff\xd8" + tables)


def orientation_of_exif(block: tf.Tensor) -> tf.Tensor:
    """Returns the orientation in EXIF data, int64, 1 to 8; 1 if there is none."""
    prefixed = padded(block, 0, 6) == b"Exif\0\0"
    block = part_of(block, tf.where(prefixed, 6, 0), EXIF_LIMIT)
    start = padded(block, 0, 4)
    big = start == b"MM\0*"
    found = tf.cond(
        big | (start == b"II*\0"),
        lambda: _orientation_in(block, big),
        lambda: tf.constant(1, tf.int64),
    )
    return tf.where((1 <= found) & (found <= 8), found, 1)


def _orientation_in(block: tf.Tensor, big: tf.Tensor) -> tf.Tensor:
    first = number_at(block, 4, 4, big)
    count = tf.minimum(number_at(block, first, 2, big), (length_of(block) - first - 2) // 12)
    data = tf.io.decode_raw(part_of(block, first + 2, 12 * count), tf.uint8)
    entries = tf.cast(tf.reshape(data, (-1, 12)), tf.int64)
    # Written as one 16-bit number; anything else is malformed.
    is_orientation = (
        (joined(entries[:, :2], big) == 0x0112)
        & (joined(entries[:, 2:4], big) == 3)
        & (joined(entries[:, 4:8], big) == 1)
    )
    values = tf.boolean_mask(joined(entries[:, 8:10], big), is_orientation)
    return tf.concat([values, tf.ones(1, tf.int64)], axis=0)[0]


def jpeg_exif(contents: tf.Tensor) -> tf.Tensor:
    """Returns the EXIF data of a JPEG, empty if it has none."""

    def marker(at: tf.Tensor) -> tf.Tensor:
        return number_at(contents, at, 2, big=True)

    def is_exif(at: tf.Tensor) -> tf.Tensor:
        return (marker(at) == 0xFFE1) & (padded(contents, at + 4, 6) == b"Exif\0\0")

    def goes_on(at: tf.Tensor, left: tf.Tensor) -> tf.Tensor:
        # Only application segments (0xFFE0 to 0xFFEF) and comments (0xFFFE) stand before EXIF data.
        found = marker(at)
        known = ((found >= 0xFFE0) & (found <= 0xFFEF)) | (found == 0xFFFE)
        return known & ~is_exif(at) & (left > 0)

    at, left = tf.while_loop(
        goes_on,
        lambda at, left: (at + 2 + number_at(contents, at + 2, 2, big=True), left - 1),
        (tf.constant(2, tf.int64), tf.constant(MOST_SEGMENTS)),
    )
    size = tf.where(is_exif(at) & (left > 0), number_at(contents, at + 2, 2, big=True) - 2, 0)
    return part_of(contents, at + 4, size)


def png_chunks(contents: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the EXIF data of a PNG, and whether it has a chunk tRNS before its pixels."""

    def goes_on(
        at: tf.Tensor, left: tf.Tensor, pixels: tf.Tensor, transparent: tf.Tensor, exif: tf.Tensor
    ) -> tf.Tensor:
        kind = padded(contents, at + 4, 4)
        whole = (at + 8 <= length_of(contents)) & (number_at(contents, at, 4, big=True) < 2**31)
        done = (exif > 0) & (pixels | transparent)
        return whole & ~tf.equal(kind, b"IEND") & ~done & (left > 0)

    def step(
        at: tf.Tensor, left: tf.Tensor, pixels: tf.Tensor, transparent: tf.Tensor, exif: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        kind = padded(contents, at + 4, 4)
        return (
            at + 12 + number_at(contents, at, 4, big=True),
            left - 1,
            pixels | tf.equal(kind, b"IDAT"),
            transparent | (tf.equal(kind, b"tRNS") & ~pixels),
            tf.where(tf.equal(kind, b"eXIf"), at, exif),
        )

    zero, no = tf.constant(0, tf.int64), tf.constant(False)
    start = (zero + 8, tf.constant(MOST_CHUNKS), no, no, zero)
    _, _, _, transparent, exif = tf.while_loop(goes_on, step, start)
    size = tf.where(exif > 0, number_at(contents, exif, 4, big=True), 0)
    return part_of(contents, exif + 8, size), transparent


def webp_flags(contents: tf.Tensor) -> tf.Tensor:
    """Returns the flags of the extended header of a WebP; 0 if it has none."""
    is_extended = padded(contents, 12, 4) == b"VP8X"
    return tf.where(is_extended, bytes_at(contents, 20, 1)[0], 0)


def webp_chunks(contents: tf.Tensor, *kinds: bytes) -> list[tuple[tf.Tensor, tf.Tensor]]:
    """Returns start and end of the data of the first chunk of each kind, (0, 0) if none."""

    def goes_on(at: tf.Tensor, left: tf.Tensor, *found: tf.Tensor) -> tf.Tensor:
        whole = (at + 4 <= length_of(contents)) & (number_at(contents, at + 4, 4) < 2**31)
        return whole & tf.reduce_any(tf.equal(tf.stack(found), 0)) & (left > 0)

    def step(at: tf.Tensor, left: tf.Tensor, *found: tf.Tensor) -> tuple[tf.Tensor, ...]:
        kind, size = padded(contents, at, 4), number_at(contents, at + 4, 4)
        places = [
            tf.where(tf.equal(kind, k) & tf.equal(place, 0), at, place)
            for k, place in zip(kinds, found, strict=True)
        ]
        return at + 8 + size + size % 2, left - 1, *places

    zero = tf.constant(0, tf.int64)
    start = (zero + 12, tf.constant(MOST_CHUNKS), *[zero] * len(kinds))
    _, _, *found = tf.while_loop(goes_on, step, start)
    return [
        (
            tf.where(place > 0, place + 8, 0),
            tf.where(place > 0, place + 8 + number_at(contents, place + 4, 4), 0),
        )
        for place in found
    ]
