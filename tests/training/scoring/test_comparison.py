import json
import shutil

import numpy as np
import pytest

from training import evaluate
from training.data.data_manifest import DataManifest, hash_of_split
from training.data.folder.reader import read_folder
from training.scoring.comparison import format_comparison


@pytest.fixture(scope="module")
def other(finished, tmp_path_factory):
    """A run with the same data and another head."""
    import keras

    path = tmp_path_factory.mktemp("runs") / "other"
    shutil.copytree(finished.path, path)
    head = keras.models.load_model(path / "model.keras")
    noise = np.random.default_rng(0)
    head.set_weights([w + 0.3 * noise.normal(size=w.shape) for w in head.get_weights()])
    head.save(path / "model.keras")
    return path


@pytest.fixture
def relabeled(other, tmp_path):
    """A run that says it was trained on other labels."""
    path = tmp_path / "relabeled"
    shutil.copytree(other, path)
    manifest = json.loads((path / "data_manifest.json").read_text())
    manifest["splits"]["train"]["labels"] = "0" * 64
    (path / "data_manifest.json").write_text(json.dumps(manifest))
    return path


def compare(scenes, tmp_path, *arguments):
    output = tmp_path / "compared.json"
    command = [*map(str, arguments), "--data", str(scenes), "--output", str(output)]
    return evaluate.main(command), output


def test_a_run_says_which_data_it_used(finished, scenes):
    manifest = DataManifest.read(finished.data_manifest)
    metrics = json.loads(finished.metrics.read_text())
    assert metrics["data_manifest"] == manifest.hash
    assert metrics["data_hash"] == manifest.split_hash("test")
    assert metrics["data_hash"] == hash_of_split(read_folder(scenes), "test")
    assert {name: split.photos for name, split in manifest.splits.items()} == {
        "train": 40,
        "val": 4,
        "test": 8,
    }


def test_one_table_compares_runs_on_the_same_photos(finished, other, scenes, tmp_path, capsys):
    status, output = compare(scenes, tmp_path, finished.path, other)
    assert status == 0
    compared = json.loads(output.read_text())
    single = json.loads(finished.metrics.read_text())
    first, second = compared["runs"]
    assert first["gzsl"]["mAP"] == pytest.approx(single["gzsl"]["mAP"], abs=1e-6)
    apart = compared["differences"][0]["gzsl"]["mAP"]
    assert apart["estimate"] == pytest.approx(second["gzsl"]["mAP"] - first["gzsl"]["mAP"])
    assert apart["estimate"] != 0
    assert apart["low"] < apart["estimate"] < apart["high"]
    assert compared["data_hash"] == single["data_hash"]
    text = capsys.readouterr().out
    assert f"differences from {finished.path}" in text and "95 %" in text and "GZSL mAP" in text


def test_runs_of_other_data_are_refused_unless_told_to(
    finished, relabeled, scenes, tmp_path, capsys
):
    status, output = compare(scenes, tmp_path, finished.path, relabeled)
    message = capsys.readouterr().err
    assert status == 2 and not output.exists()
    assert f"{finished.path} and {relabeled} were trained on other data" in message
    assert "split train: other labels of the same photos" in message
    assert "--allow-different-data" in message
    assert compare(scenes, tmp_path, finished.path, relabeled, "--allow-different-data")[0] == 0
    assert "WARNING: " in capsys.readouterr().out


def test_a_run_that_does_not_say_what_it_was_trained_on_is_refused(
    finished, relabeled, scenes, tmp_path, capsys
):
    (relabeled / "data_manifest.json").unlink()
    assert compare(scenes, tmp_path, finished.path, relabeled)[0] == 2
    assert f"{relabeled} has no data_manifest.json" in capsys.readouterr().err


def test_a_report_of_two_runs_and_a_run_given_twice_are_refused(finished, scenes, tmp_path, capsys):
    path = finished.path
    assert compare(scenes, tmp_path, path, path / "x", "--report", tmp_path / "r.html")[0] == 2
    assert "--report needs exactly one run" in capsys.readouterr().err
    assert compare(scenes, tmp_path, path, path)[0] == 2
    assert "given twice" in capsys.readouterr().err


def test_a_run_does_not_go_on_with_other_data(start, other, tmp_path, capsys):
    stopped = tmp_path / "stopped"
    shutil.copytree(other, stopped)
    (stopped / "metrics.json").unlink()
    manifest = json.loads((stopped / "data_manifest.json").read_text())
    manifest["splits"]["val"]["sizes"] = "0" * 64
    (stopped / "data_manifest.json").write_text(json.dumps(manifest))
    assert start(stopped) == 2
    message = capsys.readouterr().err
    assert "was started with other data: split val: photos of the same" in message


def test_a_comparison_without_a_figure_says_why():
    undefined = {
        "mAP": None,
        "classes": 2,
        "classes_counted": 0,
        "classes_without_positives": 2,
        "F1@3": None,
    }
    run = {"run": "a", "zsl": None, "gzsl": undefined, "seen": undefined, "bootstrap": {}}
    text = format_comparison(
        {"runs": [run, run], "differences": [], "compared_with": "a", "level": 0.95}
    )
    assert text.startswith("No figure is defined on these photos.")
    assert "Classes in mAP: GZSL 0 of 2, seen 0 of 2." in text
    assert "seen: no photo shows one of these classes" in text
