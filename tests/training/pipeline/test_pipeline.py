"""Whole runs, through the command lines, on a few drawn pictures."""

import csv
import dataclasses
import functools
import json
import os
import pathlib
import re
import shutil
import signal

import keras
import numpy as np
import pytest
from PIL import Image

from biam_tf.models.presets import PRESETS
from biam_tf.models.systems import SYSTEMS
from biam_tf.progress import progress
from biam_tf.runs import load_run
from training import evaluate, run
from training.config import load_config
from training.loop import trainer
from training.loop.tensorboard import read_scalar
from training.pipeline.run_folder import RunFolder


def weights(folder: RunFolder) -> list[np.ndarray]:
    models = [keras.models.load_model(path) for path in (folder.model, folder.backbone)]
    return [value for model in models for value in model.get_weights()]


def losses(folder: RunFolder) -> list[float]:
    return [json.loads(line)["loss"] for line in folder.log.read_text().splitlines()]


def test_a_run_leaves_everything_it_promises(finished, scenes):
    metrics = json.loads(finished.metrics.read_text())
    assert metrics["images"] == 8 and metrics["split"] == "test"
    for part in ("zsl", "gzsl", "seen"):
        assert 0 <= metrics[part]["mAP"] <= 1
        assert set(metrics[part]["F1@3"]) == {"f1", "precision", "recall"}
    assert len(metrics["gzsl"]["per_class"]) == 72

    lines = [json.loads(line) for line in finished.log.read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert load_config(finished.config).training.epochs == 2
    with Image.open(finished.report / "contact_sheet.png") as sheet:
        assert min(sheet.size) > 500

    trained = load_run(finished.path)
    assert len(trained.vocabulary.names) == 72 and trained.image_size == 96
    assert len(read_scalar(finished.tensorboard, "training/loss")[0]) == lines[-1]["step"] == 10
    assert (finished.tensorboard / "projector_config.pbtxt").exists()


def test_the_same_command_again_prints_the_figures_and_changes_nothing(start, finished, capsys):
    before = {p: p.stat().st_mtime_ns for p in finished.path.rglob("*") if p.is_file()}
    assert start(finished.path) == 0
    assert "complete already" in capsys.readouterr().out
    assert before == {p: p.stat().st_mtime_ns for p in finished.path.rglob("*") if p.is_file()}


def test_a_folder_of_another_run_is_never_overwritten(start, finished, capsys):
    assert start(finished.path, "training.seed=5") == 2
    message = capsys.readouterr().err
    assert "training.seed: 0 there, 5 now" in message and "--set output=" in message


def test_a_folder_that_is_no_run_is_never_overwritten(start, tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("years of work")
    assert start(tmp_path) == 2
    assert "is not the folder of a run" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.slow
def test_a_seed_fixes_a_run_whether_or_not_its_report_and_tensorboard_are_written(
    start, finished, tmp_path, capsys, monkeypatch
):
    folder = RunFolder(tmp_path / "plain")
    # A log gets lines of epochs that take 10 s and longer.
    monkeypatch.setattr(trainer, "progress", functools.partial(progress, interval=0.0))
    assert start(folder.path) == 0
    printed = capsys.readouterr()
    assert not folder.report.exists() and "Look at" not in printed.out
    assert not folder.tensorboard.exists()
    for a, b in zip(weights(finished), weights(folder), strict=True):
        np.testing.assert_array_equal(a, b)
    assert losses(finished) == losses(folder)
    metrics = [json.loads(own.metrics.read_text()) for own in (folder, finished)]
    assert metrics[0] == metrics[1]
    # Another line on the screen says how training goes.
    lines = [line for line in printed.err.splitlines() if line.startswith("epoch 2/2")]
    assert re.search(r"left, loss [\d.]+, lr \d\.\d\de[-+]\d\d, \d+ images/s$", lines[-1])
    # What is written for TensorBoard doesn't make another run.
    assert start(folder.path, "training.tensorboard=true") == 0


EACH_STEP = "training.fetch_every=1"  # the progress bar shows the loss of every step


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stopped_after", "by", "status", "preset_changes"),
    [(2, signal.SIGINT, 130, True), (5, signal.SIGTERM, 75, False)],  # within an epoch, at its end
)
def test_a_stopped_run_resumes_to_the_same_weights(
    start, finished, tmp_path, monkeypatch, capsys, stopped_after, by, status, preset_changes
):
    folder = RunFolder(tmp_path / "stopped")
    steps = []

    def stop_at_some_step(text, refresh=True):
        steps.append(text)
        if len(steps) == stopped_after:
            os.kill(os.getpid(), by)

    with monkeypatch.context() as patch:
        patch.setattr("tqdm.tqdm.set_postfix_str", lambda bar, *a, **k: stop_at_some_step(*a, **k))
        assert start(folder.path, EACH_STEP) == status
    assert len(steps) == stopped_after and not folder.metrics.exists()
    assert steps[0].startswith(first_loss(finished))
    if preset_changes:  # the run keeps its settings, and the command that does not is refused
        other = {"paper": dataclasses.replace(PRESETS["paper"], residual="attended")}
        monkeypatch.setitem(SYSTEMS, "biam", dataclasses.replace(SYSTEMS["biam"], presets=other))
        assert start(folder.path, EACH_STEP) == 2
        assert "head.residual: 'input' there, 'attended' now" in capsys.readouterr().err
        assert run.main(["--config", str(folder.config)]) == 0
    else:
        assert start(folder.path, EACH_STEP) == 0
    assert "resuming" in capsys.readouterr().out
    for a, b in zip(weights(finished), weights(folder), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(losses(finished), losses(folder), rtol=1e-12)


def first_loss(run: RunFolder) -> str:
    """The loss of a run's first step, as the progress bar shows it."""
    return f"loss {read_scalar(run.tensorboard, 'training/loss')[1][0]:.4g}, "


@pytest.mark.slow
def test_another_seed_gives_another_run(start, finished, tmp_path, monkeypatch):
    shown = []

    def stop(bar, text, refresh=True):
        shown.append(text)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("tqdm.tqdm.set_postfix_str", stop)
    assert start(tmp_path / "other", "training.seed=1", EACH_STEP) == 130
    assert shown[0].startswith("loss ") and not shown[0].startswith(first_loss(finished))


def test_patience_needs_a_validation_split(start, scenes, tmp_path, capsys):
    folder = tmp_path / "without-val"
    shutil.copytree(scenes, folder)
    table = (folder / "annotations.csv").read_text()
    (folder / "annotations.csv").write_text(table.replace(",val,", ",test,"))
    assert start(tmp_path / "run", f"data.directory={folder}", "training.patience=1") == 2
    assert "training.patience: 1: there is no photo of split val" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_run_in_half_precision_trains_and_is_read_back(start, tmp_path):
    folder = RunFolder(tmp_path / "half")
    settings = ["training.precision=mixed_float16", "training.epochs=1", "backbone.image_size=32"]
    assert start(folder.path, *settings) == 0
    assert load_run(folder.path).head.get_layer("region_context").compute_dtype == "float16"
    assert keras.config.dtype_policy().name == "float32"
    assert np.isfinite(losses(folder)).all()


@pytest.fixture
def new_classes(scenes, tmp_path) -> pathlib.Path:
    """The test pictures, with a class that no run has heard of, and its attributes."""
    folder = tmp_path / "new-classes"
    shutil.copytree(scenes, folder)
    table = (folder / "class_attributes.csv").read_text().splitlines()
    columns = table[0].split(",")[1:]
    values = ["1" if column in ("red", "plain") else "0" for column in columns]
    table.append(",".join(["red thing", *values]))
    (folder / "class_attributes.csv").write_text("\n".join(table) + "\n")
    with (folder / "classes.csv").open("a") as classes:
        classes.write("red thing,unseen\n")
    rows = list(csv.DictReader((folder / "annotations.csv").open()))
    with (folder / "annotations.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        for row in rows:
            if "red plain" in row["labels"]:
                row["labels"] += ";red thing"
            writer.writerow(row)
    return folder


def test_evaluate_scores_classes_the_run_never_heard_of(finished, new_classes, tmp_path, capsys):
    output = tmp_path / "figures" / "new.json"
    sheet = tmp_path / "new.png"
    command = [str(finished.path), "--data", str(new_classes), "--output", str(output)]
    assert evaluate.main([*command, "--contact-sheet", str(sheet)]) == 0
    figures, before = json.loads(output.read_text()), json.loads(finished.metrics.read_text())
    assert "red thing" in figures["zsl"]["per_class"]
    assert figures["seen"] == before["seen"]  # a class more changes nobody else's figures
    assert "ZSL" in capsys.readouterr().out and sheet.exists()


def test_evaluate_repeats_the_figures_of_the_run(finished, scenes, tmp_path):
    output = tmp_path / "again.json"
    assert evaluate.main([str(finished.path), "--data", str(scenes), "--output", str(output)]) == 0
    figures, before = json.loads(output.read_text()), json.loads(finished.metrics.read_text())
    for part in ("zsl", "gzsl", "seen"):
        assert figures[part] == before[part]


def test_scores_in_a_file_give_the_same_figures_and_the_same_report(
    finished, scenes, tmp_path, monkeypatch
):
    command = [str(finished.path), "--data", str(scenes), "--output"]
    written = []
    for limit in (2**30, 0):
        monkeypatch.setattr("biam_tf.metrics.stored_scores.IN_MEMORY", limit)
        output, report = tmp_path / f"{limit}.json", tmp_path / f"{limit}.html"
        assert evaluate.main([*command, str(output), "--report", str(report)]) == 0
        written.append((json.loads(output.read_text()), report.read_text().count("<svg")))
    assert written[0] == written[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{tmp}", "--data", "{scenes}"], "is not the folder of a run"),
        (["{run}", "--data", "{tmp}"], "annotations.csv"),
        (["{run}", "--data", "{scenes}", "--split", "tset"], "did you mean 'test'"),
        (
            ["{run}", "--data", "{scenes}", "--word-vectors", "{short}"],
            "3",
        ),
    ],
)
def test_evaluate_names_what_is_wrong(finished, scenes, tmp_path, capsys, arguments, message):
    short = tmp_path / "short.npz"
    names = load_run(finished.path).vocabulary.names
    np.savez(short, names=np.array(names), embeddings=np.ones((len(names), 3), np.float32))
    places = {"tmp": tmp_path, "run": finished.path, "scenes": scenes, "short": short}
    command = [argument.format(**places) for argument in arguments]
    assert evaluate.main([*command, "--output", str(tmp_path / "x.json")]) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert not (tmp_path / "x.json").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["head.num_head=4"], "did you mean 'num_heads'"),
        (["training.epochs=ten"], "training.epochs"),
        (["data.directory=/no/such/folder"], "/no/such/folder"),
        (["training.batch_size=41"], "training.batch_size: 41"),
        (["training.batch_size=64", "training.accumulation_steps=2"], "training.batch_size: 64"),
        (["training.select_on=zsl_mAP"], "choose seen_mAP"),
        (["head.top_k=145"], "k=145 is larger than the 144 regions"),
        (["strategy=multi_worker"], "strategy: multi_worker: TF_CONFIG is not set"),
        (["output=/proc/no/run"], "/proc/no/run: cannot be written (No such file or directory)"),
        (["vocabulary.word_vectors=/no/vectors.txt"], "/no/vectors.txt"),
        (["data.name=nus_wide"], "ImageList/Imagelist.txt: not found"),
    ],
)
def test_run_names_what_is_wrong_and_exits_with_2(start, tmp_path, capsys, settings, message):
    assert start(tmp_path / "run", *settings) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
