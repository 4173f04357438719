"""Steps of a linear model, against the same steps in NumPy."""

import dataclasses
import gc

import keras
import numpy as np
import pytest
import tensorflow as tf

from biam_tf.losses import pairwise_ranking_loss
from training.config import LossConfig, OptimizerConfig, ScheduleConfig, TrainingConfig
from training.loop import optimizer
from training.loop.objective import Objective
from training.loop.train_step import TrainStep

pytestmark = pytest.mark.rounding

FEATURES, CLASSES, BATCH, STEPS = 5, 6, 8, 4
PLAIN = TrainingConfig(
    epochs=1,
    batch_size=BATCH,
    optimizer=OptimizerConfig(name="sgd", learning_rate=0.02),
    schedule=ScheduleConfig(warmup_epochs=0, decay="constant"),
    loss=LossConfig(reduction="sum"),
)


@pytest.fixture
def batches(rng):
    inputs = rng.normal(size=(STEPS, BATCH, FEATURES)).astype("float32")
    labels = rng.choice([1, -1, 0], size=(STEPS, BATCH, CLASSES), p=[0.4, 0.5, 0.1])
    return list(zip(inputs, labels.astype("int8"), strict=True))


def linear_model() -> keras.Model:
    dense = keras.layers.Dense(CLASSES, use_bias=False, kernel_initializer="zeros")
    return keras.Sequential([keras.Input((FEATURES,)), dense])


def trained(batches, model=None, parts=1, **changes):
    """Weights after each step, and the step itself."""
    settings = dataclasses.replace(PLAIN, accumulation_steps=parts, **changes)
    model = model or linear_model()
    slowed = model.layers[0].trainable_variables if len(model.layers) > 1 else []
    objective = Objective.of_loss(settings.loss)
    strategy = tf.distribute.get_strategy()
    step = TrainStep(settings, strategy, model, objective, STEPS, slowed, 0.1)
    weights, losses = [], []
    for inputs, labels in batches:
        pieces = zip(np.split(inputs, parts), np.split(labels, parts), strict=True)
        losses.append(step(((tf.constant(a), tf.constant(b)) for a, b in pieces), False).loss)
        weights.append([v.numpy() for v in model.trainable_variables])
    return weights, losses, step


def gradient(weights, inputs, labels):
    """Of the sum over images and (positive, negative) pairs, one pair at a time."""
    result, loss = np.zeros_like(weights, dtype="float64"), 0.0
    for x, y in zip(inputs.astype("float64"), labels, strict=True):
        scores = x @ weights
        for p in np.flatnonzero(y > 0):
            for n in np.flatnonzero(y < 0):
                hinge = scores[n] - scores[p] + 1
                if hinge > 0:
                    loss += hinge
                    result[:, n] += x
                    result[:, p] -= x
    return result, loss


def test_the_constraint_of_a_weight_holds_after_every_step(batches):
    bound, model = 0.05, linear_model()
    model.layers[0].kernel.constraint = keras.constraints.MaxNorm(bound, axis=0)
    held, free = trained(batches, model)[0], trained(batches)[0]
    shrunk = np.minimum(1, bound / np.linalg.norm(free[0][0], axis=0))
    assert shrunk.min() < 1
    np.testing.assert_allclose(held[0][0], free[0][0] * shrunk, rtol=1e-4)
    assert np.linalg.norm([step[0] for step in held], axis=1).max() <= bound * (1 + 1e-6)


@pytest.mark.parametrize("clip_norm", [None, 3.0])
def test_a_step_is_gradient_descent_clipped_by_the_norm_of_the_whole_gradient(batches, clip_norm):
    found, losses, _ = trained(batches, clip_norm=clip_norm)
    weights = np.zeros((FEATURES, CLASSES))
    for (inputs, labels), now, loss in zip(batches, found, losses, strict=True):
        slope, expected_loss = gradient(weights, inputs, labels)
        norm = np.sqrt((slope**2).sum())
        assert norm > 3.0  # so that there is something to clip
        weights -= 0.02 * slope * (1 if clip_norm is None else clip_norm / norm)
        np.testing.assert_allclose(now[0], weights, rtol=1e-5, atol=1e-6)
        assert loss == pytest.approx(expected_loss, rel=1e-5)


