"""Systems of one linear score a class, and their losses, against NumPy."""

import keras
import numpy as np
import pytest

from biam_tf.baselines.linear import warp_loss
from biam_tf.losses import binary_cross_entropy
from biam_tf.models.systems import build_system_head

pytestmark = pytest.mark.unit

CLASSES, SCENE = 5, 7


@pytest.fixture
def batch(rng):
    labels = rng.choice([1, -1, 0], size=(6, 9), p=[0.3, 0.5, 0.2]).astype("int8")
    labels[4], labels[5] = np.minimum(labels[4], 0), 0  # no present class, no known one
    return labels, rng.normal(scale=2, size=labels.shape).astype("float32")


def test_binary_cross_entropy_is_the_mean_over_labelled_classes(batch):
    labels, scores = batch
    probabilities = 1 / (1 + np.exp(-scores.astype("float64")))
    expected = []
    for own_labels, own in zip(labels, probabilities, strict=True):
        terms = [-np.log(p if y > 0 else 1 - p) for y, p in zip(own_labels, own, strict=True) if y]
        expected.append(np.mean(terms) if terms else 0.0)
    np.testing.assert_allclose(binary_cross_entropy(labels, scores), expected, rtol=1e-5)


def test_binary_cross_entropy_of_huge_logits_is_finite():
    losses = binary_cross_entropy(
        np.array([[1, -1], [1, -1]]), np.array([[1e4, -1e4], [-1e4, 1e4]])
    )
    np.testing.assert_allclose(losses, [0, 1e4])


def test_warp_weighs_the_violations_of_a_present_class_by_its_rank(batch):
    labels, scores = batch
    expected = np.zeros(len(labels))
    for i, (y, f) in enumerate(zip(labels, scores.astype("float64"), strict=True)):
        for p in np.flatnonzero(y > 0):
            hinges = np.maximum(0, 1 + f[y < 0] - f[p])
            rank = (hinges > 0).sum()
            if rank:
                # The expected step on one violating class, all of them equally likely.
                expected[i] += sum(1 / k for k in range(1, rank + 1)) * hinges.sum() / rank
    assert expected[4] == expected[5] == 0 < expected[:4].min()
    np.testing.assert_allclose(warp_loss(labels, scores), expected, rtol=1e-5)


@pytest.fixture
def score(rng):
    """Returns a function of a system's name to its weights, scenes and their scores."""
    embeddings = np.eye(CLASSES, dtype="float32")
    scene = rng.normal(size=(4, SCENE)).astype("float32")

    def score(name, **settings):
        keras.utils.set_random_seed(0)
        head = build_system_head(
            name, (2, 2, 3), SCENE, CLASSES, seen_embeddings=embeddings, **settings
        )
        regions = np.zeros((4, 2, 2, 3), "float32")
        weights = [weight.numpy() for weight in head.trainable_weights]
        return weights, scene, head([regions, scene, embeddings[::-1]], training=False)

    return score


@pytest.mark.parametrize("name", ["logistic", "warp"])
def test_a_class_has_a_linear_score(score, name):
    (kernel, bias), scene, scores = score(name)
    assert kernel.shape == (SCENE, CLASSES)
    np.testing.assert_allclose(scores, (scene @ kernel + bias)[:, ::-1], rtol=1e-5, atol=1e-6)


def test_wsabie_scores_by_the_product_of_image_and_class_in_one_space(score):
    (image, classes), scene, scores = score("wsabie", dimension=3)
    assert image.shape == (SCENE, 3) and classes.shape == (3, CLASSES)
    np.testing.assert_allclose(scores, (scene @ image @ classes)[:, ::-1], rtol=1e-4, atol=1e-6)
