"""Context blocks and the variants of table 4 against NumPy, and what each of them promises."""

import numpy as np
import pytest
import reference
import tensorflow as tf
from paper_weights import (
    criss_cross_weights,
    non_local_weights,
    randomize,
    region_context_weights,
    scene_context_weights,
)

from biam_tf.layers import (
    CrissCrossAttention,
    NonLocalBlock,
    RegionContextBlock,
    SceneContextBlock,
)

pytestmark = [pytest.mark.unit, pytest.mark.rounding]

CHANNELS, SCENE = 16, 6


def features(rng, height=3, width=5, images=2):
    return rng.normal(size=(images, height, width, CHANNELS)).astype(np.float32)


def with_random_weights(layer, inputs, rng):
    layer(inputs)
    randomize(layer, rng)
    return layer


@pytest.mark.parametrize("attention", ["softmax", "sigmoid"])
@pytest.mark.parametrize("layer_norm", [False, True])
def test_region_context_block_equals_numpy(attention, layer_norm, rng):
    x = features(rng)
    block = RegionContextBlock(num_heads=4, attention=attention, layer_norm=layer_norm)
    weights = region_context_weights(with_random_weights(block, x, rng))
    function = {"softmax": reference.softmax, "sigmoid": reference.sigmoid}[attention]
    expected = [reference.region_context_block(image, weights, 4, function) for image in x]
    np.testing.assert_allclose(block(x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("attention", ["sigmoid", "softmax"])
def test_scene_context_block_equals_numpy(attention, rng):
    x, scene = features(rng), rng.normal(size=(2, SCENE)).astype(np.float32)
    block = with_random_weights(SceneContextBlock(attention=attention), [x, scene], rng)
    weights = scene_context_weights(block)
    function = {"softmax": reference.softmax, "sigmoid": reference.sigmoid}[attention]
    expected = [
        reference.scene_context_block(image, x_g, weights, function)
        for image, x_g in zip(x, scene, strict=True)
    ]
    np.testing.assert_allclose(block([x, scene]), expected, atol=1e-5, rtol=1e-5)


def test_non_local_block_equals_numpy(rng):
    x = features(rng)
    block = with_random_weights(NonLocalBlock(), x, rng)
    weights = non_local_weights(block)
    expected = [reference.non_local_block(image, weights) for image in x]
    np.testing.assert_allclose(block(x), expected, atol=1e-5, rtol=1e-5)


def test_non_local_block_normalizes_by_the_global_batch():
    block = NonLocalBlock()
    block.build((None, 3, 5, CHANNELS))
    assert block.batch_norm.synchronized


@pytest.mark.parametrize("recurrence", [1, 2])
@pytest.mark.parametrize(("height", "width"), [(3, 5), (4, 1), (1, 4)])
def test_criss_cross_attention_equals_numpy(recurrence, height, width, rng):
    x = features(rng, height, width)
    layer = with_random_weights(CrissCrossAttention(recurrence), x, rng)
    weights = criss_cross_weights(layer)
    expected = [reference.criss_cross_attention(image, weights, recurrence) for image in x]
    np.testing.assert_allclose(layer(x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("block", [NonLocalBlock, CrissCrossAttention])
def test_a_new_block_passes_its_input_on_unchanged(block, rng):
    x, layer = features(rng), block()
    np.testing.assert_array_equal(layer(x), x)
    np.testing.assert_array_equal(layer(x, training=True), x)


def test_layer_norm_leaves_every_region_with_mean_0_and_deviation_1(rng):
    e_r = np.asarray(RegionContextBlock(num_heads=2, layer_norm=True)(features(rng)))
    np.testing.assert_allclose(e_r.mean(axis=-1), 0.0, atol=1e-5)
    np.testing.assert_allclose(e_r.std(axis=-1), 1.0, atol=1e-3)


def test_regions_may_be_permuted_through_the_non_local_block(rng):
    x = features(rng)
    block = with_random_weights(NonLocalBlock(), x, rng)
    order = rng.permutation(15)
    permuted = x.reshape(2, 15, CHANNELS)[:, order].reshape(x.shape)
    expected = np.asarray(block(x)).reshape(2, 15, CHANNELS)[:, order].reshape(x.shape)
    np.testing.assert_allclose(block(permuted), expected, atol=1e-5)


@pytest.mark.parametrize("recurrence", [1, 2])
def test_a_region_reaches_its_row_and_column_at_once_and_all_others_in_two_steps(recurrence, rng):
    x = features(rng, images=1)
    layer = with_random_weights(CrissCrossAttention(recurrence), x, rng)
    changed = x.copy()
    changed[0, 1, 2] += 1.0
    difference = np.abs(np.asarray(layer(changed)) - np.asarray(layer(x))).max(axis=-1)[0]
    expected = np.full((3, 5), recurrence == 2)
    expected[1, :] = expected[:, 2] = True
    np.testing.assert_array_equal(difference > 1e-6, expected)


def test_criss_cross_treats_rows_as_columns(rng):
    x = features(rng)
    layer = with_random_weights(CrissCrossAttention(), x, rng)
    turned = np.asarray(layer(x.swapaxes(1, 2))).swapaxes(1, 2)
    np.testing.assert_allclose(turned, layer(x), atol=1e-5)


def test_masking_the_region_in_its_column_leaves_every_gradient_finite(rng):
    x = features(rng)
    layer = with_random_weights(CrissCrossAttention(), x, rng)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(layer(x)))
    for gradient in tape.gradient(loss, layer.trainable_variables):
        assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0
