"""Checkpoints that are damaged, half written, or do not fit; trainings that crash at any write."""

import dataclasses
import errno
import json
import math
import os
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from biam_tf.errors import UserError
from training.config import RunConfig, TrainingConfig
from training.loop.checkpoints import KEPT, MANIFEST, Checkpoints, variable_names
from training.loop.objective import Objective
from training.loop.trainer import TrainTarget, train
from training.pipeline.run_folder import RunFolder

EXAMPLES, FEATURES, CLASSES = 12, 3, 4
SETTINGS = TrainingConfig(epochs=3, batch_size=4, checkpoint_minutes=1e-9, ema_momentum=0.5, seed=0)


@pytest.fixture
def saved(tmp_path):
    """Checkpoints of 1.0, 2.0 and 3.0, of which the last two are kept, and a model beside them."""
    variable = tf.Variable(0.0)
    model = tmp_path / "model.keras"
    checkpoints = Checkpoints(tmp_path / "checkpoints", {"value": variable}, [model])
    for value in (1.0, 2.0, 3.0):
        variable.assign(value)
        model.write_text(f"model {value}")
        checkpoints.save()
    variable.assign(0.0)
    return checkpoints, variable, model


def numbers(model: pathlib.Path) -> list[str]:
    return sorted(folder.name for folder in (model.parent / "checkpoints").iterdir())


def test_the_newest_is_restored_and_older_ones_are_removed(saved):
    checkpoints, variable, model = saved
    assert checkpoints.restore() and float(variable) == 3.0
    assert numbers(model) == ["000002", "000003"] and KEPT == 2


@pytest.mark.parametrize(
    "file", ["variables.data-00000-of-00001", "variables.index", "model.keras"]
)
def test_a_flipped_bit_is_named_and_the_one_before_is_used(saved, capsys, file):
    checkpoints, variable, model = saved
    damaged = model.parent / "checkpoints" / "000003" / file
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    assert checkpoints.restore()
    message = capsys.readouterr().err
    assert f"000003: {file} is damaged" in message and "continuing from" in message
    # The model of the epoch that has to come again is gone with its checkpoint.
    assert float(variable) == 2.0 and model.read_text() == "model 2.0"
    assert numbers(model) == ["000002", "damaged-000003"]


@pytest.mark.parametrize("file", [MANIFEST, "variables.index"])
def test_a_missing_file_is_named(saved, capsys, file):
    checkpoints, variable, model = saved
    (model.parent / "checkpoints" / "000003" / file).unlink()
    assert checkpoints.restore() and float(variable) == 2.0
    assert f"000003: {file} is missing" in capsys.readouterr().err


def test_without_a_whole_checkpoint_nothing_is_made_up(saved):
    checkpoints, variable, model = saved
    for number in ("000002", "000003"):
        (model.parent / "checkpoints" / number / MANIFEST).write_text("{")
    with pytest.raises(UserError, match=r"no checkpoint is whole \(000003: manifest.json is dam"):
        checkpoints.restore()
    assert float(variable) == 0.0 and numbers(model) == ["000002", "000003"]


def test_variables_of_another_model_are_refused(saved):
    model = saved[-1]
    variables = {"value": tf.Variable(0.0), "other": tf.Variable(0.0)}
    other = Checkpoints(model.parent / "checkpoints", variables)
    with pytest.raises(UserError, match="not those of this model"):
        other.restore()
    assert not Checkpoints(model.parent / "none", {}).restore()


def two_layers(names: str) -> keras.Model:
    """Two dense layers of one shape, called by two letters, in that order."""
    layers = [keras.layers.Dense(FEATURES, name=name) for name in names]
    return keras.Sequential([keras.Input((FEATURES,)), *layers])


def by_name(model: keras.Model) -> dict[str, tf.Variable]:
    names = variable_names(model)
    return {names[id(variable)]: variable.value for variable in model.variables}


