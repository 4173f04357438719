"""Class embeddings from example photos."""

import numpy as np
import pytest

from biam_tf.class_sides import DirectionClasses, LearnedClasses, LinearClasses
from biam_tf.errors import UserError
from biam_tf.learned_classes import (
    OtherPhotos,
    learned_embedding,
    photo_vectors,
    require_learnable,
    spread_over,
)

pytestmark = pytest.mark.unit


@pytest.fixture
def others(rng):
    """Photos whose vectors vary ten times as much along the first axis."""
    return rng.normal(size=(400, 3)) * [10, 1, 1] + [5, 0, 0]


def test_what_varies_among_all_photos_counts_little(others):
    found = learned_embedding(np.array([[8.0, 3, 0]]), OtherPhotos.of(others), LinearClasses(3))
    # With independent axes: the difference of the means, divided by variance and ridge.
    variances = others.var(axis=0, ddof=1)
    expected = ([8.0, 3, 0] - others.mean(axis=0)) / (variances + variances.mean())
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected), atol=0.02)
    assert found.dtype == np.float32 and found[1] > found[0]
    np.testing.assert_allclose(np.linalg.norm(found), 1, rtol=1e-6)


@pytest.mark.parametrize("has_center", [False, True])
def test_the_direction_is_what_a_cosine_classifier_sees(others, has_center):
    center = np.array([0.3, -0.4, 0.5], np.float32) if has_center else np.zeros(3, np.float32)
    side = DirectionClasses(7.0, center, np.zeros((0, 3), np.float32))
    example = np.array([[6.0, 2, -2]])
    linear = learned_embedding(example, OtherPhotos.of(others), LinearClasses(3))
    embedding = learned_embedding(example, OtherPhotos.of(others), side)
    np.testing.assert_allclose(np.linalg.norm(embedding), 1, rtol=1e-6)
    np.testing.assert_allclose(side.vectors(embedding[None])[0], 7 * linear, atol=1e-5)


def test_a_name_counts_as_two_photos(others):
    side, spread = LinearClasses(3), OtherPhotos.of(others)
    named = np.array([0.0, 0, 1])
    for count, share in ((1, 1 / 3), (2, 1 / 2), (8, 8 / 10)):
        examples = np.repeat([[9.0, 2, 0]], count, axis=0)
        alone = learned_embedding(examples, spread, side)
        expected = share * alone + (1 - share) * named
        found = learned_embedding(examples, spread, side, 5 * named)
        np.testing.assert_allclose(found, expected / np.linalg.norm(expected), atol=1e-6)


def test_photo_vectors_are_means_over_regions_without_bias(rng):
    regions = rng.normal(size=(2, 3, 4, 6)).astype(np.float32)
    found = photo_vectors(regions, LinearClasses(5, has_bias=True))
    expected = [[photo[:, :, i].mean() for i in range(5)] for photo in regions.astype(np.float64)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_what_cannot_be_learned_is_refused(others):
    with pytest.raises(UserError, match="19 other photos; at least 20"):
        OtherPhotos.of(others[:19])
    with pytest.raises(UserError, match="do not differ"):
        learned_embedding(others.mean(axis=0)[None], OtherPhotos.of(others), LinearClasses(3))
    with pytest.raises(UserError, match="runs/x: scores only the classes"):
        require_learnable(LearnedClasses(np.eye(3)), "runs/x")


def test_some_of_many_are_spread_over_all():
    assert spread_over("abcde", 9) == list("abcde")
    assert spread_over(range(101), 5) == [0, 25, 50, 75, 100]
