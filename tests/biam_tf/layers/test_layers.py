"""What a single layer promises; what all of them do is in test_conformance.py."""

import numpy as np
import pytest

from biam_tf.layers import (
    BoundClassEmbeddings,
    CrissCrossAttention,
    NonLocalBlock,
    PointwiseConv2D,
    RegionClassifier,
    RegionContextBlock,
    SceneContextBlock,
    TopKSpatialPooling,
)

pytestmark = [pytest.mark.unit, pytest.mark.rounding]

REGIONS, CLASSES = (2, 5, 4, 8), (3, 7)


def arrays(shapes, rng):
    if isinstance(shapes, list):
        return [arrays(shape, rng) for shape in shapes]
    return rng.normal(size=shapes).astype(np.float32)


def test_regions_may_be_permuted_through_the_region_context_block(rng):
    block = RegionContextBlock(num_heads=2)
    x = arrays((2, 4, 3, 8), rng)
    order = rng.permutation(12)
    permuted = x.reshape(2, 12, 8)[:, order].reshape(x.shape)
    expected = np.asarray(block(x)).reshape(2, 12, 8)[:, order].reshape(x.shape)
    np.testing.assert_allclose(block(permuted), expected, atol=1e-5)


def test_masking_zero_scores_takes_those_pairs_out_of_the_softmax(rng):
    block = RegionContextBlock(num_heads=1, mask_zero_scores=True)
    x = arrays((1, 1, 3, 4), rng)
    x[0, 0, 1] = 0.0  # with biases of 0 its key is 0, and so is every score with it
    masked = np.asarray(block(x))
    alone = np.asarray(block(x[:, :, [0, 2]]))
    np.testing.assert_allclose(masked[0, 0, [0, 2]], alone[0, 0], atol=1e-6)


def test_heads_that_do_not_divide_the_channels_are_an_error():
    with pytest.raises(ValueError, match=r"num_heads=3 does not divide the 8 channels"):
        RegionContextBlock(num_heads=3)(np.zeros(REGIONS))


def test_more_regions_than_there_are_is_an_error():
    with pytest.raises(ValueError, match=r"k=21 is larger than the 20 regions"):
        TopKSpatialPooling(21)(np.zeros(REGIONS))
    with pytest.raises(ValueError, match="k must be at least 1"):
        TopKSpatialPooling(0)


def test_top_k_pooling_is_max_at_one_and_mean_at_all(rng):
    x = arrays(REGIONS, rng)
    np.testing.assert_allclose(TopKSpatialPooling(1)(x), x.max(axis=(1, 2)), atol=1e-6)
    np.testing.assert_allclose(TopKSpatialPooling(20)(x), x.mean(axis=(1, 2)), atol=1e-6)


def test_class_embeddings_of_another_length_are_an_error(rng):
    classifier = RegionClassifier()
    classifier(arrays([REGIONS, CLASSES], rng))
    with pytest.raises(ValueError, match=r"length 7; got class_embeddings of shape \(3, 6\)"):
        classifier(arrays([REGIONS, (3, 6)], rng))


def test_one_classifier_answers_for_any_number_of_classes(rng):
    classifier = RegionClassifier()
    regions = arrays(REGIONS, rng)
    assert classifier([regions, arrays((3, 7), rng)]).shape == (2, 5, 4, 3)
    assert classifier([regions, arrays((50, 7), rng)]).shape == (2, 5, 4, 50)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RegionContextBlock(attention="softmin"), "attention must be one of"),
        (lambda: SceneContextBlock(attention="tanh"), "attention must be one of"),
        (lambda: NonLocalBlock()(np.zeros((1, 2, 2, 1))), "at least 2; got shape"),
        (lambda: CrissCrossAttention()(np.zeros((1, 2, 2, 7))), "at least 8; got shape"),
        (lambda: CrissCrossAttention(0), "recurrence must be at least 1; got 0"),
        (lambda: SceneContextBlock(residual="none"), "residual must be one of"),
        (lambda: SceneContextBlock()(np.zeros(REGIONS)), "must be"),
        (lambda: RegionClassifier()(np.zeros(REGIONS)), "must be"),
        (lambda: TopKSpatialPooling(1)(np.zeros((2, 3))), "must be response maps"),
        (lambda: BoundClassEmbeddings(np.zeros(3)), "must be a matrix"),
        (lambda: PointwiseConv2D(3, strides=2), r"got strides=\(2, 2\)"),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
