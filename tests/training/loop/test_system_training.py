"""Every system learns what its training examples show."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_systems import SMALL

from biam_tf.models import bind_vocabulary
from biam_tf.models.systems import SYSTEMS, build_system_head
from training.config import HeadConfig, LossConfig, OptimizerConfig, ScheduleConfig, TrainingConfig
from training.loop.objective import make_objective, prepare_head, training_model
from training.loop.train_step import TrainStep

IMAGES, GRID, CHANNELS, CLASSES = 16, 3, 12, 5
STEPS = 30


@pytest.fixture
def examples(rng):
    """Photos whose regions and scene show a class's embedding wherever it is present."""
    embeddings = np.eye(CLASSES, dtype="float32")
    present = np.eye(CLASSES, dtype=bool)[rng.integers(0, CLASSES, IMAGES)]
    present |= rng.random((IMAGES, CLASSES)) < 0.2
    labels = np.where(present, 1, -1).astype("int8")
    shown = present.astype("float32") @ rng.normal(size=(CLASSES, CHANNELS)).astype("float32")
    regions = np.maximum(shown[:, None, None] + rng.normal(0, 0.1, (1, GRID, GRID, 1)), 0)
    inputs = {"region_features": regions.astype("float32"), "scene_feature": shown}
    return inputs, labels, embeddings


@pytest.mark.parametrize("name", [n for n, system in SYSTEMS.items() if system.trained])
def test_training_lifts_present_classes_above_absent_ones(name, examples):
    inputs, labels, embeddings = examples
    keras.utils.set_random_seed(3)
    config = HeadConfig(name, SYSTEMS[name].settings(**SMALL.get(name, {})))
    head = build_system_head(
        name,
        (GRID, GRID, CHANNELS),
        CHANNELS,
        CLASSES,
        seen_embeddings=embeddings,
        **SMALL.get(name, {}),
    )
    before = separation(head, inputs, labels, embeddings)
    if SYSTEMS[name].fit is not None:
        batches = [({k: tf.constant(v) for k, v in inputs.items()}, tf.constant(labels))]
        SYSTEMS[name].fit(head, config.settings, iter(batches), embeddings)
    else:
        losses = train(head, config, inputs, labels, embeddings)
        assert np.mean(losses[-3:]) < np.mean(losses[:3])
    after = separation(head, inputs, labels, embeddings)
    assert after > max(before, 0.8)


def train(head, config, inputs, labels, embeddings) -> list[float]:
    settings = TrainingConfig(
        epochs=1,
        batch_size=IMAGES,
        optimizer=OptimizerConfig(learning_rate=0.01, beta_1=0.9),
        schedule=ScheduleConfig(warmup_epochs=0, decay="constant"),
    )
    model = bind_vocabulary(training_model(head, config), embeddings)
    objective = make_objective(head, config, LossConfig())
    prepare_head(head, config, labels)
    step = TrainStep(settings, tf.distribute.get_strategy(), model, objective, STEPS)
    batch = ({k: tf.constant(v) for k, v in inputs.items()}, tf.constant(labels))
    return [step(iter([batch]), False).loss for _ in range(STEPS)]


def separation(head, inputs, labels, embeddings) -> float:
    """Share of (present, absent) pairs of a photo's classes that are in the right order."""
    scores = head([*inputs.values(), embeddings], training=False).numpy()
    differences = scores[:, :, None] - scores[:, None, :]
    pairs = (labels[:, :, None] > 0) & (labels[:, None, :] < 0)
    return float((differences[pairs] > 0).mean())