@pytest.mark.parametrize("reduction", ["sum", "mean_of_violations"])
def test_a_batch_in_parts_makes_the_step_of_the_undivided_batch(batches, reduction):
    changes = {"loss": LossConfig(reduction=reduction), "clip_norm": 0.5, "ema_momentum": 0.5}
    whole, whole_losses, _ = trained(batches, **changes)
    parts, parts_losses, step = trained(batches, parts=4, **changes)
    np.testing.assert_allclose(parts, whole, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(parts_losses, whole_losses, rtol=1e-6)
    assert int(step.optimizer.iterations) == STEPS


def graphs_of_steps():
    """How many graphs of steps are in memory; each holds the weights and what the optimizer has."""
    gc.collect()
    return sum(
        type(o).__name__ == "FuncGraph" and o.name.startswith("_finish") for o in gc.get_objects()
    )


def test_a_training_that_is_over_leaves_nothing_in_memory(batches):
    before = graphs_of_steps()
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])  # as a run on one device
    with strategy.scope():
        step = trained(batches)[2]
    assert graphs_of_steps() > before
    del step
    assert graphs_of_steps() == before


@pytest.mark.parametrize("momentum", [0.5, 0.9999])
def test_averages_weigh_each_step_by_a_power_of_the_momentum(batches, momentum):
    weights, _, step = trained(batches, ema_momentum=momentum)
    powers = momentum ** np.arange(STEPS)[::-1]
    expected = np.average([w[0] for w in weights], axis=0, weights=powers)
    np.testing.assert_allclose(
        next(iter(step.averages.variables.values())).numpy(), expected, rtol=1e-5
    )


def test_averages_of_batch_normalization_follow_its_statistics_and_stand_in_for_a_while(batches):
    normalized = keras.Sequential(
        [
            keras.Input((FEATURES,)),
            keras.layers.BatchNormalization(momentum=0.5),
            keras.layers.Dense(CLASSES),
        ]
    )
    _, _, step = trained(batches, normalized, ema_momentum=0.9)
    before = normalized.get_weights()
    assert len(step.averages.variables) == len(before) == 6
    with step.averages.in_place():
        for raw, averaged in zip(before, normalized.get_weights(), strict=True):
            assert not np.array_equal(raw, averaged)
    for raw, again in zip(before, normalized.get_weights(), strict=True):
        np.testing.assert_array_equal(raw, again)


