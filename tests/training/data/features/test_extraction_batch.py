import keras
import pytest
import tensorflow as tf

from biam_tf.errors import UserError
from training.data.features import extraction_batch, shard_extraction
from training.data.features.extraction import extract_features
from training.data.features.extraction_batch import MOST_PHOTOS, bytes_per_photo, photos_at_a_time


@pytest.fixture
def features():
    """A graph of photos (B, 8, 8, 3) whose largest operation has 8x8x3 in and 8x8x16 out."""
    convolution = keras.layers.Conv2D(16, 3, padding="same", use_bias=False)
    convolution.build((None, 8, 8, 3))

    @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 3))])
    def features(photos):
        return tf.reduce_mean(convolution(photos), axis=(1, 2))

    return features.get_concrete_function()


def test_a_photo_counts_as_twice_the_largest_operation(features):
    assert bytes_per_photo(features) == 2 * 4 * 8 * 8 * (3 + 16)


@pytest.mark.parametrize(("photos", "expected"), [(1, 1), (3, 2), (8, 8), (31, 16), (500, 32)])
def test_as_many_photos_as_fit_a_quarter_of_the_memory_but_no_more_than_help(
    features, photos, expected
):
    assert MOST_PHOTOS == 32
    assert photos_at_a_time(features, 4 * photos * bytes_per_photo(features)) == expected


def test_too_little_memory_for_one_photo_says_what_to_do(features):
    with pytest.raises(
        UserError, match=r"backbone.batch_size: the backbone needs .* smaller backbone.image_size"
    ):
        photos_at_a_time(features, 3 * bytes_per_photo(features))


def test_extraction_looks_at_the_memory_unless_it_is_told(backbone, photos, monkeypatch, tmp_path):
    memory = []

    def remember(features, free):
        memory.append(free)
        return 3

    monkeypatch.setattr(shard_extraction, "photos_at_a_time", remember)
    monkeypatch.setattr(extraction_batch, "available_memory", lambda: 12345)
    chosen = extract_features(backbone, "tiny", *photos, tmp_path / "chosen")
    assert memory == [12345]
    told = extract_features(backbone, "tiny", *photos, tmp_path / "told", batch_size=4)
    assert memory == [12345] and len(chosen) == len(told) == len(photos[1])
