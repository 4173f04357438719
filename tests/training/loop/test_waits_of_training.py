"""How often training waits for the device, and what it computes in: none of it changes a weight."""

import dataclasses
import json
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import ops as framework

from biam_tf import ways_to_compute
from biam_tf.errors import UserError
from biam_tf.layers import RegionContextBlock
from training.config import RunConfig, TrainingConfig, load_config
from training.loop import devices
from training.loop.objective import Objective
from training.loop.trainer import TrainTarget, train
from training.pipeline.run_folder import RunFolder

FEATURES, CLASSES, BATCH = 3, 4, 4
SETTINGS = TrainingConfig(epochs=1, batch_size=BATCH, checkpoint_minutes=None, fetch_every=50)


class Numbers:
    """A source of random numbers as examples."""

    def __init__(self, steps: int):
        self._examples = steps * BATCH

    def __len__(self):
        return self._examples

    def training_batches(self, labels, batch_size, seed, epoch, skip_batches=0):
        rng = np.random.default_rng([seed, epoch])
        inputs = rng.normal(size=(self._examples, FEATURES)).astype("float32")
        batches = tf.data.Dataset.from_tensor_slices((inputs, labels)).batch(batch_size, True)
        return batches.skip(skip_batches)


class Watch:
    """An observer that reads no value, and may ask the process to stop after a step."""

    def __init__(self, stop_after=None):
        self.steps, self.stop_after = [], stop_after

    def step(self, step, values):
        self.steps.append(step)
        if step == self.stop_after:
            signal.raise_signal(signal.SIGTERM)

    def epoch(self, record):
        pass


def training(path, steps=100, observers=(), dropout=0.5, **changes):
    """Trains with dropout; returns the weights and the loss of the epoch."""
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dropout(dropout), keras.layers.Dense(CLASSES)]
    model = keras.Sequential([keras.Input((FEATURES,)), *layers])
    settings = dataclasses.replace(SETTINGS, **changes)
    folder = RunFolder(path)
    path.mkdir(exist_ok=True)
    labels = np.random.default_rng(1).choice([1, -1], size=(steps * BATCH, CLASSES)).astype("int8")
    target = TrainTarget(model, Objective.of_loss(settings.loss), {folder.model: model})
    strategy = tf.distribute.get_strategy()
    config = RunConfig(training=settings)
    train(config, folder, strategy, target, Numbers(steps), labels, None, observers)
    loss = json.loads(folder.log.read_text().splitlines()[-1])["loss"]
    return [weight.numpy() for weight in model.weights], loss


@pytest.fixture
def fetches(monkeypatch) -> list[int]:
    """Counts every value that Python reads from a tensor of TensorFlow, in its one member."""
    count, read = [0], framework.EagerTensor._numpy

    def counted(tensor):
        count[0] += 1
        return read(tensor)

    monkeypatch.setattr(framework.EagerTensor, "_numpy", counted)
    monkeypatch.setattr("training.loop.trainer.REFRESH_SECONDS", 1e9)
    return count


def test_a_hundred_steps_wait_for_the_device_twice(fetches, tmp_path):
    watch = Watch()
    training(tmp_path / "a", 10, [watch])
    few = fetches[0]
    fetches[0] = 0
    training(tmp_path / "b", 110, [watch])
    assert fetches[0] - few == 2  # what is read before and after the steps is the same
    assert watch.steps == [*range(1, 11), *range(1, 111)]
    fetches[0] = 0
    training(tmp_path / "c", 110, fetch_every=1)
    assert fetches[0] - few == 109


