import numpy as np
import pytest
import tensorflow as tf

from biam_tf.photos import resize_photo
from training.config import AugmentationConfig
from training.data.input.augmentation import _crop, augment, epoch_seed, picture_side

pytestmark = pytest.mark.unit

SIZE = 16


def crops(scale, count=500):
    """Beginnings and sizes (count, 2), as shares of the side."""
    draws = tf.random.stateless_uniform((count, 4), [1, 2])
    return (part.numpy() for part in tf.vectorized_map(lambda d: _crop(scale, d), draws))


def test_a_photo_is_decided_by_its_seed():
    settings = AugmentationConfig(flip=True, crop_scale=(0.3, 0.9))
    picture = np.random.default_rng(0).integers(0, 256, (picture_side(SIZE, settings),) * 2 + (3,))
    photos = [augment(tf.constant(picture), SIZE, settings, [7, n]) for n in (1, 1, 2)]
    np.testing.assert_array_equal(photos[0], photos[1])
    assert np.abs(photos[0] - photos[2]).max() > 1
    assert photos[0].shape == (SIZE, SIZE, 3) and photos[0].dtype == tf.float32


def test_seeds_of_epochs_differ():
    seeds = {epoch_seed(seed, epoch).tobytes() for seed in range(3) for epoch in range(3)}
    assert len(seeds) == 9 and epoch_seed(0, 1).dtype == np.int32


def test_half_of_the_photos_are_mirrored_and_nothing_else():
    picture = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3)).astype(np.float32)
    settings = AugmentationConfig(flip=True)
    mirrored = 0
    for n in range(200):
        photo = augment(tf.constant(picture), SIZE, settings, [0, n]).numpy()
        mirrored += (photo == picture[:, ::-1]).all()
        assert (photo == picture).all() or (photo == picture[:, ::-1]).all()
    assert 75 <= mirrored <= 125


def test_the_whole_picture_is_resized_as_in_evaluation():
    picture = tf.constant(np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3)), tf.float32)
    whole = augment(picture, SIZE, AugmentationConfig(crop_scale=(1.0, 1.0)), [0, 0])
    np.testing.assert_allclose(whole, picture, atol=1e-3)
    large = tf.constant(np.random.default_rng(0).integers(0, 256, (40, 40, 3)), tf.float32)
    whole = augment(large, SIZE, AugmentationConfig(crop_scale=(1.0, 1.0)), [0, 0])
    np.testing.assert_allclose(whole, resize_photo(large, SIZE), atol=1e-3)


def test_a_crop_shows_the_place_it_was_taken_from():
    side = picture_side(SIZE, AugmentationConfig(crop_scale=(0.25, 0.25)))
    assert side == 2 * SIZE
    rows, columns = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
    picture = np.stack([rows * 8, columns * 8, rows * 0], axis=-1).astype(np.float32)
    seed = [3, 4]
    begin, size = _crop((0.25, 0.25), tf.random.stateless_uniform((5,), seed)[:4])
    photo = augment(tf.constant(picture), SIZE, AugmentationConfig(crop_scale=(0.25, 0.25)), seed)
    middle = (begin + size / 2) * side - 0.5  # in pixels, whose centers are at half numbers
    np.testing.assert_allclose(
        photo[1:-1, 1:-1, :2].numpy().mean(axis=(0, 1)), middle * 8, atol=1.0
    )


@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.9, 1.0), (0.25, 0.25)])
def test_crops_have_the_area_asked_for_and_lie_within_the_picture(scale):
    begin, size = crops(scale)
    areas = size.prod(axis=1)
    assert (areas >= scale[0] - 1e-5).all() and (areas <= scale[1] + 1e-5).all()
    assert (begin >= 0).all() and (begin + size <= 1 + 1e-6).all()
    ratios = size[:, 1] / size[:, 0]
    assert (ratios > 3 / 4 - 1e-4).all() and (ratios < 4 / 3 + 1e-4).all()
    np.testing.assert_allclose(areas.mean(), sum(scale) / 2, atol=0.03)


@pytest.mark.parametrize(("least", "side"), [(1.0, 224), (0.5, 317), (0.25, 448)])
def test_the_smallest_crop_has_as_many_pixels_as_the_photo(least, side):
    assert picture_side(224, AugmentationConfig(crop_scale=(least, 1.0))) == side
    assert picture_side(224, AugmentationConfig(flip=True)) == 224
