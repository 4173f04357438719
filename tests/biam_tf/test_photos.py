"""Decoding of photos, against files written by Pillow."""

import io
import os

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from biam_tf.files import sha256_of
from biam_tf.photos import PhotoError, decode_photo, read_photo_file, resize_photo

pytestmark = pytest.mark.unit


def encoded(picture, form, **options):
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


@pytest.fixture
def pixels():
    """A smooth (40, 60, 3) picture whose three channels differ."""
    y, x = np.mgrid[:40, :60]
    return np.stack([4 * x, 6 * y, 2 * (x + y)], axis=-1).astype(np.uint8)


@pytest.fixture
def picture(pixels):
    return Image.fromarray(pixels)


@pytest.mark.parametrize(
    ("form", "options", "tolerance"),
    [
        ("PNG", {}, 0),
        ("BMP", {}, 0),
        ("JPEG", {"quality": 95, "subsampling": 0}, 4),
        ("JPEG", {"quality": 95, "subsampling": 0, "progressive": True}, 4),
    ],
)
def test_a_photo_keeps_its_colors(form, options, tolerance):
    pixels = np.full((32, 32, 3), (10, 120, 250), np.uint8)
    pixels[:, 16:] = (200, 60, 0)
    photo = decode_photo(encoded(Image.fromarray(pixels), form, **options), 32)
    np.testing.assert_allclose(photo, pixels, atol=tolerance)


def test_the_result_is_square_float_and_within_the_range(picture):
    photo = decode_photo(encoded(picture, "PNG"), 96)
    assert photo.shape == (96, 96, 3)
    assert photo.dtype == tf.float32
    assert 0 <= tf.reduce_min(photo) <= tf.reduce_max(photo) <= 255


def test_a_white_photo_stays_white(rng):
    for height, width in rng.integers(20, 300, (5, 2)):
        white = Image.new("RGB", (int(width), int(height)), "white")
        photo = decode_photo(encoded(white, "PNG"), 96)
        assert tf.reduce_max(photo) <= 255
        np.testing.assert_allclose(photo, 255, rtol=1e-6)


def test_the_whole_photo_is_resized_without_cropping(picture, pixels):
    photo = decode_photo(encoded(picture, "PNG"), 8)
    by_pillow = picture.resize((8, 8), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(photo, np.asarray(by_pillow), atol=1)


def test_shrinking_averages_instead_of_skipping_pixels():
    checkerboard = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    photo = decode_photo(encoded(Image.fromarray(checkerboard), "PNG"), 8)
    np.testing.assert_allclose(photo[2:-2, 2:-2], 127.5, atol=4)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP"])
def test_grayscale_is_repeated_over_the_channels(form, picture):
    photo = decode_photo(encoded(picture.convert("L"), form), 32).numpy()
    np.testing.assert_array_equal(photo[..., 0], photo[..., 1])
    np.testing.assert_array_equal(photo[..., 0], photo[..., 2])


def test_transparent_parts_are_white(pixels):
    transparent = np.dstack([pixels, np.zeros(pixels.shape[:2], np.uint8)])
    photo = decode_photo(encoded(Image.fromarray(transparent), "PNG"), 40)
    np.testing.assert_array_equal(photo, np.full((40, 40, 3), 255, np.float32))


def test_cmyk_is_converted_to_rgb(picture, pixels):
    contents = encoded(picture.convert("CMYK"), "JPEG", quality=95)
    expected = decode_photo(encoded(picture, "PNG"), 40)
    np.testing.assert_allclose(decode_photo(contents, 40), expected, atol=12)


def test_16_bits_become_8():
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    photo = decode_photo(encoded(Image.fromarray(ramp), "PNG"), 64)
    np.testing.assert_allclose(photo[..., 0], ramp / 257, atol=1)


def test_an_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (20, 20), color) for color in ("red", "blue")]
    contents = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    photo = decode_photo(contents, 16)
    np.testing.assert_allclose(photo, np.broadcast_to((255, 0, 0), (16, 16, 3)), atol=1)


@pytest.mark.integration
def test_it_works_inside_a_data_pipeline(picture):
    contents = [encoded(picture, "PNG"), encoded(picture, "JPEG")]
    photos = tf.data.Dataset.from_tensor_slices(contents).map(lambda c: decode_photo(c, 24))
    assert photos.element_spec == tf.TensorSpec((24, 24, 3), tf.float32)
    assert len(list(photos)) == 2


@pytest.mark.integration
def test_it_works_in_a_serving_signature(picture):
    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string)])
    def serve(images):
        one = tf.TensorSpec((24, 24, 3), tf.float32)
        return tf.map_fn(lambda c: decode_photo(c, 24), images, fn_output_signature=one)

    contents = encoded(picture, "PNG")
    assert serve.get_concrete_function().structured_outputs.shape == (None, 24, 24, 3)
    np.testing.assert_array_equal(serve([contents])[0], decode_photo(contents, 24))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "BMP"])
def test_a_truncated_photo_fails(form, rng):
    noise = Image.fromarray(rng.integers(0, 256, (50, 50, 3), dtype=np.uint8))
    contents = encoded(noise, form)
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode_photo(contents[: len(contents) // 2], 24)


@pytest.mark.parametrize("contents", [b"", b"not a photo"])
def test_bytes_that_are_no_photo_fail(contents):
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode_photo(contents, 24)


def test_resizing_gives_the_bits_of_tensorflows_resizing(rng):
    for height, width in ((3, 5), (70, 40), (17, 200), (32, 32), (1, 1)):
        photo = tf.constant(rng.integers(0, 256, (height, width, 3)).astype("uint8"))
        expected = tf.image.resize(photo, (32, 32), method="bilinear", antialias=True)
        np.testing.assert_array_equal(resize_photo(photo, 32), np.clip(expected, 0, 255))


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(PhotoError, match="a pipe or device"):
        read_photo_file(tmp_path / "pipe.png")
    with pytest.raises(OSError, match="a pipe or device"):
        sha256_of(tmp_path / "pipe.png")
