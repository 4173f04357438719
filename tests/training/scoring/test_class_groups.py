"""Which classes count as seen where a run is evaluated: those that it was trained on."""

import json
import shutil

import numpy as np
import pytest

from biam_tf.vocabulary import Vocabulary
from training import evaluate
from training.data.dataset import Split, TaggingDataset
from training.data.folder.reader import read_folder
from training.scoring.class_groups import count_as_trained


@pytest.fixture
def run_of(tmp_path):
    """Makes the folder of a run with these seen classes, as far as it is read here."""

    def make(name, seen, unseen=()):
        folder = tmp_path / name
        folder.mkdir()
        for file in ("config.yaml", "model.keras"):
            (folder / file).touch()
        names = (*seen, *unseen)
        groups = ("seen",) * len(seen) + ("unseen",) * len(unseen)
        rows = np.eye(len(names), 9)
        Vocabulary(names, rows, groups).save(folder / "vocabulary.npz")
        return folder

    return make


def dataset_of(**groups):
    split = Split(("a.jpg",), np.ones((1, len(groups)), np.int8))
    return TaggingDataset("photos", tuple(groups), tuple(groups.values()), {"test": split})


@pytest.mark.unit
def test_the_run_decides_and_differences_are_named(run_of):
    run = run_of("run", ["dog", "hot dog", "sea"], ["sky"])
    dataset = dataset_of(dog="seen", Hot_Dog="unseen", sea="unseen", sky="seen", tree="unseen")
    counted = count_as_trained(dataset, [run])
    assert counted.dataset.groups == ("seen", "seen", "seen", "unseen", "unseen")
    assert counted.dataset.groups_as_read == dataset.groups
    assert counted.differences == (
        "2 of the 3 unseen classes were trained on by this run and count as seen, whatever photos "
        "says: Hot_Dog, sea",
        "1 of the 2 seen classes were not trained on by this run and count as unseen, whatever "
        "photos says: sky",
    )


@pytest.mark.unit
def test_groups_that_agree_stay_the_same(run_of):
    dataset = dataset_of(dog="seen", sky="unseen")
    counted = count_as_trained(dataset, [run_of("run", ["dog", "sea"], ["sky"])])
    assert counted.dataset is dataset and counted.differences == ()


@pytest.mark.unit
def test_what_one_of_several_runs_was_trained_on_is_seen(run_of):
    dataset = dataset_of(dog="seen", sky="unseen", sea="unseen")
    runs = [run_of("a", ["dog"]), run_of("b", ["sky"])]
    counted = count_as_trained(dataset, runs)
    assert counted.dataset.groups == ("seen", "seen", "unseen")
    assert "trained on by one of these runs" in counted.differences[0]


@pytest.mark.unit
def test_an_unseen_class_like_a_trained_one_is_named_even_where_that_is_not_scored(run_of):
    run = run_of("run", ["dog", "sea"])
    counted = count_as_trained(dataset_of(dogs="unseen", sky="unseen"), [run])
    vocabulary = Vocabulary(("dogs", "sky"), np.eye(9)[[8, 1]], ("unseen",) * 2)
    (warning,) = counted.warnings(vocabulary)
    assert "'dogs' (unseen) and 'dog' (seen): their names differ" in warning
    assert "'sky' (unseen) and 'sea' (seen): their embeddings are the same" in warning


def test_evaluation_counts_what_was_trained_as_seen(finished, scenes, tmp_path, capsys):
    data, output = tmp_path / "data", tmp_path / "figures.json"
    shutil.copytree(scenes, data)
    text = (data / "classes.csv").read_text().replace(",seen", ",unseen")
    (data / "classes.csv").write_text(text)
    command = [str(finished.path), "--output", str(output)]
    report = ["--report", str(tmp_path / "report.html")]
    assert evaluate.main([*command, "--data", str(data), *report]) == 0
    found = json.loads(output.read_text())
    seen = len(read_folder(scenes).seen)
    assert f"Warning: {seen} of the 72 unseen classes were trained on" in capsys.readouterr().out
    assert f"{seen} of the 72 unseen classes" in (tmp_path / "report.html").read_text()
    before = json.loads(finished.metrics.read_text())
    for part in ("zsl", "gzsl", "seen"):
        assert found[part]["mAP"] == pytest.approx(before[part]["mAP"], abs=1e-3)
    assert found["data_hash"] == before["data_hash"]
