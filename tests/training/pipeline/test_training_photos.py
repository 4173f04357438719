"""Which photos a run trains on, and how it varies them; whole runs through the command line."""

import json
import shutil

import pytest
from tiny_run import QUICK

from training.data.folder.reader import read_folder
from training.data.input.broken_photos import to_csv
from training.data.input.photo_check import broken_photos
from training.data.input.sampling import Capped
from training.pipeline.run_folder import RunFolder


@pytest.fixture
def pictures(scenes, tmp_path):
    """The drawn pictures, of which a training one is cut and a test one is missing."""
    directory = shutil.copytree(scenes, tmp_path / "scenes")
    rows = [row.split(",") for row in (scenes / "annotations.csv").read_text().splitlines()]
    training = next(row[0] for row in rows if row[1] == "train")
    test = next(row[0] for row in rows if row[1] == "test")
    (directory / training).write_bytes((directory / training).read_bytes()[:300])
    (directory / test).unlink()
    return directory, [training, test]


@pytest.mark.slow
def test_broken_photos_are_left_out_of_training_and_evaluation(start, pictures, tmp_path, capsys):
    folder = RunFolder(tmp_path / "run")
    settings = [f"data.directory={pictures[0]}", "data.max_broken_share=0.05", "training.epochs=1"]
    settings += QUICK
    assert start(folder.path, *settings) == 0
    assert "2 photos are broken and left out, 3.8 % of 52" in capsys.readouterr().out
    assert json.loads(folder.metrics.read_text())["images"] == 7
    assert json.loads(folder.log.read_text())["step"] == 39 // 8
    listed = (folder.path / "broken_photos.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in listed] == ["image", *pictures[1]]


def test_more_broken_photos_than_the_share_stop_a_run(start, pictures, tmp_path, capsys):
    settings = [f"data.directory={pictures[0]}", "data.max_broken_share=0.01"]
    assert start(tmp_path / "run", *settings) == 2
    error = capsys.readouterr().err
    assert "2 of 52 photos cannot be read (data.max_broken_share: 0.01 allows 0)" in error
    assert all(image in error for image in pictures[1]) and not (tmp_path / "run").exists()


def test_a_run_that_resumes_takes_its_list_of_broken_photos(pictures, tmp_path):
    dataset = read_folder(pictures[0], look_for_photos=False)
    found = broken_photos(dataset, 96, 0.05, tmp_path / "list.csv")
    assert [photo.image for photo in found] == pictures[1]
    (tmp_path / "list.csv").write_text(to_csv(found))
    for image in dataset.split("train").images:
        (pictures[0] / image).unlink()  # no photo is looked at again
    assert broken_photos(dataset, 96, 0.05, tmp_path / "list.csv") == found


@pytest.mark.slow
def test_the_photos_of_an_epoch_are_chosen_and_varied_as_set(start, scenes, tmp_path, capsys):
    dataset = read_folder(scenes)
    labels = dataset.split("train").labels[:, dataset.seen]
    shown = (labels > 0).sum(axis=1)
    sampler = Capped(labels[shown <= 2], 2, seed=0, epochs=1)
    assert 8 < sampler.epoch_size < (shown <= 2).sum() < 40
    settings = ["data.max_labels=2", "data.sampling=capped", "data.max_images_per_class=2"]
    settings += ["data.augmentation={flip: true, crop_scale: [0.5, 1.0]}", "training.epochs=1"]
    assert start(tmp_path / "run", *settings, *QUICK) == 0
    printed = capsys.readouterr().out
    assert f"{(shown > 2).sum()} training photos have more than 2 labels: left out" in printed
    log = json.loads(RunFolder(tmp_path / "run").log.read_text())
    assert log["step"] == sampler.epoch_size // 8


def test_too_low_a_limit_of_labels_is_an_error(start, tmp_path, capsys):
    assert start(tmp_path / "run", "data.max_labels=1") == 2
    assert "data.max_labels: 1, but no training photo has so few" in capsys.readouterr().err
