"""Two devices share each batch in its order: `main([store, folder of photos])`.

A program, since the CPU can only be split before TensorFlow uses it.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from training.data.features.store import FeatureStore
from training.data.input.sources import FeatureSource, PhotoSource


def main(argv: Sequence[str]) -> None:
    path, photos = argv
    cpu = tf.config.list_physical_devices("CPU")[0]
    two = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpu, two)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    store = FeatureStore.open(path)
    labels = np.arange(len(store), dtype=np.int8)[:, np.newaxis]
    for cache in ("memory", "stream"):
        check(strategy, FeatureSource(store, store.images, cache), labels)
        check(strategy, PhotoSource(photos, store.images, 16, cache), labels)


def check(
    strategy: tf.distribute.Strategy, source: FeatureSource | PhotoSource, labels: np.ndarray
) -> None:
    def batches():
        return source.training_batches(labels, 4, seed=3, epoch=1, skip_batches=2)

    steps = 0
    distributed = strategy.experimental_distribute_dataset(batches())
    for parts, whole in zip(distributed, batches(), strict=True):
        steps += 1
        for part, expected in zip(tf.nest.flatten(parts), tf.nest.flatten(whole), strict=True):
            values = strategy.experimental_local_results(part)
            assert [len(value) for value in values] == [2, 2]
            np.testing.assert_array_equal(np.concatenate(values), expected)
    assert steps == 4
