import keras
import numpy as np
import pytest
import tensorflow as tf
from reference import softmax
from region_attention_reference import (
    CHANNELS,
    CLASSES,
    EMBEDDING,
    GRID,
    attention_of,
    dense,
    embedded_regions,
    random_head,
    random_inputs,
)

from biam_tf.baselines.lesa import (
    LESA,
    distribution_term,
    global_term,
    make_losses,
    span_term,
    training_outputs,
)
from biam_tf.errors import UserError
from biam_tf.losses import pairwise_ranking_loss
from biam_tf.models.head import with_response_maps
from training.reproduction.costs import count_operations

pytestmark = [pytest.mark.unit, pytest.mark.rounding]

D, T = 4, 3
SETTINGS = {"channels": D, "num_attentions": T}


@pytest.fixture
def head(rng):
    return random_head("lesa", rng, **SETTINGS)


@pytest.fixture
def labels(rng):
    labels = rng.choice([-1, 0, 1], size=(5, CLASSES)).astype("int8")
    labels[0] = -1  # a photo without a present class
    return labels


@pytest.fixture
def outputs(rng):
    """Outputs in training of five photos, unrelated to each other."""
    shapes = {
        "scores": (5, CLASSES),
        "mean_scores": (5, CLASSES),
        "attention_scores": (5, T, CLASSES),
        "attention_logits": (5, *GRID, T),
    }
    return {name: rng.normal(size=shape).astype("float32") for name, shape in shapes.items()}


def test_a_score_is_that_of_the_attention_that_suits_the_class_best(head, rng):
    inputs = random_inputs(rng)
    evidence = with_response_maps(head)(inputs)
    in_training = keras.Model(head.inputs, training_outputs(head))(inputs)
    w = dense(head, "class_weights", inputs[2])
    winners = set()
    for i, photo in enumerate(inputs[0]):
        f = embedded_regions(head, photo)
        logits = dense(head, "attention_logits", np.tanh(dense(head, "attention_hidden", f)))
        attention = attention_of(logits)
        by_attention = (attention @ f) @ w.T  # (T, C)
        expected = {
            "scores": by_attention.max(axis=0),
            "attention_scores": by_attention,
            "attention_logits": logits.reshape(*GRID, T),
            "mean_scores": f.mean(axis=0) @ w.T,
        }
        for name, values in expected.items():
            np.testing.assert_allclose(in_training[name][i], values, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(evidence["scores"][i], expected["scores"], rtol=1e-4)
        for c in range(CLASSES):
            winner = int(by_attention[:, c].argmax())
            winners.add(winner)
            terms = (attention[winner] * (f @ w[c])).reshape(GRID)
            found = evidence["response_maps"][i, ..., c]
            np.testing.assert_allclose(found, terms, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(tf.reduce_sum(found), evidence["scores"][i, c], rtol=1e-4)
    assert len(winners) > 1


def test_scores_cost_nothing_for_response_maps(head, rng):
    regions = GRID[0] * GRID[1]
    embedding = regions * 2 * 2 * CHANNELS * D
    attention = regions * (D * D + D * T)
    pooled = regions * T * D
    classes = T * D * CLASSES  # not regions * D * CLASSES, as for the maps
    embeddings = rng.normal(size=(CLASSES, EMBEDDING)).astype("float32")
    assert count_operations(head, embeddings) == 2 * (embedding + attention + pooled + classes)


def test_the_distribution_term_counts_what_each_attention_is_chosen_for(labels, outputs):
    scores = outputs["attention_scores"].astype(np.float64)
    expected = np.zeros(5)
    for i in range(5):
        used = np.zeros(T)
        for c in np.flatnonzero(labels[i] > 0):
            used += softmax(scores[i, :, c])
        expected[i] = (used**2).sum() / T
    found = distribution_term(labels, outputs["attention_scores"])
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert found.dtype == "float32" and found[0] == 0


def test_the_global_term_counts_what_the_mean_feature_tells_better(labels, outputs):
    expected = np.zeros(5)
    for i in range(5):
        for c in range(CLASSES):
            gain = float(outputs["scores"][i, c]) - float(outputs["mean_scores"][i, c])
            expected[i] += max(0.0, -labels[i, c] * gain)
    found = global_term(labels, outputs["scores"], outputs["mean_scores"])
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert found.dtype == "float32"


def cosines_norm(logits):
    """Of one photo's logits (h, w, T)."""
    total = 0.0
    for t in range(T):
        for u in range(T):
            a, b = logits[..., t].ravel(), logits[..., u].ravel()
            if t != u:
                total += (a @ b / np.linalg.norm(a) / np.linalg.norm(b)) ** 2
    return np.sqrt(total)


def test_the_span_term_is_the_norm_of_the_cosines_of_different_attentions(outputs):
    logits = outputs["attention_logits"]
    expected = [cosines_norm(photo.astype(np.float64)) for photo in logits]
    found = span_term(logits)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert found.dtype == "float32"


def test_attentions_without_overlap_cost_nothing_and_have_a_finite_slope():
    logits = np.zeros((1, 1, 4, 3), "float32")
    logits[0, 0, :3, :] = np.eye(3)
    with tf.GradientTape() as tape:
        variable = tf.Variable(logits)
        loss = tf.reduce_sum(span_term(variable) + span_term(variable[..., :1]))
    assert loss == 0
    assert np.isfinite(tape.gradient(loss, variable)).all()


def test_a_batch_of_32_costs_what_the_released_code_makes_of_it(labels, outputs, rng):
    photos = rng.integers(0, 5, 32)
    batch = {name: values[photos] for name, values in outputs.items()}
    # Its span term is a root over the batch, ours a mean of roots: the same for equal photos.
    batch["attention_logits"] = np.repeat(outputs["attention_logits"][:1], 32, axis=0)
    labels = labels[photos]
    ranking = pairwise_ranking_loss(labels, batch["scores"], mean_of_violations=True)
    terms = [
        np.mean(ranking),
        0.1 * np.mean(distribution_term(labels, batch["attention_scores"])),
        0.001 * np.sum(global_term(labels, batch["scores"], batch["mean_scores"])),
        0.01 * np.sqrt(np.sum(np.square(span_term(batch["attention_logits"])))),
    ]
    losses = make_losses(None, LESA.settings())(labels, batch)
    assert losses.shape == (32,)
    np.testing.assert_allclose(np.mean(losses), np.sum(terms), rtol=1e-5)
    without = LESA.settings(distribution_weight=0.0, global_weight=0.0, span_weight=0.0)
    np.testing.assert_array_equal(make_losses(None, without)(labels, batch), ranking)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("num_attentions", 0), ("global_weight", -1.0), ("batch_norm_momentum", 1.0)],
)
def test_a_setting_that_cannot_be_is_refused_by_name(setting, value):
    with pytest.raises(UserError, match=f"{setting}: {value} is not valid; it must be at least"):
        LESA.settings(**{setting: value})
