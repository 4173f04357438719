"""Short trainings without some of the seen classes, in whole runs."""

import dataclasses
import json
import os
import signal

import numpy as np
import pytest

from biam_tf.metrics.held_out import read_folds
from biam_tf.runs import load_run
from training.config import load_config
from training.data.dataset import About
from training.data.folder.reader import read_folder
from training.pipeline.held_out import plan_folds
from training.pipeline.run_folder import RunFolder

# The progress bar shows the loss of every step, by which the run below is stopped. At this rate, so
# few steps on small pictures are enough for slopes.
WITH_FOLDS = ["training.epochs=1", "thresholds.held_out_folds=2", "training.fetch_every=1"]
WITH_FOLDS += ["backbone.image_size=32", "training.optimizer.learning_rate=1e-2"]


@pytest.mark.unit
def test_folds_leave_out_every_third_class_once_and_photos_only_where_they_must(scenes):
    dataset = read_folder(str(scenes))
    config = load_config(None, ["thresholds.held_out_folds=3", "training.batch_size=2"])
    folds = plan_folds(config, dataset)
    assert sorted(np.concatenate([fold.held_out for fold in folds])) == dataset.seen.tolist()
    assert all(len(fold.held_out) == 16 for fold in folds)
    for fold in folds:
        assert not set(fold.held_out) & set(fold.dataset.seen)
        assert len(fold.dataset.split("train")) == len(dataset.split("train"))
    pure = dataclasses.replace(dataset, about=About(unseen_in_training=False))
    for fold in plan_folds(config, pure):
        shown = fold.dataset.split("train").labels[:, fold.held_out] > 0
        assert not shown.any() and len(shown) < len(dataset.split("train"))
    off = load_config(None, ["thresholds.held_out_folds=0"])
    assert plan_folds(off, dataset) == []


@pytest.mark.unit
def test_too_few_classes_or_photos_give_no_folds_and_a_reason(scenes, capsys):
    dataset = read_folder(str(scenes))
    assert plan_folds(load_config(None, ["training.batch_size=64"]), dataset) == []
    said = capsys.readouterr().out
    assert "unseen classes get no probability" in said and "training.batch_size: 64" in said


@pytest.mark.slow
def test_a_run_stopped_in_a_fold_resumes_to_the_same_thresholds(
    start, tmp_path, monkeypatch, capsys
):
    whole, stopped = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "stopped")
    assert start(whole.path, *WITH_FOLDS) == 0
    said = capsys.readouterr().out
    assert "held-out fold 2 of 2: training without 16 of 48 seen classes" in said
    assert "held-out folds: " in said and " s (thresholds.held_out_folds: 0" in said
    thresholds = load_run(whole.path).thresholds
    assert np.isfinite(thresholds.slopes).all() and np.isfinite(thresholds.rule.slopes).all()
    assert thresholds.fitted_on["held_out"]["classes"] == 32
    assert {path.name for path in whole.held_out.iterdir()} == {"fold_1.npz", "fold_2.npz"}
    assert (
        json.loads(whole.metrics.read_text())["reliability"]["unseen"]["at_threshold"]["tags"] >= 0
    )

    steps = []

    def stop_in_a_fold(bar, text, refresh=True):
        steps.append(text)
        if len(steps) == 12:  # 5 of the run, 5 of the first fold
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr("tqdm.tqdm.set_postfix_str", stop_in_a_fold)
        assert start(stopped.path, *WITH_FOLDS) == 130
    assert not stopped.metrics.exists() and (stopped.held_out / "fold_1.npz").exists()
    assert start(stopped.path, *WITH_FOLDS) == 0
    assert "resuming" in capsys.readouterr().out
    for one, other in zip(
        read_folds(whole.held_out, 2), read_folds(stopped.held_out, 2), strict=True
    ):
        np.testing.assert_array_equal(one.scores, other.scores)
        np.testing.assert_array_equal(one.held_out, other.held_out)
    assert stopped.thresholds.read_text() == whole.thresholds.read_text()
