import keras
import numpy as np
import pytest
from small_systems import small_head

from biam_tf.baselines.query_systems import SDL
from biam_tf.baselines.sdl import make_losses, training_outputs
from biam_tf.errors import UserError

pytestmark = [pytest.mark.unit, pytest.mark.rounding]

GRID, CHANNELS, SCENE, EMBEDDING, SEEN, M = 2, 3, 4, 6, 5, 3


@pytest.fixture
def seen(rng):
    return rng.normal(size=(SEEN, EMBEDDING)).astype("float32")


@pytest.fixture
def head(seen):
    return small_head("sdl", (GRID, GRID, CHANNELS), SCENE, seen, vectors=M)


def inputs_of(rng, classes, photos=4):
    regions = rng.normal(size=(photos, GRID, GRID, CHANNELS)).astype("float32")
    return [regions, rng.normal(size=(photos, SCENE)).astype("float32"), classes]


def vectors_of(head, photo):
    W = head.get_layer("embedding_matrix").kernel.numpy().astype(np.float64)
    return (photo @ W).reshape(M, EMBEDDING)


def test_a_class_is_scored_by_the_vector_that_suits_it_best(head, rng):
    classes = rng.normal(size=(7, EMBEDDING)).astype("float32")
    inputs = inputs_of(rng, classes)
    scores, winners = head(inputs), set()
    for i, photo in enumerate(inputs[1]):
        products = vectors_of(head, photo) @ classes.T  # (M, C)
        np.testing.assert_allclose(scores[i], products.max(axis=0), rtol=1e-4, atol=1e-5)
        winners |= set(products.argmax(axis=0))
    assert len(winners) > 1


def total_variance(rows):
    return 0.0 if len(rows) < 2 else rows.var(axis=0, ddof=1).sum()


def test_the_loss_is_that_of_the_released_code_photo_by_photo(head, seen, rng):
    inputs = inputs_of(rng, seen)
    labels = np.array(
        [[1, -1, -1, 1, 1], [1, -1, 0, 0, -1], [1, 1, 1, 1, 1], [-1] * 5], dtype="int8"
    )
    outputs = keras.Model(head.inputs, training_outputs(head))(inputs)
    losses = make_losses(head, SDL.settings(regularization=0.2))(labels, outputs)
    for i, photo in enumerate(inputs[1]):
        vectors = vectors_of(head, photo)
        scores = (vectors @ seen.T).max(axis=0)
        pairs = [
            np.log1p(np.exp(scores[n] - scores[p]))
            for p in np.flatnonzero(labels[i] > 0)
            for n in np.flatnonzero(labels[i] < 0)
        ]
        ranking = sum(pairs) / max((labels[i] > 0).sum(), 1)
        diversity = 1 + total_variance(seen[labels[i] > 0].astype(np.float64))
        expected = 2 * (0.8 * diversity * ranking + 0.2 * total_variance(vectors))
        np.testing.assert_allclose(losses[i], expected, rtol=1e-4)


@pytest.mark.parametrize(("setting", "value"), [("vectors", 0), ("regularization", 1.0)])
def test_a_setting_that_cannot_be_is_refused_by_name(setting, value):
    with pytest.raises(UserError, match=f"{setting}: {value} is not valid; it must be at least"):
        SDL.settings(**{setting: value})
