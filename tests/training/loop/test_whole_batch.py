"""Several devices and batches in parts make the step of the undivided batch, for every loss."""

import keras
import numpy as np
import pytest
import steps_on_devices
import tensorflow as tf
import warm_processes
from small_systems import SMALL
from steps_on_devices import BATCH, CLASSES, DEVICES, FEATURES, OBJECTIVES, PARTS

from biam_tf.losses import softmax_over_images
from biam_tf.models import bind_vocabulary
from biam_tf.models.systems import SYSTEMS, build_system_head
from training.config import (
    HeadConfig,
    LossConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainingConfig,
)
from training.loop.objective import Objective, make_objective, training_model
from training.loop.train_step import TrainStep

pytestmark = pytest.mark.rounding


@pytest.fixture(scope="module")
def steps(tmp_path_factory) -> dict[str, np.ndarray]:
    """Loss and gradient of each step of `steps_on_devices`."""
    path = tmp_path_factory.mktemp("steps") / "steps.npz"
    warm_processes.run("steps_on_devices", path)
    with np.load(path) as arrays:
        return dict(arrays)


@pytest.mark.slow
@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_division_of_a_batch_gives_its_loss_and_its_gradient(steps, name):
    inputs, labels, weights = (array.astype(np.float64) for array in steps_on_devices.examples())
    loss, slopes = REFERENCES[name](labels, inputs @ weights)
    for devices in DEVICES:
        for parts in PARTS:
            case = f"{name}/{devices}/{parts}"
            np.testing.assert_allclose(steps[f"{case}/loss"], loss, rtol=1e-5, err_msg=case)
            np.testing.assert_allclose(
                steps[f"{case}/gradient"], inputs.T @ slopes, rtol=1e-5, atol=1e-5, err_msg=case
            )


@pytest.mark.slow
@pytest.mark.parametrize("devices", DEVICES)
def test_the_keras_loss_is_the_mean_over_the_images_of_all_devices(steps, devices):
    inputs, labels, weights = (array.astype(np.float64) for array in steps_on_devices.examples())
    loss, slopes = ranking_mean(labels, inputs @ weights)
    scale = BATCH / (labels > 0).any(axis=1).sum()  # it leaves out images without a present class
    assert scale == BATCH / (BATCH - 1)
    np.testing.assert_allclose(steps[f"keras/{devices}/loss"], scale * loss, rtol=1e-5)
    np.testing.assert_allclose(steps[f"keras/{devices}/slopes"], scale * slopes, atol=1e-6)


# The losses of a batch and their derivatives by the scores, from the equations, in NumPy.


def pairs(labels, scores):
    """(image, present class, absent class, difference of their scores) of all pairs."""
    for i, row in enumerate(labels):
        for p in np.flatnonzero(row > 0):
            for n in np.flatnonzero(row < 0):
                yield i, p, n, scores[i, n] - scores[i, p]


def ranking(labels, scores, divisor_of_image):
    loss, slopes = 0.0, np.zeros_like(scores)
    for i, p, n, difference in pairs(labels, scores):
        if difference + 1 > 0:
            weight = divisor_of_image(i, p)
            loss += weight * (difference + 1)
            slopes[i, n] += weight
            slopes[i, p] -= weight
    return loss, slopes


def violated(labels, scores):
    """Numbers (images, classes) of violated pairs of each present class."""
    counts = np.zeros(scores.shape)
    for i, p, _, difference in pairs(labels, scores):
        counts[i, p] += difference + 1 > 0
    return counts


def ranking_mean(labels, scores):
    counts = violated(labels, scores).sum(axis=1)
    loss, slopes = ranking(labels, scores, lambda i, p: 1 / counts[i])
    return loss / BATCH, slopes / BATCH


def weighted_ranking(labels, scores):
    counts = violated(labels, scores).astype(int)
    harmonic = np.r_[0, np.cumsum(1 / np.arange(1, CLASSES + 1))]

    def weight(i, p):
        return harmonic[counts[i, p]] / counts[i, p] / (labels[i] > 0).sum()

    loss, slopes = ranking(labels, scores, weight)
    return loss / BATCH, slopes / BATCH


