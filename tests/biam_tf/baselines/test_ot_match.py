import keras
import numpy as np
import pytest
import tensorflow as tf
from query_decoder_reference import dense
from reference import relu, softmax
from small_systems import small_head

from biam_tf.baselines.image_text_systems import OT_MATCH
from biam_tf.baselines.ot_match import make_losses, training_outputs
from biam_tf.errors import UserError
from biam_tf.models.head import with_response_maps

pytestmark = [pytest.mark.unit, pytest.mark.rounding]

GRID, CHANNELS, SCENE, EMBEDDING, SEEN = (2, 3), 5, 4, 6, 5
SCALE, COST, TEMPERATURE, REGULARIZATION = 7.0, 3.0, 0.2, 0.3


@pytest.fixture
def seen(rng):
    return rng.normal(size=(SEEN, EMBEDDING)).astype("float32")


@pytest.fixture
def head(seen):
    return small_head(
        "ot_match",
        (*GRID, CHANNELS),
        SCENE,
        seen,
        channels=8,
        scale=SCALE,
        cost_scale=COST,
        weight_temperature=TEMPERATURE,
        regularization=REGULARIZATION,
        iterations=60,
    )


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def sinkhorn(u, v, cost):
    """The plan by scaling rows and columns, as plain as can be, until it does not change."""
    kernel = np.exp(-cost / REGULARIZATION)
    columns = np.ones(len(v))
    for _ in range(2000):
        rows = u / (kernel @ columns)
        columns = v / (kernel.T @ rows)
    return rows[:, None] * kernel * columns


def directions(head, photo, scene):
    mapped = []
    for name, x in (("region", photo.reshape(-1, CHANNELS)), ("scene", scene)):
        hidden = relu(dense(head.get_layer(f"{name}_hidden"), x))
        mapped.append(unit(dense(head.get_layer(f"{name}_vectors"), hidden)))
    return mapped


def test_seen_classes_get_the_plan_and_the_score_of_the_method(head, seen, rng):
    inputs = [
        rng.normal(size=(2, *GRID, CHANNELS)).astype("float32"),
        rng.normal(size=(2, SCENE)).astype("float32"),
        seen,
    ]
    outputs = with_response_maps(head)(inputs)
    in_training = keras.Model(head.inputs, training_outputs(head))(inputs)
    for i in range(2):
        f, g = directions(head, inputs[0][i], inputs[1][i])
        x = f @ unit(seen.astype(np.float64)).T  # (n, S)
        u = softmax(x.max(axis=1) / TEMPERATURE)
        v = np.full(SEEN, 1 / SEEN)
        plan = sinkhorn(u, v, 1 - softmax(COST * x))
        np.testing.assert_allclose(plan.sum(axis=1), u, rtol=1e-6)
        local = SCALE * SEEN * (plan * x).sum(axis=0)
        whole = SCALE * unit(seen.astype(np.float64)) @ g
        np.testing.assert_allclose(in_training["local_scores"][i], local, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(in_training["global_scores"][i], whole, rtol=1e-4, atol=1e-4)
        expected = np.log((softmax(local) + softmax(whole)) / 2)
        np.testing.assert_allclose(outputs["scores"][i], expected, rtol=1e-3, atol=1e-3)
        maps = SCALE * SEEN * (plan * x).reshape(*GRID, SEEN)
        np.testing.assert_allclose(outputs["response_maps"][i], maps, rtol=1e-3, atol=1e-4)


def test_a_class_that_suits_better_than_all_seen_ones_costs_nothing_less(head, seen, rng):
    photo = rng.normal(size=(1, *GRID, CHANNELS)).astype("float32")
    f, _ = directions(head, photo, np.ones(SCENE))
    inputs = [photo, np.ones((1, SCENE), "float32"), f.astype("float32")]  # a class per region
    scores = head(inputs).numpy()
    assert np.isfinite(scores).all() and (scores.max() > head([*inputs[:2], seen]).numpy().max())


def test_the_loss_is_one_softmax_over_all_pairs_of_the_batch(rng):
    labels = rng.choice([-1, 0, 1], size=(4, 6))
    labels[2] = -1
    outputs = {
        f"{part}_scores": rng.normal(size=(4, 6)).astype("float32") for part in ("local", "global")
    }
    losses = make_losses(None, OT_MATCH.settings())(labels, outputs)
    expected = 0.0
    for scores in outputs.values():
        known, present = scores[labels != 0].astype(np.float64), labels[labels != 0] > 0
        expected -= np.log(softmax(known))[present].mean()
    np.testing.assert_allclose(tf.reduce_mean(losses), expected, rtol=1e-5)
    assert losses.shape == (4,) and losses[2] == 0
    nothing = make_losses(None, OT_MATCH.settings())(
        np.full((2, 6), -1), {name: scores[:2] for name, scores in outputs.items()}
    )
    assert nothing.numpy().tolist() == [0, 0]


@pytest.mark.parametrize(
    ("setting", "value"), [("iterations", 0), ("regularization", 0.0), ("scale", -1.0)]
)
def test_a_setting_that_cannot_be_is_refused_by_name(setting, value):
    with pytest.raises(UserError, match=f"{setting}: {value} is not valid; it must be "):
        OT_MATCH.settings(**{setting: value})