def test_neither_waits_nor_calls_of_several_steps_change_a_weight(tmp_path, monkeypatch):
    expected, loss = training(tmp_path / "a", 11, fetch_every=1)
    for name, changes in {
        "b": {},
        "c": {"steps_per_call": 3},
        "d": {"steps_per_call": 4, "fetch_every": 3},
    }.items():
        weights, own = training(tmp_path / name, 11, **changes)
        monkeypatch.setattr("training.loop.trainer.device_to_prefetch_to", lambda _: "/CPU:0")
        assert own == loss
        for one, other in zip(weights, expected, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("per_call", [1, 4])
def test_a_stop_is_heeded_after_the_call_and_the_run_goes_on_exactly(per_call, tmp_path):
    expected, loss = training(tmp_path / "whole", 11, steps_per_call=per_call)
    watch = Watch(stop_after=5)
    with pytest.raises(RuntimeError, match="stopped by SIGTERM"):
        training(tmp_path / "part", 11, [watch], steps_per_call=per_call)
    assert watch.steps[-1] == (5 if per_call == 1 else 8)
    weights, own = training(tmp_path / "part", 11, steps_per_call=per_call)
    assert own == loss
    for one, other in zip(weights, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_loss_that_is_no_number_is_named_with_its_step(tmp_path, monkeypatch):
    class Broken(Numbers):
        def training_batches(self, labels, batch_size, seed, epoch, skip_batches=0):
            batches = super().training_batches(labels, batch_size, seed, epoch, skip_batches)
            broken = lambda i, x, y: (tf.where(i == 3, float("nan"), x), y)  # noqa: E731
            return batches.enumerate().map(lambda i, batch: broken(i, *batch))

    monkeypatch.setitem(globals(), "Numbers", Broken)
    with pytest.raises(UserError, match="the loss is nan at step 4 of epoch 1"):
        training(tmp_path / "run", 11)


@pytest.mark.rounding
def test_a_compiled_step_trains_alike(tmp_path):
    # Without dropout: XLA draws other random numbers.
    expected, _ = training(tmp_path / "a", 4, dropout=0.0, jit=False)
    compiled, _ = training(tmp_path / "b", 4, dropout=0.0, jit=True)
    for one, other in zip(compiled, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.unit
def test_batches_are_copied_ahead_to_the_only_gpu(monkeypatch):
    one = tf.distribute.get_strategy()
    assert devices.device_to_prefetch_to(one) is None
    monkeypatch.setattr(devices, "device_kind", lambda: "gpu")
    gpu = tf.config.LogicalDevice("/device:GPU:0", "GPU")
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: [gpu])
    assert devices.device_to_prefetch_to(one) == "/device:GPU:0"
    assert devices.device_to_prefetch_to(tf.distribute.MirroredStrategy(["/CPU:0"])) is None


@pytest.mark.unit
def test_the_device_decides_whether_a_step_is_compiled(monkeypatch):
    model = keras.Sequential([keras.Input((14, 14, 8)), block := RegionContextBlock(num_heads=8)])
    one = tf.distribute.get_strategy()
    assert not block.supports_jit  # in blocks on a CPU
    automatic = TrainingConfig()
    monkeypatch.setattr(devices, "device_kind", lambda: "gpu")
    assert not devices.compiles(automatic, model, one)
    with pytest.raises(UserError, match=r"training\.jit: true: XLA cannot compile region_context"):
        devices.compiles(TrainingConfig(jit=True), model, one)
    monkeypatch.setattr(ways_to_compute, "device_kind", lambda: "gpu")
    model = keras.Sequential([keras.Input((14, 14, 8)), RegionContextBlock(num_heads=8)])
    assert devices.compiles(automatic, model, one)
    assert not devices.compiles(TrainingConfig(jit=False), model, one)
    monkeypatch.setattr(devices, "device_kind", lambda: "cpu")
    assert not devices.compiles(automatic, model, one)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("flags", "limit", "precision"),
    [
        ("fpu avx512f avx512_bf16", "", "mixed_bfloat16"),
        ("fpu amx_bf16 amx_tile", "ALL", "mixed_bfloat16"),
        ("fpu avx512f amx_tile", "", "float32"),
        ("fpu avx512_bf16", "AVX2", "float32"),
        ("fpu avx512_bf16", "AVX512_CORE_BF16", "mixed_bfloat16"),
    ],
)
def test_the_processor_decides_on_half_precision(flags, limit, precision, monkeypatch, tmp_path):
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags\t\t: {flags}\nbugs : spectre\n")
    found = devices._cpu_flags(tmp_path / "cpuinfo")
    assert devices._cpu_flags(tmp_path / "none") == frozenset()
    monkeypatch.setattr(devices, "_cpu_flags", lambda: found)
    monkeypatch.setattr(devices, "device_kind", lambda: "cpu")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit or "DEFAULT")
    assert devices.best_precision() == precision


@pytest.mark.unit
@pytest.mark.parametrize(("capability", "precision"), [((8, 0), "mixed_bfloat16"), ((7, 5), None)])
def test_a_gpu_computes_in_bfloat16_from_ampere_on(capability, precision, monkeypatch):
    monkeypatch.setattr(devices, "device_kind", lambda: "gpu")
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: ["GPU:0"])
    details = {"compute_capability": capability}
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda device: details)
    assert devices.best_precision() == (precision or "float32")


@pytest.mark.unit
def test_what_auto_stands_for_is_chosen_once_for_a_run(monkeypatch):
    automatic = RunConfig(training=TrainingConfig(precision="auto"))
    monkeypatch.setattr(devices, "best_precision", lambda: "mixed_bfloat16")
    chosen = devices.with_chosen_precision(automatic, None)
    assert chosen.training.precision == "mixed_bfloat16"
    monkeypatch.setattr(devices, "best_precision", lambda: "float32")
    assert devices.with_chosen_precision(automatic, chosen) == chosen
    assert devices.with_chosen_precision(RunConfig(), chosen) == RunConfig()


@pytest.mark.unit
@pytest.mark.parametrize(("text", "value"), [("auto", "auto"), ("true", True), ("false", False)])
def test_jit_is_auto_true_or_false(text, value):
    assert load_config(None, [f"training.jit={text}"]).training.jit == value
    with pytest.raises(UserError, match=r"training\.jit"):
        load_config(None, ["training.jit=perhaps"])
