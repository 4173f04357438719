"""Scores without response maps, against the same written out: maps first, then their pooling."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from biam_tf.layers import (
    CosineRegionClassifier,
    RegionClassifier,
    TopKRegionScores,
    TopKSpatialPooling,
)

pytestmark = [pytest.mark.unit, pytest.mark.rounding]

PHOTOS, GRID, CHANNELS, EMBEDDING, K = 3, (4, 5), 6, 4, 3


def classifier_of(kind):
    if kind == "cosine":
        return CosineRegionClassifier(scale=7.0, center=[0.1, -0.2, 0.3, 0.0])
    if kind == "anchored cosine":
        return CosineRegionClassifier(anchors=np.eye(CHANNELS - EMBEDDING, EMBEDDING))
    classifier = RegionClassifier(use_bias=kind == "dot product with bias")
    classifier.build([(None, *GRID, CHANNELS), (None, EMBEDDING)])
    if classifier.bias is not None:
        classifier.bias.assign(np.linspace(-1, 1, CHANNELS))
    return classifier


def inputs_of(kind, rng, classes=9):
    size = EMBEDDING if kind == "cosine" else CHANNELS
    features = rng.normal(size=(PHOTOS, *GRID, size))
    features[0, 0, 0] = features[0, 1, 1]  # equal responses: one of them counts
    return [features.astype("float32"), rng.normal(size=(classes, EMBEDDING)).astype("float32")]


def value_and_gradients(score, classifier, inputs, upstream):
    inputs = [tf.constant(array) for array in inputs]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        scores = score(inputs)
    watched = [*inputs, *(weight.value for weight in classifier.trainable_variables)]
    return scores, tape.gradient(scores, watched, upstream)


@pytest.mark.parametrize(
    "kind", ["dot product", "dot product with bias", "cosine", "anchored cosine"]
)
@pytest.mark.parametrize("at_a_time", [1, 150, 10**6])  # a class at a time, some, all
@pytest.mark.parametrize("sizes_known", [True, False])
def test_value_and_gradients_are_those_of_pooled_response_maps(kind, at_a_time, sizes_known, rng):
    classifier, inputs = classifier_of(kind), inputs_of(kind, rng)
    layer = TopKRegionScores(classifier, K, at_a_time)
    score = layer
    if not sizes_known:
        specs = [tf.TensorSpec([*[None] * (x.ndim - 1), x.shape[-1]]) for x in inputs]
        score = tf.function(layer, input_signature=[specs])
    upstream = rng.normal(size=(PHOTOS, 9)).astype("float32")
    pooling = TopKSpatialPooling(K)

    expected = value_and_gradients(
        lambda parts: pooling(classifier(parts)), classifier, inputs, upstream
    )
    found = value_and_gradients(score, classifier, inputs, upstream)
    np.testing.assert_allclose(found[0], expected[0], atol=1e-5)
    for one, other in zip(found[1], expected[1], strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)


@pytest.mark.parametrize("use_bias", [True, False])
def test_both_orders_of_the_product_give_the_response_maps(use_bias, rng):
    kind = "dot product with bias" if use_bias else "dot product"
    classifier, inputs = classifier_of(kind), inputs_of(kind, rng)
    for order in classifier.contraction_orders():
        features, class_side = order(*map(tf.constant, inputs))
        np.testing.assert_allclose(
            tf.einsum("bhwd,cd->bhwc", features, class_side), classifier(inputs), atol=1e-5
        )
    few, many = classifier.flops(1000, 5), classifier.flops(1000, 10_000)
    assert few[0] < few[1] and many[0] > many[1]


def test_a_classifier_trains_in_it_as_alone(rng):
    classifier = classifier_of("anchored cosine")
    classifier.anchor_dropout, classifier.seed_generator = 0.5, keras.random.SeedGenerator(3)
    inputs = inputs_of("anchored cosine", rng)
    layer, state = TopKRegionScores(classifier, K), classifier.seed_generator.state
    before = state.numpy()
    found = layer(inputs, training=True)
    state.assign(before)
    alone = TopKSpatialPooling(K)(classifier(inputs, training=True))
    np.testing.assert_allclose(found, alone, atol=1e-5)
    assert np.abs(found - layer(inputs)).max() > 1e-3


def test_more_classes_change_no_score(rng):
    classifier, inputs = classifier_of("dot product"), inputs_of("dot product", rng, classes=40)
    layer = TopKRegionScores(classifier, K, responses_at_a_time=7 * PHOTOS * 20)
    alone = layer([inputs[0], inputs[1][:9]])
    np.testing.assert_allclose(layer(inputs)[:, :9], alone, atol=1e-5)


def test_no_photo_has_no_scores(rng):
    classifier, inputs = classifier_of("dot product"), inputs_of("dot product", rng)
    layer = TopKRegionScores(classifier, K, responses_at_a_time=1)
    specs = [tf.TensorSpec([*[None] * (x.ndim - 1), x.shape[-1]]) for x in inputs]
    score = tf.function(layer, input_signature=[specs])
    assert score([inputs[0][:0], inputs[1]]).shape == (0, 9)


def test_wrong_sizes_are_named():
    with pytest.raises(ValueError, match="k must be at least 1; got 0"):
        TopKRegionScores(RegionClassifier(), 0)
    with pytest.raises(ValueError, match="k=21 is larger than the 20 regions"):
        TopKRegionScores(RegionClassifier(), 21)([np.zeros((1, 4, 5, 6)), np.zeros((2, 4))])
    with pytest.raises(ValueError, match="the inputs must be"):
        TopKRegionScores(RegionClassifier(), 1)([np.zeros((1, 4, 6)), np.zeros((2, 4))])
