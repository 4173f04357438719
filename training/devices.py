"""The devices of a run: one, or all of this machine's."""

import contextlib

import keras
import tensorflow as tf

from biam_tf.errors import UserError
from training.config import RunConfig


def make_strategy(config: RunConfig) -> tf.distribute.Strategy:
    """Returns the `tf.distribute` strategy that a configuration asks for.

    Must run before TensorFlow has touched a device where `logical_cpu_devices` is not 1.

    Raises:
        UserError: the batch does not divide over the devices, the CPU can no longer be split,
            or the strategy is not available.
    """
    if config.logical_cpu_devices > 1:
        _split_cpu(config.logical_cpu_devices)
    if config.strategy == "multi_worker":
        raise UserError(
            "strategy: multi_worker is not part of this version; mirrored uses all devices of "
            "one machine"
        )
    if config.strategy == "mirrored":
        kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
        devices = [device.name for device in tf.config.list_logical_devices(kind)]
        strategy = tf.distribute.MirroredStrategy(devices)
    else:
        strategy = tf.distribute.get_strategy()
    replicas = strategy.num_replicas_in_sync
    if config.training.batch_size % replicas:
        raise UserError(
            f"training.batch_size: {config.training.batch_size} does not divide over the "
            f"{replicas} devices of strategy {config.strategy}; nearest that does: "
            f"{max(1, round(config.training.batch_size / replicas)) * replicas}"
        )
    return strategy


@contextlib.contextmanager
def computing_in(precision: str):
    """Builds what is built inside with a Keras dtype policy, and sets the old one again."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _split_cpu(count: int) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    wanted = [tf.config.LogicalDeviceConfiguration()] * count
    try:
        tf.config.set_logical_device_configuration(cpu, wanted)
    except RuntimeError:  # TensorFlow is already running in this process
        have = len(tf.config.list_logical_devices("CPU"))
        if have != count:
            raise UserError(
                f"logical_cpu_devices: {count}: TensorFlow already runs with {have} in this "
                "process; start a new one"
            ) from None
