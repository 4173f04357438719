"""Decoding of photos in a serving graph: sizes first, errors that name the photo."""

import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from photo_files import animation, encoded

from biam_tf.photo_decoding.graph_formats import Reading
from biam_tf.photos import decode_photo
from serving.graph.photo_decoding import photo_decoder

pytestmark = pytest.mark.unit

SIZE, MAX_PIXELS = 32, 100_000
WEBP = hasattr(tf.io, "decode_webp")  # from TensorFlow 2.20 on
FORMATS = "JPEG, PNG, GIF, BMP or WebP" if WEBP else "JPEG, PNG, GIF or BMP"


@pytest.fixture(scope="module")
def decode():
    return photo_decoder(SIZE, MAX_PIXELS)


def refused(decode, *images) -> str:
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        decode(tf.constant(images))
    return str(error.value)


def png_claiming(width, height) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + encoded("PNG")[33:]


def jpeg_claiming(width, height) -> bytes:
    photo = bytearray(encoded("JPEG"))
    frame = photo.index(b"\xff\xc0")
    photo[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(photo)


def bmp_claiming(width, height) -> bytes:
    photo = encoded("BMP")
    return photo[:18] + struct.pack("<ii", width, height) + photo[26:]


def gif_claiming(width, height) -> bytes:
    photo = encoded("GIF")
    return photo[:6] + struct.pack("<HH", width, height) + photo[10:]


def gif_with_a_frame_claiming(width, height) -> bytes:
    photo = encoded("GIF")
    frame = photo.index(b"\x2c\0\0\0\0", 13 + 3 * 256)
    return photo[: frame + 5] + struct.pack("<HH", width, height) + photo[frame + 9 :]


@pytest.mark.parametrize(
    "photo",
    [
        encoded("JPEG"),
        encoded("JPEG", (33, 200), progressive=True),
        encoded("PNG", (200, 33)),
        encoded("BMP"),
        encoded("GIF"),
        animation(),
        animation(comment=b"a comment " * 100),
    ],
)
def test_photos_are_decoded_as_in_training(decode, photo):
    other = encoded("PNG", seed=1)
    photos = decode(tf.constant([photo, other]))
    np.testing.assert_array_equal(photos[0], decode_photo(photo, SIZE))
    np.testing.assert_array_equal(photos[1], decode_photo(other, SIZE))


def test_a_small_first_frame_of_an_animation_is_placed_as_in_training(decode):
    photo = gif_claiming(90, 80)
    np.testing.assert_array_equal(decode(tf.constant([photo]))[0], decode_photo(photo, SIZE))


@pytest.mark.parametrize(
    "bomb",
    [
        png_claiming(50_000, 50_000),
        png_claiming(2**31, 2**31),
        jpeg_claiming(50_000, 50_000),
        bmp_claiming(50_000, 50_000),
        bmp_claiming(50_000, -50_000),
        gif_claiming(50_000, 50_000),
        gif_with_a_frame_claiming(50_000, 50_000),
        encoded("JPEG", (400, 251)),
    ],
    ids="png png_overflow jpeg bmp bmp_top_down gif gif_frame real".split(),
)
def test_a_photo_that_claims_too_many_pixels_is_named_with_the_limit(decode, bomb):
    message = refused(decode, encoded("PNG"), bomb)
    assert f"images[1]: more than {MAX_PIXELS} pixels" in message


def test_later_frames_of_an_animation_are_never_unpacked(decode):
    photo = animation(2)
    frame = photo.rindex(b"\x2c\0\0\0\0")
    huge = photo[: frame + 5] + struct.pack("<HH", 65535, 65535) + photo[frame + 9 :]
    np.testing.assert_array_equal(decode(tf.constant([huge]))[0], decode_photo(photo, SIZE))


def test_a_photo_of_exactly_the_limit_is_decoded(decode):
    assert decode(tf.constant([encoded("PNG", (400, 250))])).shape == (1, SIZE, SIZE, 3)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP", "GIF"])
def test_a_photo_that_is_cut_short_is_refused_wherever_it_is_cut(decode, form):
    photo = encoded(form)
    cuts = [*range(1, 40, 3), *np.linspace(40, 0.95 * len(photo), 12).astype(int)]
    for cut in cuts:
        message = refused(decode, photo[:cut])
        assert f"images[0]: not a whole {FORMATS} photo" in message


def test_random_bytes_are_refused_whatever_they_begin_with(decode, rng):
    for beginning in (b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"RIFF"):
        for _ in range(5):
            assert "images[0]: " in refused(decode, beginning + rng.bytes(500))


def test_all_broken_photos_are_named(decode):
    good = encoded("PNG")
    message = refused(decode, good, b"", good, encoded("WEBP")[:-50], png_claiming(0, 7))
    assert "images[1, 3, 4]: not a whole" in message


@pytest.mark.integration
def test_without_webp_the_graph_has_no_operation_that_older_servers_lack():
    def operations(formats):
        graph = photo_decoder(SIZE, MAX_PIXELS, Reading("follow", formats)).graph.as_graph_def()
        nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
        return {node.op for node in nodes}

    early = ("JPEG", "PNG", "GIF", "BMP")
    assert "DecodeWebP" not in operations(early)
    assert "DecodeWebP" in operations((*early, "WEBP"))
    message = refused(photo_decoder(SIZE, MAX_PIXELS, Reading("follow", early)), encoded("WEBP"))
    assert "images[0]: not a whole JPEG, PNG, GIF or BMP photo" in message
