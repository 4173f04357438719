"""The devices of a run: one, all of this machine, or those of the workers of `TF_CONFIG`."""

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf

from biam_tf.errors import UserError
from training.config import RunConfig
from training.loop.workers import ClusterTask, read_tf_config


def make_strategy(config: RunConfig) -> tf.distribute.Strategy:
    """Returns the `tf.distribute` strategy that a configuration asks for.

    Must run before TensorFlow has touched a device where `logical_cpu_devices` is not 1 or the
    strategy is `multi_worker`; the latter waits for all workers.

    Raises:
        UserError: the batch size is not divisible by the number of devices, the CPU can no
            longer be split or is not used, or `TF_CONFIG` cannot be used.
    """
    if config.logical_cpu_devices > 1:
        _split_cpu(config.logical_cpu_devices)
    if config.strategy == "multi_worker":
        strategy = _join(read_tf_config())
    elif config.strategy == "mirrored":
        kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
        if kind == "GPU" and config.logical_cpu_devices > 1:
            raise UserError(
                f"logical_cpu_devices: {config.logical_cpu_devices}: has no effect here, because "
                "strategy: mirrored trains on this machine's GPUs; leave it out, or hide them with "
                "CUDA_VISIBLE_DEVICES=-1"
            )
        devices = [device.name for device in tf.config.list_logical_devices(kind)]
        strategy = tf.distribute.MirroredStrategy(devices)
    else:
        strategy = tf.distribute.get_strategy()
    _check_batch(config, strategy.num_replicas_in_sync)
    return strategy


def _join(task: ClusterTask) -> tf.distribute.Strategy:
    print(f"{task}: waiting for all {task.count} workers of TF_CONFIG", flush=True)
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:  # TensorFlow is already running in this process
        raise UserError(
            "strategy: multi_worker: TensorFlow already runs in this process; start a new one"
        ) from error
    except tf.errors.OpError as error:
        raise UserError(
            f"strategy: multi_worker: {task} cannot join the cluster of TF_CONFIG: "
            f"{error.message.splitlines()[0]}"
        ) from error


def _check_batch(config: RunConfig, replicas: int) -> None:
    parts = config.training.accumulation_steps
    size = config.training.batch_size
    if size % (replicas * parts):
        in_parts = f" in {parts} parts each (training.accumulation_steps)" if parts > 1 else ""
        raise UserError(
            f"training.batch_size: {size} does not divide over the {replicas} devices of strategy "
            f"{config.strategy}{in_parts}; nearest that does: "
            f"{max(1, round(size / replicas / parts)) * replicas * parts}"
        )


@contextlib.contextmanager
def computing_in(precision: str) -> Iterator[None]:
    """Sets the Keras dtype policy for layers that are built in the `with` block."""
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