def test_layers_of_one_shape_in_another_order_get_their_own_weights(tmp_path):
    saved, swapped = two_layers("ab"), two_layers("ba")
    Checkpoints(tmp_path / "checkpoints", by_name(saved)).save()
    assert Checkpoints(tmp_path / "checkpoints", by_name(swapped)).restore()
    for name in "ab":
        for a, b in zip(
            saved.get_layer(name).weights, swapped.get_layer(name).weights, strict=True
        ):
            np.testing.assert_array_equal(a, b)


def test_layers_of_another_name_are_refused(tmp_path):
    Checkpoints(tmp_path / "checkpoints", by_name(two_layers("ab"))).save()
    with pytest.raises(UserError, match="not those of this model"):
        Checkpoints(tmp_path / "checkpoints", by_name(two_layers("ac"))).restore()


def test_a_checkpoint_of_an_early_version_is_read_by_position(tmp_path, monkeypatch):
    saved, again = two_layers("ab"), two_layers("ab")
    checkpoints = Checkpoints(tmp_path / "checkpoints", by_name(saved))
    values = [variable.value for variable in saved.variables]
    monkeypatch.setattr(checkpoints, "_checkpoint", tf.train.Checkpoint(variables=values))
    checkpoints.save()
    assert Checkpoints(tmp_path / "checkpoints", by_name(again)).restore()
    for a, b in zip(saved.weights, again.weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_names_do_not_depend_on_what_the_process_has_built_before():
    def model():
        layers = [keras.layers.Dense(2), keras.layers.Dropout(0.5), keras.layers.Dense(2)]
        return keras.Sequential([keras.Input((2,)), *layers])

    assert list(by_name(model())) == list(by_name(model()))
    assert len(by_name(model())) == 5


@pytest.mark.parametrize(
    ("function", "error", "reason"),
    [
        ("os.replace", OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        ("shutil.copyfile", OSError(errno.EROFS, "Read-only file system"), "Read-only"),
        (
            "tensorflow.train.Checkpoint.write",
            tf.errors.ResourceExhaustedError(None, None, "variables; No space left on device"),
            "No space left",
        ),
    ],
)
def test_a_full_disk_is_one_message_and_leaves_the_earlier_ones(
    saved, monkeypatch, function, error, reason
):
    checkpoints, variable, model = saved

    def fail(*arguments, **keywords):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(function, fail)
        with pytest.raises(UserError, match=f"checkpoints/.*: cannot be written .*{reason}"):
            checkpoints.save()
    variable.assign(0.0)
    assert checkpoints.restore() and float(variable) == 3.0
    checkpoints.save()  # what was half written is in nobody's way
    assert numbers(model) == ["000003", "000004"]


class Numbers:
    """A source of random numbers as examples, in an order of the seed and the epoch."""

    def __init__(self):
        rng = np.random.default_rng(1)
        self.inputs = rng.normal(size=(EXAMPLES, FEATURES)).astype("float32")
        self.labels = rng.choice([1, -1], size=(EXAMPLES, CLASSES)).astype("int8")

    def __len__(self):
        return EXAMPLES

    def training_batches(self, labels, batch_size, seed, epoch, skip_batches=0):
        order = np.random.default_rng([seed, epoch]).permutation(EXAMPLES)
        batches = tf.data.Dataset.from_tensor_slices((self.inputs[order], labels[order]))
        return batches.batch(batch_size).skip(skip_batches)


def training(
    folder: RunFolder, seen_map=(0.2, 0.3, 0.1), observers=(), **changes
) -> list[np.ndarray]:
    """Trains a few steps with dropout; returns the weights of the best epoch, as saved."""
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dropout(0.5), keras.layers.Dense(CLASSES)]
    model = keras.Sequential([keras.Input((FEATURES,)), *layers])
    folder.path.mkdir(exist_ok=True)

    def validate():
        lines = folder.log.read_text().splitlines() if folder.log.exists() else []
        seen = {"mAP": seen_map[len(lines)], "classes": CLASSES, "classes_without_positives": 0}
        return {"seen": seen, "zsl": None, "gzsl": None}

    train(
        RunConfig(training=dataclasses.replace(SETTINGS, **changes)),
        folder,
        tf.distribute.get_strategy(),
        TrainTarget(model, Objective.of_loss(SETTINGS.loss), {folder.model: model}),
        source := Numbers(),
        source.labels,
        validate,
        observers,
    )
    return keras.models.load_model(folder.model).get_weights()


def log(folder: RunFolder) -> list[dict]:
    changing = ("seconds", "images_per_second", "data_wait_share")
    lines = [json.loads(line) for line in folder.log.read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in changing} for line in lines]