def ranknet(labels, scores):
    loss, slopes = 0.0, np.zeros_like(scores)
    for i, p, n, difference in pairs(labels, scores):
        weight = 1 / ((labels[i] > 0).sum() * (labels[i] < 0).sum() * BATCH)
        loss += weight * np.log1p(np.exp(difference))
        slopes[i, n] += weight / (1 + np.exp(-difference))
        slopes[i, p] -= weight / (1 + np.exp(-difference))
    return loss, slopes


def binary_cross_entropy(labels, scores):
    labelled = (labels != 0).sum(axis=1, keepdims=True)
    losses = np.where(labels != 0, np.log1p(np.exp(-labels * scores)), 0) / labelled
    slopes = -labels / (1 + np.exp(labels * scores)) / labelled
    return losses.sum() / BATCH, slopes / BATCH


def softmax(labels, scores, over_images):
    present, known = labels > 0, labels != 0
    shares = present / np.maximum(present.sum(axis=1, keepdims=True), 1)
    exponentials = np.where(known, np.exp(scores), 0)
    over_classes = exponentials / exponentials.sum(axis=1, keepdims=True)
    over_batch = exponentials / exponentials.sum(axis=0)
    loss, slopes = 0.0, np.zeros_like(scores)
    for i, p in zip(*np.nonzero(present), strict=True):
        share = shares[i, p]
        loss -= share * (np.log(over_classes[i, p]) + over_images * np.log(over_batch[i, p]))
        slopes[i, p] -= share * (1 + over_images)
        slopes[i] += share * over_classes[i]
        slopes[:, p] += share * over_images * over_batch[:, p]
    return loss / BATCH, slopes / BATCH


REFERENCES = {
    "ranking_sum": lambda labels, scores: ranking(labels, scores, lambda i, p: 1.0),
    "ranking_mean": ranking_mean,
    "softmax_over_classes": lambda labels, scores: softmax(labels, scores, 0.0),
    "softmax": lambda labels, scores: softmax(labels, scores, 0.5),
    "binary_cross_entropy": binary_cross_entropy,
    "ranknet": ranknet,
    "weighted_ranking": weighted_ranking,
}


@pytest.mark.parametrize("over_images", [0.0, 0.5])
def test_parts_repeat_the_dropout_of_their_first_pass_and_count_once_in_the_statistics(
    rng, over_images
):
    inputs = rng.normal(size=(BATCH, FEATURES)).astype("float32")
    labels = rng.choice([1, -1], size=(BATCH, CLASSES)).astype("int8")
    layers = [
        keras.layers.BatchNormalization(momentum=0.5),
        keras.layers.Dropout(0.5, seed=3),
        keras.layers.Dense(CLASSES, use_bias=False),
    ]
    model = keras.Sequential([keras.Input((FEATURES,)), *layers])
    norm, dropout, dense = layers
    first_seed, before = dropout.seed_generator.state.numpy(), dense.kernel.numpy()
    settings = TrainingConfig(
        batch_size=BATCH,
        accumulation_steps=2,
        optimizer=OptimizerConfig(name="sgd", learning_rate=1.0),
        schedule=ScheduleConfig(warmup_epochs=0, decay="constant"),
    )
    objective = Objective.of_loss(LossConfig(name="softmax", over_images=over_images))
    step = TrainStep(settings, tf.distribute.get_strategy(), model, objective, 1)
    parts = list(zip(np.split(inputs, 2), np.split(labels, 2), strict=True))
    loss = step(((tf.constant(a), tf.constant(b)) for a, b in parts), False).loss

    means = [part.mean(axis=0) for part, _ in parts]
    np.testing.assert_allclose(
        norm.moving_mean.numpy(), 0.25 * means[0] + 0.5 * means[1], rtol=1e-5, atol=1e-6
    )
    last_seed = dropout.seed_generator.state.numpy()
    dropout.seed_generator.state.assign(first_seed)
    hidden = []
    for part, _ in parts:
        normal = (part - part.mean(axis=0)) / np.sqrt(part.var(axis=0) + norm.epsilon)
        hidden.append(dropout(tf.constant(normal), training=True).numpy())
    np.testing.assert_array_equal(dropout.seed_generator.state.numpy(), last_seed)
    x = np.concatenate(hidden).astype(np.float64)
    expected, slopes = softmax(labels.astype(np.float64), x @ before, over_images)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(before - dense.kernel.numpy(), x.T @ slopes, rtol=1e-4, atol=1e-6)


