"""The devices of a run and what they compute in; those of other machines are in `TF_CONFIG`."""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Iterator
from typing import Literal

import keras
import tensorflow as tf

from biam_tf.errors import UserError
from biam_tf.ways_to_compute import device_kind
from training.config import RunConfig, TrainingConfig
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


def with_chosen_precision(config: RunConfig, stored: RunConfig | None) -> RunConfig:
    """Returns the configuration with the precision that `training.precision: auto` stands for.

    Args:
        config: the settings.
        stored: those that the run was started with, maybe on another machine; None: it is new.
    """
    if config.training.precision != "auto":
        return config
    precision = stored.training.precision if stored else best_precision()
    training = dataclasses.replace(config.training, precision=precision)
    return dataclasses.replace(config, training=training)


def best_precision() -> Literal["mixed_bfloat16", "float32"]:
    """Returns mixed_bfloat16 where the device has instructions for it, else float32."""
    if device_kind() == "gpu":
        gpus = tf.config.get_visible_devices("GPU")
        details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
        # NVIDIA's GPUs compute in bfloat16 from Ampere on.
        fits = all(detail.get("compute_capability", (0, 0)) >= (8, 0) for detail in details)
    else:
        # oneDNN computes with lesser instructions where it is told to, and TensorFlow's products
        # of bfloat16 matrices then end the process.
        limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "DEFAULT").upper()
        is_limited = not any(word in limit for word in ("DEFAULT", "ALL", "AMX", "BF16"))
        fits = not is_limited and bool(_cpu_flags() & {"amx_bf16", "avx512_bf16"})
    return "mixed_bfloat16" if fits else "float32"


def _cpu_flags(path: pathlib.Path = pathlib.Path("/proc/cpuinfo")) -> frozenset[str]:
    """Returns what the processor can do, by Linux's names; nothing where there is no such file."""
    try:
        lines = path.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    flags = [line.partition(":")[2] for line in lines if line.startswith("flags")]
    return frozenset(flags[0].split()) if flags else frozenset()


def compiles(config: TrainingConfig, model: keras.Model, strategy: tf.distribute.Strategy) -> bool:
    """Returns whether XLA compiles the training step (`training.jit`).

    Args:
        config: the settings.
        model: what is trained.
        strategy: the devices.

    Raises:
        UserError: it is asked for, and cannot be done.
    """
    refusing = [layer.name for layer in model._flatten_layers() if not layer.supports_jit]
    several = strategy.num_replicas_in_sync > 1
    if config.jit == "auto":
        return device_kind() == "gpu" and not several and not refusing
    if config.jit and several:
        raise UserError(
            f"training.jit: true: XLA compiles the step of one device, and there are "
            f"{strategy.num_replicas_in_sync}; use strategy: default, or training.jit: false"
        )
    if config.jit and refusing:
        raise UserError(
            f"training.jit: true: XLA cannot compile {', '.join(sorted(set(refusing)))}, whose "
            "arrays have no fixed sizes or would not fit; use training.jit: auto, or a smaller "
            "training.batch_size"
        )
    return bool(config.jit)


def device_to_prefetch_to(strategy: tf.distribute.Strategy) -> str | None:
    """Returns the device that batches are copied to ahead of time; None: there is no need.

    Strategies of several devices prefetch by themselves.
    """
    is_default = strategy is tf.distribute.get_strategy()
    if device_kind() != "gpu" or not is_default:
        return None
    return tf.config.list_logical_devices("GPU")[0].name


@contextlib.contextmanager
def computing_in(precision: str) -> Iterator[None]:
    """Sets the Keras dtype policy for layers that are built in the `with` block.

    Args:
        precision: as in `training.precision`.
    """
    if precision == "auto":
        precision = best_precision()
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