class Crash(BaseException):
    """What a kill is to the process's files: nothing more is written."""


def crash_at(monkeypatch, count: float, after: str = "nothing") -> list[str]:
    """Ends the process, as it were, at the `count`-th write or `after` one; lists the writes."""
    calls = []

    def crashing(name, function):
        def call(*arguments, **keywords):
            calls.append(f"{name} {arguments[0]}")
            if len(calls) >= count or after in "".join(calls[-2:-1]):
                raise Crash
            return function(*arguments, **keywords)

        return call

    for name in ("rename", "replace", "fsync"):
        monkeypatch.setattr(os, name, crashing(name, getattr(os, name)))
    return calls


def test_a_run_that_crashes_again_and_again_ends_as_if_it_had_not(tmp_path, monkeypatch):
    expected = training(undisturbed := RunFolder(tmp_path / "undisturbed"))
    folder = RunFolder(tmp_path / "crashing")
    rng = np.random.default_rng(5)
    lost = []
    while True:
        with monkeypatch.context() as patch:
            if lost:
                calls = crash_at(patch, rng.integers(1, 25))
            else:  # where the best model is newer than the newest checkpoint
                calls = crash_at(patch, math.inf, after=".partial.keras")
            try:
                found = training(folder)
                break
            except Crash:
                lost.append(calls)
    assert len(lost) >= 8
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_array_equal(a, b)
    assert log(folder) == log(undisturbed)


def test_training_ends_when_patience_is_lost_and_knows_it_after_a_restart(tmp_path, capsys):
    folder = RunFolder(tmp_path / "patient")
    weights = training(folder, seen_map=(0.3, 0.2, 0.25, 0.9), epochs=4, patience=2)
    assert [line["best_epoch"] for line in log(folder)] == [1, 1, 1]
    assert "no better seen_mAP in 2 epochs" in capsys.readouterr().out
    again = training(folder, seen_map=None, epochs=4, patience=2)
    for a, b in zip(weights, again, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_log_says_how_long_training_waited_for_data(tmp_path):
    training(folder := RunFolder(tmp_path / "run"))
    shares = [json.loads(line)["data_wait_share"] for line in folder.log.read_text().splitlines()]
    assert len(shares) == 3 and all(0 < share < 1 for share in shares)


class Seen:
    """An observer that remembers what it is told."""

    def __init__(self):
        self.rates, self.records = [], []

    def step(self, step, values):
        self.rates.append(values["learning_rate"])

    def epoch(self, record):
        self.records.append(record)


def test_the_log_has_the_learning_rate_of_the_last_step_of_an_epoch(tmp_path, capsys):
    folder = RunFolder(tmp_path / "run")
    observer = Seen()
    training(folder, observers=[observer])
    schedule, steps = SETTINGS.schedule, EXAMPLES // SETTINGS.batch_size
    total, peak = SETTINGS.epochs * steps, SETTINGS.optimizer.learning_rate
    warmup = round(schedule.warmup_epochs * steps)
    expected = [
        peak * (step + 1) / warmup
        if step < warmup
        else peak * (1 + math.cos(math.pi * (step - warmup) / (total - warmup - 1))) / 2
        for step in range(total)
    ]
    np.testing.assert_allclose(observer.rates, expected, rtol=1e-5, atol=1e-9)
    ends = expected[steps - 1 :: steps]
    found = [line["learning_rate"] for line in log(folder)]
    np.testing.assert_allclose(found, ends, rtol=1e-5, atol=1e-9)
    assert found == [record["learning_rate"] for record in observer.records]
    assert f"lr {ends[0]:.2e}" in capsys.readouterr().out