def test_a_scaled_loss_in_two_passes_gives_the_same_step(rng):
    inputs = tf.constant(rng.normal(size=(BATCH, FEATURES)), tf.float32)
    labels = tf.constant(rng.choice([1, -1], size=(BATCH, CLASSES)), tf.int8)
    objective = Objective.of_loss(LossConfig(name="softmax"))
    changes = []
    for parts, precision in ((1, "float32"), (2, "mixed_float16")):
        dense = keras.layers.Dense(CLASSES, use_bias=False, kernel_initializer="zeros")
        settings = TrainingConfig(
            batch_size=BATCH,
            accumulation_steps=parts,
            precision=precision,
            optimizer=OptimizerConfig(name="sgd", learning_rate=1.0),
            schedule=ScheduleConfig(warmup_epochs=0, decay="constant"),
        )
        model = keras.Sequential([keras.Input((FEATURES,)), dense])
        step = TrainStep(settings, tf.distribute.get_strategy(), model, objective, 1)
        step(zip(tf.split(inputs, parts), tf.split(labels, parts), strict=True), False)
        changes.append(dense.kernel.numpy())
    assert np.abs(changes[0]).max() > 0.01
    np.testing.assert_allclose(changes[1], changes[0], rtol=1e-4, atol=1e-6)


OBJECTIVES_OF_HEADS = {
    "ranking": ("biam", LossConfig(name="ranking")),
    "softmax": ("biam", LossConfig(name="softmax")),
    "softmax_over_classes": ("biam", LossConfig(name="softmax", over_images=0.0)),
    **{name: (name, LossConfig()) for name in SYSTEMS if SYSTEMS[name].make_losses is not None},
}


@pytest.mark.parametrize("name", OBJECTIVES_OF_HEADS)
def test_an_objective_says_whether_it_compares_the_images_of_a_batch(name, rng):
    system, loss = OBJECTIVES_OF_HEADS[name]
    embeddings = np.eye(5, dtype="float32")
    sizes = SMALL.get(system, {})
    config = HeadConfig(system, SYSTEMS[system].settings(**sizes))
    head = build_system_head(system, (2, 2, 8), 8, 5, seen_embeddings=embeddings, **sizes)
    objective = make_objective(head, config, loss)
    model = bind_vocabulary(training_model(head, config), embeddings)
    features = {
        "region_features": rng.random((4, 2, 2, 8)).astype("float32"),
        "scene_feature": rng.random((4, 8)).astype("float32"),
    }
    labels = tf.constant(rng.choice([1, -1], size=(4, 5)), tf.int8)
    outputs = model(features, training=False)
    outputs = outputs if isinstance(outputs, dict) else {"scores": outputs}
    whole = objective.losses(labels, outputs).numpy()
    halves = np.concatenate(
        [
            objective.losses(labels[own], {key: value[own] for key, value in outputs.items()})
            for own in (slice(0, 2), slice(2, 4))
        ]
    )
    assert objective.compares_images == (not np.allclose(whole, halves, rtol=1e-4))
    assert objective.compares_images == (name in ("softmax", "ot_match"))


def test_a_softmax_over_the_images_of_half_a_batch_is_another_loss(rng):
    labels = rng.choice([1, -1], size=(BATCH, CLASSES))
    scores = rng.normal(size=(BATCH, CLASSES)).astype("float32")
    halves = [softmax_over_images(labels[own], scores[own]) for own in (slice(0, 4), slice(4, 8))]
    whole = softmax_over_images(labels, scores).numpy().sum()
    assert np.concatenate(halves).sum() < 0.8 * whole