def test_the_backbone_learns_at_a_rate_of_its_own(batches):
    dense = [keras.layers.Dense(n, use_bias=False) for n in (FEATURES, CLASSES)]
    model = keras.Sequential([keras.Input((FEATURES,)), *dense])
    start = [v.numpy() for v in model.trainable_variables]
    with tf.GradientTape() as tape:
        inputs, labels = batches[0]
        loss = tf.reduce_sum(pairwise_ranking_loss(labels, model(inputs)))
    slopes = tape.gradient(loss, [v.value for v in model.trainable_variables])
    (now,), _, _ = trained(batches[:1], model)
    for before, slope, after, scale in zip(start, slopes, now, (0.1, 1.0), strict=True):
        np.testing.assert_allclose(after, before - 0.02 * scale * slope, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_adam_and_adamw_are_those_of_keras(batches, name):
    chosen = OptimizerConfig(name=name, learning_rate=0.1, weight_decay=0.2, beta_1=0.5)
    found, _, _ = trained(batches, optimizer=chosen)
    weights = keras.Variable(np.zeros((FEATURES, CLASSES), "float32"))
    optimizer = keras.optimizers.Adam(0.1, beta_1=0.5)
    if name == "adamw":
        optimizer = keras.optimizers.AdamW(0.1, weight_decay=0.2, beta_1=0.5)
    for inputs, labels in batches:
        slope = gradient(weights.numpy(), inputs, labels)[0]
        if name == "adam":
            slope += 0.2 * weights.numpy()
        optimizer.apply([tf.constant(slope, tf.float32)], [weights])
    np.testing.assert_allclose(found[-1][0], weights.numpy(), rtol=1e-4, atol=1e-6)


def test_scaled_loss_gives_the_same_steps_in_parts_and_clipped(batches):
    expected, _, _ = trained(batches, clip_norm=3.0)
    found, _, step = trained(batches, parts=2, clip_norm=3.0, precision="mixed_float16")
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert [float(v) for v in list(step.variables.values())[-2:]] == [
        optimizer.INITIAL_LOSS_SCALE,
        STEPS,
    ]


def test_a_step_that_overflows_is_left_out_and_halves_the_scale(batches, monkeypatch):
    monkeypatch.setattr(optimizer, "STEPS_UNTIL_LOSS_SCALE_GROWS", STEPS)
    _, _, step = trained(batches, ema_momentum=0.5, precision="mixed_float16")
    scale, good_steps = step._loss_scale.variables.values()
    assert float(scale) == 2 * optimizer.INITIAL_LOSS_SCALE and int(good_steps) == 0  # grown
    scale.assign(3e38)

    def everything_else():
        state = [*step.optimizer.variables.values(), *step.averages.variables.values()]
        return [keras.ops.convert_to_numpy(v) for v in [*state, *step._model.trainable_variables]]

    before = everything_else()
    inputs, labels = batches[0]
    step(iter([(tf.constant(inputs), tf.constant(labels))]), False)
    for a, b in zip(before, everything_else(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert float(scale) == pytest.approx(1.5e38)


def with_biases() -> keras.Model:
    """A model with a matrix, a bias, and the scale and offset of a normalization."""
    return keras.Sequential([keras.Input((FEATURES,)), dense(), keras.layers.BatchNormalization()])


def dense() -> keras.layers.Layer:
    return keras.layers.Dense(CLASSES, kernel_initializer="ones", bias_initializer="ones")


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("decay_vectors", [False, True])
def test_only_matrices_decay_unless_vectors_are_to_decay_too(name, decay_vectors):
    model, decay = with_biases(), 0.2
    chosen = OptimizerConfig(
        name=name, learning_rate=0.1, weight_decay=decay, decay_vectors=decay_vectors
    )
    # Without a pair of classes there is no loss: only decay changes a weight.
    nothing = [(np.ones((BATCH, FEATURES), "float32"), np.zeros((BATCH, CLASSES), "int8"))]
    before = [v.numpy() for v in model.trainable_variables]
    (after,), _, _ = trained(nothing, model, optimizer=chosen)
    own_rate = {id(v) for v in model.layers[0].trainable_variables}  # a tenth, see `trained`
    for variable, old, new in zip(model.trainable_variables, before, after, strict=True):
        rate = 0.01 if id(variable) in own_rate else 0.1
        # Adam divides the gradient, which is the decay alone, by its own size.
        change = rate * np.sign(old) if name == "adam" else rate * decay * old
        expected = old - change if decay_vectors or old.ndim > 1 else old
        np.testing.assert_allclose(new, expected, rtol=1e-5, err_msg=variable.path)


def test_adamw_is_that_of_keras_with_vectors_excluded(batches):
    chosen = OptimizerConfig(name="adamw", learning_rate=0.1, weight_decay=0.2, beta_1=0.5)
    model, twin = (keras.Sequential([keras.Input((FEATURES,)), dense()]) for _ in range(2))
    found, _, _ = trained(batches, model, optimizer=chosen)
    optimizer = keras.optimizers.AdamW(0.1, weight_decay=0.2, beta_1=0.5)
    optimizer.exclude_from_weight_decay(var_list=[twin.layers[0].bias])
    for a, b in zip(found[-1], keras_steps(twin, optimizer, batches), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def keras_steps(model, optimizer, batches):
    """The weights after steps of an optimizer of Keras."""
    for inputs, labels in batches:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(pairwise_ranking_loss(labels, model(inputs, training=True)))
        weights = model.trainable_variables
        optimizer.apply(tape.gradient(loss, [w.value for w in weights]), weights)
    return [v.numpy() for v in model.trainable_variables]


@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum_is_that_of_keras(batches, nesterov):
    chosen = OptimizerConfig(name="sgd", learning_rate=0.02, momentum=0.9, nesterov=nesterov)
    found, _, step = trained(batches, optimizer=chosen)
    optimizer = keras.optimizers.SGD(0.02, momentum=0.9, nesterov=nesterov)
    expected = keras_steps(linear_model(), optimizer, batches)
    np.testing.assert_allclose(found[-1][0], expected[0], rtol=1e-5, atol=1e-6)
    plain, _, _ = trained(batches)
    assert np.abs(found[-1][0] - plain[-1][0]).max() > 0.1
    assert "optimizer/momentum/" in " ".join(step.variables)  # kept in checkpoints


def test_the_rate_of_a_step_is_that_of_the_schedule_at_this_step(batches):
    schedule = ScheduleConfig(warmup_epochs=0.5, decay="cosine")
    _, _, step = trained(batches[:1], schedule=schedule)
    # Half of 4 steps are the warm-up: the first has half of the peak.
    assert step.last_learning_rate == pytest.approx(0.01)
    inputs, labels = batches[1]
    result = step(iter([(tf.constant(inputs), tf.constant(labels))]), False)
    assert result.learning_rate == step.last_learning_rate == pytest.approx(0.02)
