"""Which photos a run trains on, and how it varies them; whole runs through the command line."""

import json

import pytest
from tiny_run import TINY

from training import run
from training.data import photo_check
from training.data.folder import read_folder
from training.data.sampling import Capped
from training.run_folder import RunFolder


@pytest.fixture(scope="module")
def pictures(scenes, tmp_path_factory):
    """The drawn pictures, of which a training one is cut and a test one is missing."""
    directory = tmp_path_factory.mktemp("pictures") / "scenes"
    directory.mkdir()
    for path in scenes.rglob("*"):
        if path.is_file():
            copy = directory / path.relative_to(scenes)
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes(path.read_bytes())
    rows = [row.split(",") for row in (scenes / "annotations.csv").read_text().splitlines()]
    training = next(row[0] for row in rows if row[1] == "train")
    test = next(row[0] for row in rows if row[1] == "test")
    (directory / training).write_bytes((directory / training).read_bytes()[:300])
    (directory / test).unlink()
    return directory, [training, test]


@pytest.fixture
def train(pictures):
    def train(folder, *settings):
        arguments = [f"data.directory={pictures[0]}", "data.name=folder", f"output={folder}"]
        command = []
        for setting in [*TINY, *arguments, *settings]:
            command += ["--set", setting]
        return run.main(command)

    return train


def test_broken_photos_are_left_out_of_training_and_evaluation(
    train, pictures, tmp_path, capsys, monkeypatch
):
    folder = RunFolder(tmp_path / "run")
    assert train(folder.path, "data.max_broken_share=0.01") == 2
    error = capsys.readouterr().err
    assert "2 of 52 photos cannot be read (data.max_broken_share: 0.01 allows 0)" in error
    assert all(image in error for image in pictures[1]) and not folder.path.exists()

    allowed = ["data.max_broken_share=0.05", "training.epochs=1"]
    assert train(folder.path, *allowed) == 0
    assert "2 photos are broken and left out, 3.8 % of 52" in capsys.readouterr().out
    assert json.loads(folder.metrics.read_text())["images"] == 7
    listed = (folder.path / "broken_photos.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in listed] == ["image", *pictures[1]]

    # Whoever goes on takes the list as it is.
    monkeypatch.setattr(photo_check, "find_broken", None)
    folder.metrics.unlink()
    assert train(folder.path, *allowed) == 0
    assert json.loads(folder.metrics.read_text())["images"] == 7


def test_the_photos_of_an_epoch_are_chosen_and_varied_as_set(start, scenes, tmp_path, capsys):
    dataset = read_folder(scenes)
    labels = dataset.split("train").labels[:, dataset.seen]
    shown = (labels > 0).sum(axis=1)
    sampler = Capped(labels[shown <= 2], 2, seed=0, epochs=1)
    assert 8 < sampler.epoch_size < (shown <= 2).sum() < 40
    settings = ["data.max_labels=2", "data.sampling=capped", "data.max_images_per_class=2"]
    settings += ["data.augmentation={flip: true, crop_scale: [0.5, 1.0]}", "training.epochs=1"]
    assert start(tmp_path / "run", *settings) == 0
    printed = capsys.readouterr().out
    assert f"{(shown > 2).sum()} training photos have more than 2 labels: left out" in printed
    log = json.loads(RunFolder(tmp_path / "run").log.read_text())
    assert log["step"] == sampler.epoch_size // 8


def test_too_low_a_limit_of_labels_is_an_error(start, tmp_path, capsys):
    assert start(tmp_path / "run", "data.max_labels=1") == 2
    assert "data.max_labels: 1, but no training photo has so few" in capsys.readouterr().err
