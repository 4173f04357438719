"""Layers that compute in float32 under any policy, and inputs that 16 bits do not hold."""

import numpy as np
import pytest
import tensorflow as tf
from processor import MIXED_BFLOAT16

from biam_tf.baselines.attention_per_cluster import NearestCluster
from biam_tf.baselines.known_classes import KnownClasses
from biam_tf.layers import CosineRegionClassifier, TopKRegionScores

pytestmark = pytest.mark.unit

MAPS = (2, 5, 4, 3)


def anchored(rng):
    """Class embeddings whose differences from the center are lost in 16 bits."""
    center = [1000.0] * 6
    classes = (1000 + rng.normal(size=(3, 6))).astype("float32")
    anchors = (1000 + rng.normal(size=(2, 6))).astype("float32")
    make = lambda **k: CosineRegionClassifier(center=center, anchors=anchors, **k)  # noqa: E731
    return make, [rng.normal(size=(2, 5, 4, 8)).astype("float32"), classes]


def scored_anchored(rng):
    make, inputs = anchored(rng)
    return lambda **k: TopKRegionScores(make(**k), 3), inputs


def clusters_side_by_side(rng):
    centroids = np.array([[1000.0, 0], [1000.2, 0], [1000.4, 0]], "float32")
    classes = np.array([[1000.19, 0], [1000.41, 0], [999.9, 0]], "float32")
    return lambda **k: NearestCluster(centroids, **k), [rng.normal(size=MAPS), classes]


def learned_side_by_side(rng):
    learned = np.array([[1e6, 0.0], [0.0, 1e6], [1e6, 1e6]], "float32")
    return lambda **k: KnownClasses(learned, **k), [rng.normal(size=(2, 3)), learned[[2, 0]]]


@pytest.mark.rounding
@pytest.mark.parametrize("precision", ["mixed_float16", MIXED_BFLOAT16])
@pytest.mark.parametrize(
    "make_case", [anchored, scored_anchored, clusters_side_by_side, learned_side_by_side]
)
def test_what_is_promised_in_float32_loses_no_digit_of_its_inputs(make_case, precision, rng):
    make, inputs = make_case(rng)
    rounded = np.asarray(tf.cast(inputs[1], precision.removeprefix("mixed_")))
    assert not np.array_equal(rounded.astype("float32"), inputs[1])
    half, whole = np.asarray(make(dtype=precision)(inputs), "float32"), np.asarray(make()(inputs))
    np.testing.assert_allclose(half, whole, rtol=0.02, atol=0.02 * np.abs(whole).max())
