"""Differences between rows of a table, from the runs themselves."""

import shutil

import numpy as np
import pytest

from biam_tf.metrics.bootstrap import bootstrap_differences
from training.reproduction.entries import Entry, TrainedEntry, open_run, scores_of_run
from training.reproduction.results import compare


@pytest.fixture
def rows(finished, tmp_path):
    """Two rows of two seeds each, all copies of one run, and one that failed."""
    folders = [
        shutil.copytree(finished.path, tmp_path / f"{key}{seed}") for key in "ab" for seed in (0, 1)
    ]
    return {
        "a": TrainedEntry(Entry("a"), folders=tuple(folders[:2])),
        "gone": TrainedEntry(Entry("gone"), error="it is gone"),
        "b": TrainedEntry(Entry("b"), folders=tuple(folders[2:])),
    }


@pytest.mark.slow
def test_rows_are_compared_on_the_scores_of_their_runs(rows):
    same = compare(rows, "b", k=3, seed=0)
    assert set(same.differences) == {"a"} and same.resamples == 1000
    assert same.differences["a"]["zsl"]["mAP"].estimate == 0

    # Scores are computed once: those that are kept are taken.
    opened, folder = open_run(rows["a"].folders[0]), rows["a"].folders[0]
    labels = opened.split.labels
    scores = scores_of_run(folder)
    assert scores.shape == labels.shape and scores.dtype == np.float32
    better = scores + labels
    np.save(folder / "scores.npy", better)
    found = compare(rows, "b", k=3, seed=0).differences["a"]
    trainings = [np.stack([scores, scores]), np.stack([better, scores])]
    (expected,) = bootstrap_differences(trainings, labels, opened.dataset.groups, k=3, seed=0)
    assert found == expected and found["gzsl"]["mAP"].estimate > 0


def test_a_row_without_another_is_compared_with_nothing(rows):
    assert compare({"b": rows["b"]}, "b", k=3, seed=0).differences == {}
