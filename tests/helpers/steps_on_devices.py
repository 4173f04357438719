"""One step of a linear model for every loss, on 1 and 2 devices and with batches in parts.

A program, since the CPU can only be split before TensorFlow uses it: `main([path])` writes the loss
and the gradient of each step into an .npz file.
"""

import itertools
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from biam_tf import losses as library
from training.config import LossConfig, OptimizerConfig, ScheduleConfig, TrainingConfig
from training.loop.objective import Objective
from training.loop.train_step import TrainStep

BATCH, FEATURES, CLASSES = 8, 5, 6
RATE = 0.5  # a power of two: the gradient is the change of the weights divided by it
PARTS = (1, 4)
DEVICES = (1, 2)


def of_system(function) -> Objective:
    """As `make_objective` makes it of a system's own losses."""
    return Objective(lambda labels, outputs: function(labels, outputs["scores"]), is_mean=True)


OBJECTIVES = {
    "ranking_sum": Objective.of_loss(LossConfig(name="ranking", reduction="sum")),
    "ranking_mean": Objective.of_loss(LossConfig(name="ranking")),
    "softmax_over_classes": Objective.of_loss(LossConfig(name="softmax", over_images=0.0)),
    "softmax": Objective.of_loss(LossConfig(name="softmax", over_images=0.5)),
    "binary_cross_entropy": of_system(library.binary_cross_entropy),
    "ranknet": of_system(library.ranknet_loss),
    "weighted_ranking": of_system(library.weighted_ranking_loss),
}


def examples() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs (BATCH, FEATURES), labels (BATCH, CLASSES) and weights (FEATURES, CLASSES)."""
    rng = np.random.default_rng(5)
    inputs = rng.normal(size=(BATCH, FEATURES)).astype("float32")
    labels = rng.choice([1, -1, 0], size=(BATCH, CLASSES), p=[0.4, 0.5, 0.1]).astype("int8")
    labels[1][labels[1] > 0] = -1  # a photo without a present class
    return inputs, labels, rng.normal(size=(FEATURES, CLASSES)).astype("float32")


def step(objective: Objective, strategy: tf.distribute.Strategy, parts: int):
    """The loss and the gradient of one step."""
    inputs, labels, weights = examples()
    settings = TrainingConfig(
        batch_size=BATCH,
        accumulation_steps=parts,
        optimizer=OptimizerConfig(name="sgd", learning_rate=RATE),
        schedule=ScheduleConfig(warmup_epochs=0, decay="constant"),
    )
    with strategy.scope():
        dense = keras.layers.Dense(CLASSES, use_bias=False)
        model = keras.Sequential([keras.Input((FEATURES,)), dense])
        dense.kernel.assign(weights)
    train_step = TrainStep(settings, strategy, model, objective, steps_per_epoch=1)
    data = tf.data.Dataset.from_tensor_slices((inputs, labels)).batch(BATCH // parts)
    loss = train_step(iter(strategy.experimental_distribute_dataset(data)), False).loss
    return loss, (weights - dense.kernel.numpy()) / RATE


def keras_loss(strategy: tf.distribute.Strategy):
    """`RankingLoss` of scores shared out to the devices: its sum over them, and its slopes."""
    inputs, labels, weights = examples()
    data = tf.data.Dataset.from_tensors((inputs @ weights, labels)).unbatch().batch(BATCH)
    loss = library.RankingLoss(reduction="mean_of_violations")

    def of_device(scores, labels):
        with tf.GradientTape() as tape:
            tape.watch(scores)
            value = loss(labels, scores)
        return value, tape.gradient(value, scores)

    (shares,) = strategy.experimental_distribute_dataset(data)
    values, slopes = strategy.run(of_device, shares)
    return strategy.reduce("SUM", values, axis=None), np.concatenate(
        strategy.experimental_local_results(slopes)
    )


def main(argv: Sequence[str]) -> None:
    (path,) = argv
    cpu = tf.config.list_physical_devices("CPU")[0]
    two = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpu, two)
    strategies = {1: tf.distribute.get_strategy(), 2: tf.distribute.MirroredStrategy()}
    found = {}
    for devices, strategy in strategies.items():
        loss, slopes = keras_loss(strategy)
        found |= {f"keras/{devices}/loss": loss, f"keras/{devices}/slopes": slopes}
    for name, devices, parts in itertools.product(OBJECTIVES, DEVICES, PARTS):
        case = f"{name}/{devices}/{parts}"
        loss, gradient = step(OBJECTIVES[name], strategies[devices], parts)
        found |= {f"{case}/loss": loss, f"{case}/gradient": gradient}
    np.savez(path, **found)
