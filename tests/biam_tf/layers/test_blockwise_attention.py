"""Attention block by block, against the formula written out."""

import numpy as np
import pytest
import tensorflow as tf

from biam_tf import ways_to_compute
from biam_tf.layers import RegionContextBlock
from biam_tf.layers.blockwise_attention import attend, drop

pytestmark = [pytest.mark.unit, pytest.mark.rounding]

HEADS, N, SIZE = 5, 7, 3


def relations(q, k):
    return tf.nn.softmax(tf.matmul(q, k, transpose_b=True))


def value_and_gradients(function, inputs, upstream):
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        value = function(*inputs)
    return value, *tape.gradient(value, inputs, upstream)


@pytest.fixture
def tensors(rng):
    return [tf.constant(rng.normal(size=(HEADS, N, SIZE)), tf.float32) for _ in range(4)]


@pytest.mark.parametrize("at_a_time", [1, 2 * N * N, 10**6])  # one head, two, all
@pytest.mark.parametrize("as_graph", [True, False])
def test_value_and_gradients_are_those_of_the_formula(at_a_time, as_graph, tensors):
    *inputs, upstream = tensors

    def blockwise(q, k, v):
        return attend(q, k, v, relations, scores_at_a_time=at_a_time)

    if as_graph:
        blockwise = tf.function(blockwise, input_signature=[tf.TensorSpec((None, None, SIZE))] * 3)
    found = value_and_gradients(blockwise, inputs, upstream)
    expected = value_and_gradients(lambda q, k, v: relations(q, k) @ v, inputs, upstream)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_gradients_are_those_of_the_relations_that_were_dropped(tensors):
    *inputs, upstream = tensors
    seed = tf.constant([3, 4])
    q, k, _ = inputs

    def blockwise(q, k, v):
        return attend(q, k, v, relations, 0.4, seed, scores_at_a_time=2 * N * N)

    # Values that pick the relation scores out one by one show which were dropped.
    eye = tf.eye(N, batch_shape=[HEADS])
    dropped = attend(q, k, eye, relations, 0.4, seed, scores_at_a_time=2 * N * N)
    kept = tf.cast(dropped > 0, tf.float32) * 65536 / (65536 - round(0.4 * 65536))
    found = value_and_gradients(blockwise, inputs, upstream)
    expected = value_and_gradients(lambda q, k, v: (relations(q, k) * kept) @ v, inputs, upstream)
    assert 0.2 < np.mean(np.asarray(dropped) == 0) < 0.6
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_dropout_drops_its_share_and_keeps_the_mean():
    ones = tf.ones((40, 50, 51))
    dropped = drop(ones, 0.1, tf.constant([1, 2])).numpy()
    scale = 65536 / (65536 - 6554)
    assert set(np.unique(dropped)) == {np.float32(0), np.float32(scale)}
    share = (dropped == 0).mean()
    assert abs(share - 0.1) < 4 * np.sqrt(0.09 / dropped.size)
    other = drop(ones, 0.1, tf.constant([1, 3])).numpy()
    assert abs(((other == 0) & (dropped == 0)).mean() - 0.01) < 1e-3  # independent


@pytest.mark.parametrize("training", [True, False])
def test_a_block_of_many_regions_equals_one_of_few(training, rng, monkeypatch):
    block = RegionContextBlock(num_heads=2, mask_zero_scores=True)
    x = tf.constant(rng.normal(size=(2, 4, 3, 8)), tf.float32)
    upstream = tf.constant(rng.normal(size=x.shape), tf.float32)
    block(x)
    whole = value_and_gradients(lambda x: block(x, training=training), [x], upstream)
    name = "RELATIONS_IN_TRAINING" if training else "RELATIONS"
    monkeypatch.setattr(ways_to_compute, name, 1)
    parts = value_and_gradients(lambda x: block(x, training=training), [x], upstream)
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_dropout_of_many_regions_differs_from_step_to_step(rng, monkeypatch):
    monkeypatch.setattr(ways_to_compute, "RELATIONS_IN_TRAINING", 1)
    block = RegionContextBlock(num_heads=2, attention_dropout=0.5)
    x = tf.constant(rng.normal(size=(2, 4, 3, 8)), tf.float32)
    step = tf.function(lambda: block(x, training=True))
    first, second = step(), step()
    assert np.abs(np.asarray(first - second)).max() > 1e-3
