"""Systems on the scene feature, against computations of their own."""

import numpy as np
import pytest
import tensorflow as tf

from biam_tf.baselines.fast0tag import principal_directions
from biam_tf.models.systems import SYSTEMS, build_system_head

pytestmark = [pytest.mark.unit, pytest.mark.rounding]

IMAGES, SCENE, EMBEDDING, SEEN, UNSEEN = 40, 9, 5, 6, 3


@pytest.fixture
def examples(rng):
    """Scene features, labels of seen classes with unknown ones, and embeddings of all classes."""
    scenes = np.abs(rng.normal(size=(IMAGES, SCENE))).astype("float32")
    labels = rng.choice([1, -1, 0], size=(IMAGES, SEEN), p=[0.3, 0.6, 0.1]).astype("int8")
    classes = rng.normal(size=(SEEN + UNSEEN, EMBEDDING)).astype("float32")
    return scenes, labels, classes


def head_of(name, classes, **settings):
    return build_system_head(
        name, (2, 2, 4), SCENE, EMBEDDING, seen_embeddings=classes[:SEEN], **settings
    )


def scores_of(head, scenes, classes):
    return head([np.zeros((len(scenes), 2, 2, 4)), scenes, classes], training=False)


def batches(scenes, labels):
    for begin in range(0, IMAGES, 16):
        part = slice(begin, begin + 16)
        yield {"scene_feature": tf.constant(scenes[part])}, tf.constant(labels[part])


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_eszsl_is_its_closed_form(examples):
    scenes, labels, classes = examples
    head, settings = head_of("eszsl", classes), SYSTEMS["eszsl"].settings(gamma=2.0, lam=0.5)
    SYSTEMS["eszsl"].fit(head, settings, batches(scenes, labels), classes[:SEEN])
    x, s = unit(scenes.astype(np.float64)), classes[:SEEN].astype(np.float64)
    y = (labels > 0) / np.sqrt((labels > 0).sum(axis=0))
    left = np.linalg.inv(x.T @ x + 2.0 * np.eye(SCENE))
    v = left @ x.T @ y @ s @ np.linalg.inv(s.T @ s + 0.5 * np.eye(EMBEDDING))
    np.testing.assert_allclose(scores_of(head, scenes, classes), x @ v @ classes.T, atol=1e-5)


def test_conse_is_the_cosine_with_the_mixture_of_the_most_probable_classes(examples):
    scenes, _, classes = examples
    head = head_of("conse", classes, mixed_classes=3)
    weights, bias = head.get_layer("seen_logits").get_weights()
    expected = []
    for scene in scenes.astype(np.float64):
        logits = scene @ weights + bias
        probabilities = np.exp(logits) / np.exp(logits).sum()
        best = np.argsort(-probabilities)[:3]
        mixture = (probabilities[best, None] * classes[best]).sum(0) / probabilities[best].sum()
        expected.append(unit(classes) @ unit(mixture))
    np.testing.assert_allclose(scores_of(head, scenes, classes), expected, atol=1e-5)
    alone = SYSTEMS["conse"].training_outputs(head)
    assert alone["logits"].shape == (None, SEEN)


@pytest.mark.integration
def test_principal_directions_are_the_optima_of_the_ranking_svms(examples):
    _, labels, classes = examples
    seen = classes[:SEEN].astype(np.float64)
    found = principal_directions(labels[:6], tf.constant(classes[:SEEN]), 0.5, 4000).numpy()

    def objective(w, row):
        positives, negatives = np.flatnonzero(row > 0), np.flatnonzero(row < 0)
        hinges = [max(0, 1 - w @ (seen[p] - seen[n])) for p in positives for n in negatives]
        return 0.25 * w @ w + (np.mean(hinges) if hinges else 0.0)

    for w, row in zip(found.astype(np.float64), labels[:6], strict=True):
        value, steps = objective(w, row), np.random.default_rng(1).normal(size=(300, EMBEDDING))
        around = [objective(w + size * unit(step), row) for step in steps for size in (0.05, 0.3)]
        assert min(around) > value - 2e-3  # convex: no lower nearby is none anywhere
    without = np.full((1, SEEN), -1, "int8")
    assert not principal_directions(without, tf.constant(classes[:SEEN]), 0.5, 5).numpy().any()


def test_linear_fast0tag_is_the_ridge_regression_onto_the_directions(examples):
    scenes, labels, classes = examples
    system = SYSTEMS["fast0tag_linear"]
    head, settings = head_of("fast0tag_linear", classes), system.settings(ridge=0.7, svm_steps=30)
    system.fit(head, settings, batches(scenes, labels), classes[:SEEN])
    directions = principal_directions(labels, tf.constant(classes[:SEEN]), 0.1, 30).numpy()
    x = np.concatenate([unit(scenes.astype(np.float64)), np.ones((IMAGES, 1))], axis=1)
    penalty = 0.7 * np.diag([1.0] * SCENE + [0.0])
    solution = np.linalg.inv(x.T @ x + penalty) @ x.T @ directions
    expected = x @ solution @ classes.T
    np.testing.assert_allclose(scores_of(head, scenes, classes), expected, rtol=1e-4, atol=1e-5)


def test_fast0tag_is_a_network_to_a_direction(examples):
    scenes, _, classes = examples
    head = head_of("fast0tag", classes, channels=(7, 4))
    x = scenes.astype(np.float64)
    for name in ("hidden_1", "hidden_2"):
        weights, bias = head.get_layer(name).get_weights()
        x = np.maximum(x @ weights + bias, 0)
    weights, bias = head.get_layer("direction").get_weights()
    expected = (x @ weights + bias) @ classes.T
    np.testing.assert_allclose(scores_of(head, scenes, classes), expected, rtol=1e-4, atol=1e-5)
