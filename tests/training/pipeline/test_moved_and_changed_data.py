"""A run goes on where its data were moved, and is refused where they changed."""

import json
import os
import shutil
import signal

import keras
import numpy as np
import pytest

from biam_tf.locks import locked
from training.config import load_config
from training.pipeline import whole_run
from training.pipeline.run_folder import RunFolder


@pytest.fixture
def data(scenes, tmp_path):
    """A copy of the data set, which the test may change."""
    return shutil.copytree(scenes, tmp_path / "data")


@pytest.fixture(params=["complete", "half done"])
def folder(request, finished, tmp_path):
    """A run on the data set, complete or still to be evaluated."""
    folder = RunFolder(shutil.copytree(finished.path, tmp_path / "run"))
    if request.param == "half done":
        folder.metrics.unlink()
    return folder


@pytest.fixture
def refused(start, folder, data, monkeypatch, capsys):
    """Starts the run again and returns the message with which it is refused, before any work."""

    def run(*settings):
        monkeypatch.setattr(whole_run, "build_models", lambda *a: pytest.fail("models are built"))
        assert start(folder.path, f"data.directory={data}", *settings) == 2
        printed = capsys.readouterr()
        assert "complete already" not in printed.out
        return printed.err

    return run


def edit(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_another_label_is_named(refused, data):
    rows = (data / "annotations.csv").read_text().splitlines()
    row = next(row for row in rows if ",val," in row)
    edit(data / "annotations.csv", row, row.rpartition(";")[0])
    message = refused()
    assert "was started with other data: split val: other labels of the same photos" in message


def test_a_photo_less_is_named(refused, data):
    rows = (data / "annotations.csv").read_text().splitlines()
    row = next(row for row in rows if ",train," in row)
    edit(data / "annotations.csv", f"{row}\n", "")
    assert "split train: other photos (40 and 39)" in refused()


def test_a_replaced_photo_is_named(refused, data):
    photo = next((data / "images").iterdir())
    photo.write_bytes(photo.read_bytes() + b"\n")
    assert "photos of the same names, but other sizes in bytes" in refused()


def test_classes_and_groups_are_named(refused, data):
    rows = (data / "classes.csv").read_text().splitlines()
    name = next(row.split(",")[0] for row in rows if row.endswith(",seen"))
    edit(data / "classes.csv", f"{name},seen", f"{name},unseen")
    assert f"{name} is unseen, was seen" in refused()


def test_other_vectors_under_the_same_name_are_named(refused, data):
    attributes = data / "class_attributes.csv"
    rows = attributes.read_text().splitlines()
    name, *values = rows[1].split(",")
    changed = ",".join([name, *("0" if value == "1" else "1" for value in values)])
    edit(attributes, rows[1], changed)
    assert f"other embeddings of 1 of 72 classes, such as {name}" in refused()


@pytest.mark.parametrize("folder", ["complete"], indirect=True)
def test_a_complete_run_is_compared_with_data_in_another_place(start, folder, data, capsys):
    moved = data.rename(data.parent / "moved and renamed")
    attributes = moved / "class_attributes.csv"
    vectors = f"vocabulary.word_vectors={attributes.rename(moved.parent / 'vectors.csv')}"
    assert start(folder.path, f"data.directory={moved}/", vectors) == 0
    printed = capsys.readouterr().out
    assert "complete already" in printed and "not compared" not in printed


@pytest.mark.parametrize("folder", ["complete"], indirect=True)
def test_a_complete_run_without_its_data_says_that_it_was_not_compared(
    start, folder, tmp_path, capsys
):
    assert start(folder.path, f"data.directory={tmp_path / 'gone'}") == 0
    printed = capsys.readouterr().out
    assert "complete already" in printed and f"{tmp_path / 'gone'} not found" in printed


@pytest.mark.slow
def test_a_stopped_run_goes_on_exactly_after_a_move_with_its_data(
    start, finished, data, tmp_path, monkeypatch
):
    folder, each_step = RunFolder(tmp_path / "stopped"), "training.fetch_every=1"
    with monkeypatch.context() as patch:
        stop = lambda *arguments, **keywords: os.kill(os.getpid(), signal.SIGINT)  # noqa: E731
        patch.setattr("tqdm.tqdm.set_postfix_str", stop)
        assert start(folder.path, f"data.directory={data}/", each_step) == 130
    assert load_config(folder.config).data.directory == f"{data}/"
    moved = data.rename(tmp_path / "moved")
    folder = RunFolder(folder.path.rename(tmp_path / "elsewhere"))
    assert start(folder.path, f"data.directory={moved}", each_step) == 0
    for before, after in zip(
        *(keras.models.load_model(run.model).get_weights() for run in (finished, folder)),
        strict=True,
    ):
        np.testing.assert_array_equal(before, after)


def test_a_second_process_is_told_who_trains_the_run(start, tmp_path, capsys):
    folder = RunFolder(tmp_path / "run")
    with locked(folder.lock, "x"):
        assert start(folder.path) == 2
    assert f"{folder.path} is being trained by process {os.getpid()} on " in capsys.readouterr().err
    assert not folder.path.exists()


def test_a_setting_that_does_not_fit_leaves_no_folder(start, tmp_path):
    assert start(tmp_path / "runs" / "run", "vocabulary.word_vectors=none.txt") == 2
    assert not (tmp_path / "runs").exists()


def test_a_frozen_backbone_of_other_weights_is_refused(finished, tmp_path):
    from biam_tf.backbones import build_backbone
    from biam_tf.errors import UserError
    from training.config import BackboneConfig

    folder = RunFolder(tmp_path)
    settings = BackboneConfig("small", 32, "old.weights.h5", trainable=False)
    backbone = build_backbone("small", 32, "none")
    folder.write_backbone_identity(settings, backbone)
    folder.check_same_backbone(settings, backbone)
    backbone.set_weights([value + 1 for value in backbone.get_weights()])
    before = json.loads(folder.backbone_identity.read_text())["weights_fingerprint"]
    with pytest.raises(UserError, match=f"was started with the weights {before}"):
        folder.check_same_backbone(settings, backbone)
