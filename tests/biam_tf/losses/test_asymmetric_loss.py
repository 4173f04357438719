import numpy as np
import pytest
import tensorflow as tf

from biam_tf.losses import asymmetric_loss, binary_cross_entropy

pytestmark = [pytest.mark.unit, pytest.mark.rounding]


def by_hand(labels, scores, gamma_positive, gamma_negative, clip):
    """One image, class by class, in float64."""
    total = 0.0
    for label, score in zip(labels, np.float64(scores), strict=True):
        p = 1 / (1 + np.exp(-score))
        if label > 0:
            total -= (1 - p) ** gamma_positive * np.log(p)
        elif label < 0:
            q = max(p - clip, 0)
            total -= q**gamma_negative * np.log(1 - q)
    return total


@pytest.mark.parametrize("settings", [(0.0, 4.0, 0.05), (1.0, 2.0, 0.05), (2.0, 1.0, 0.0)])
def test_each_class_costs_what_the_equation_says(rng, settings):
    labels = rng.choice([-1, 0, 1], size=(4, 9)).astype("int8")
    scores = rng.normal(0, 3, size=(4, 9)).astype("float32")
    expected = [by_hand(*rows, *settings) for rows in zip(labels, scores, strict=True)]
    np.testing.assert_allclose(asymmetric_loss(labels, scores, *settings), expected, rtol=1e-5)


def test_without_focusing_and_clip_it_is_the_binary_cross_entropy(rng):
    labels = rng.choice([-1, 1], size=(3, 5))
    scores = rng.normal(0, 4, size=(3, 5)).astype("float32")
    found = asymmetric_loss(labels, scores, 0.0, 0.0, 0.0)
    np.testing.assert_allclose(found, 5 * binary_cross_entropy(labels, scores), rtol=1e-4)


def test_extreme_scores_cost_a_finite_amount():
    labels, scores = np.array([[1, -1]]), np.array([[-500, 500]], "float32")
    # log p is exact for a present class; the probability of an absent one is at least 1e-8.
    expected = 500 - np.log(1e-8)
    np.testing.assert_allclose(
        asymmetric_loss(labels, scores, 0.0, 0.0, 0.0), [expected], rtol=1e-6
    )
    assert asymmetric_loss(labels, scores).dtype == "float32"


def test_focusing_is_a_constant_for_the_gradient_and_easy_absent_classes_have_none():
    scores = tf.Variable([[0.4, -4.0, 0.3, float("nan")]])
    labels = [[-1, -1, 1, 0]]
    with tf.GradientTape() as tape:
        loss = asymmetric_loss(labels, scores, 1.0, 4.0, 0.05)
    slopes = tape.gradient(loss, scores)[0]
    p = 1 / (1 + np.exp(-np.array([0.4, -4.0, 0.3])))
    q = p[0] - 0.05
    # d/ds of -log(1 - q) is p (1 - p) / (1 - q), of -log p it is -(1 - p).
    expected = [q**4 * p[0] * (1 - p[0]) / (1 - q), 0.0, -((1 - p[2]) ** 2), 0.0]
    np.testing.assert_allclose(slopes, expected, rtol=1e-5)
    assert np.isfinite(loss).all()


def test_an_image_without_labels_costs_nothing():
    assert asymmetric_loss(np.zeros((2, 3)), np.ones((2, 3), "float32")).numpy().tolist() == [0, 0]
