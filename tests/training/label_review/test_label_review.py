"""Labels that are doubted: their ranking, the list, and the corrected labels."""

import csv
import dataclasses
import shutil

import numpy as np
import pytest

from biam_tf.errors import UserError
from biam_tf.metrics.calibration import fit_classes, sigmoid
from training import review
from training.config import load_config
from training.data.dataset import Split, TaggingDataset
from training.data.folder.corrections import write_corrected
from training.data.folder.reader import read_folder
from training.data.registry import load_dataset
from training.label_review.doubts import rank_doubts
from training.label_review.files import ListedDoubt, ReviewPaths, read_doubts, write_doubts
from training.label_review.folds import FoldScores, plan_photo_folds
from training.report.__main__ import main as write_report_again


@pytest.mark.unit
def test_planted_mistakes_are_doubted_first_and_unknown_labels_never(rng):
    truth = rng.random((400, 5)) < 0.2
    scores = np.where(truth, 2.0, -2.0) + rng.normal(size=truth.shape)
    labels = np.where(truth, 1, -1).astype(np.int8)
    labels[rng.random(labels.shape) < 0.1] = 0
    planted = (rng.random(labels.shape) < 0.03) & (labels != 0)
    labels[planted] *= -1
    halves = np.arange(400) % 2
    folds = [
        FoldScores(np.flatnonzero(halves == fold), scores[halves == fold].astype(np.float32))
        for fold in (0, 1)
    ]
    count = int(planted.sum())
    doubts = rank_doubts(folds, labels, count)
    cells = [(own.row, own.column) for own in doubts]
    assert len(set(cells)) == count and all(labels[cell] for cell in cells)
    assert np.mean([planted[cell] for cell in cells]) > 0.7
    # The probability of each is that of its own fold, and the kinds alternate, most doubted first.
    for fold in folds:
        own = labels[fold.rows]
        expected = sigmoid(fit_classes(fold.scores.astype(float), own).logits(fold.scores))
        rows = {int(row): i for i, row in enumerate(fold.rows)}
        for doubt in doubts:
            if doubt.row in rows:
                assert doubt.probability == pytest.approx(expected[rows[doubt.row], doubt.column])
    assert [own.label for own in doubts[:4]] == ["present", "absent", "present", "absent"]
    wrong, missing = ([own.probability for own in doubts[i::2]] for i in (0, 1))
    assert wrong == sorted(wrong) and missing == sorted(missing, reverse=True)


@pytest.mark.unit
def test_every_training_photo_is_scored_once_by_a_training_without_it(scenes):
    dataset = read_folder(str(scenes))
    config = load_config(None, ["training.batch_size=4", "training.epochs=4"])
    folds = plan_photo_folds(config, dataset, 3)
    rows = np.concatenate([fold.rows for fold in folds])
    images = dataset.split("train").images
    assert sorted(rows.tolist()) == list(range(len(images)))
    for fold in folds:
        scored = {images[row] for row in fold.rows}
        assert not scored & set(fold.dataset.split("train").images)
        assert fold.dataset.split("val").images == tuple(images[row] for row in fold.rows)
        assert 0.4 < fold.share < 0.7
    with pytest.raises(UserError, match="a review needs more photos"):
        plan_photo_folds(load_config(None, ["training.batch_size=32"]), dataset, 3)


@pytest.fixture
def dataset(tmp_path):
    images = ("images/=1+2.jpg", "images/b;c.jpg")
    labels = np.array([[1, -1], [-1, 1]], np.int8)
    names = ("=cmd|' /C calc'!A0", "red, car")
    return TaggingDataset(tmp_path, names, ("seen", "seen"), {"train": Split(images, labels)})


@pytest.mark.unit
def test_a_list_that_a_spreadsheet_has_saved_is_read_back(dataset, tmp_path):
    doubts = [
        ListedDoubt(dataset.images[0], dataset.names[0], "present", 1.25),
        ListedDoubt(dataset.images[1], dataset.names[1], "absent", 98.0, "present"),
    ]
    path = tmp_path / "doubts.csv"
    write_doubts(path, doubts)
    assert ",'=cmd" in path.read_text() or "\"'=cmd" in path.read_text()  # runs in no spreadsheet
    rounded = [dataclasses.replace(doubts[0], probability=1.2), doubts[1]]
    assert read_doubts(path, dataset) == rounded
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    with (tmp_path / "saved.csv").open("w", newline="", encoding="utf-16") as file:
        csv.writer(file, delimiter=";").writerows(rows)
    assert read_doubts(tmp_path / "saved.csv", dataset) == rounded


@pytest.mark.unit
def test_all_mistakes_of_a_list_are_named_with_their_rows(dataset, tmp_path):
    path = tmp_path / "doubts.csv"
    rows = ["x.jpg,=cmd|' /C calc'!A0,present,absent", "images/b;c.jpg,truck,perhaps,wrong"]
    path.write_text("\n".join(["image,class,label,corrected", *rows]))
    with pytest.raises(UserError) as error:
        read_doubts(path, dataset)
    text = str(error.value)
    assert "row 2: no such photo in the data set: 'x.jpg'" in text
    assert "row 3: no such class in the data set: 'truck'" in text
    assert "row 3: label 'perhaps': expected present or absent" in text
    assert "row 3: corrected 'wrong': write one of present, absent, unknown" in text


LISTS = """\
image,split,labels,absent,by
./images/a.jpg,train,cat; red_car,dog,me
images/b.jpg,val,dog,,"x, y"
"""


@pytest.mark.unit
def test_corrected_labels_keep_all_other_cells(tmp_path):
    (tmp_path / "annotations.csv").write_text(LISTS)
    changes = {
        ("images/a.jpg", "cat"): "absent",
        ("images/a.jpg", "dog"): "present",
        ("images/b.jpg", "dog"): "unknown",
        ("images/b.jpg", "cat"): "unknown",  # as it was
    }
    output = tmp_path / "new.csv"
    assert write_corrected(tmp_path, tmp_path / "annotations.csv", changes, output) == 3
    with output.open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[1] == ["./images/a.jpg", "train", "red_car;dog", "cat", "me"]
    assert rows[2] == ["images/b.jpg", "val", "", "", "x, y"]
    assert (tmp_path / "annotations.csv").read_text() == LISTS
    without = LISTS.replace(",absent", "").replace(",dog,me", ",me").replace(",,", ",")
    (tmp_path / "annotations.csv").write_text(without)
    with pytest.raises(UserError, match="row 3: 'dog' cannot become unknown"):
        write_corrected(tmp_path, tmp_path / "annotations.csv", changes, tmp_path / "other.csv")
    assert not (tmp_path / "other.csv").exists()


def test_a_review_finds_lists_and_applies_and_trains_no_fold_twice(
    finished, scenes, tmp_path, capsys
):
    run = tmp_path / "run"
    shutil.copytree(finished.path, run)
    paths = ReviewPaths(run)
    assert review.main([str(run), "--folds", "2", "--top", "9"]) == 0
    said = capsys.readouterr().out
    assert "2 short trainings" in said and "times the steps of the run's own training" in said
    assert "The 9 most doubted training labels: 5 that may be wrong, 4 that may be missing" in said
    dataset = read_folder(scenes)
    doubts = read_doubts(paths.doubts, dataset)
    truth = {
        image: dict(zip(dataset.names, row, strict=True))
        for image, row in zip(*dataclasses.astuple(dataset.split("train")), strict=True)
    }
    for own in doubts:
        assert truth[own.image][own.name] == (1 if own.label == "present" else -1)
    assert paths.page.read_text(encoding="utf-8").count("<article") == 9

    assert review.main([str(run), "--folds", "2", "--top", "5"]) == 0
    assert "epochs of training" not in capsys.readouterr().out
    assert read_doubts(paths.doubts, dataset) == doubts[:5]

    write_doubts(
        paths.doubts,
        [dataclasses.replace(own, corrected=own.suggestion) for own in doubts[:2]],
    )
    assert review.main([str(run), "--folds", "2"]) == 2
    assert "2 labels are corrected there" in capsys.readouterr().err
    assert review.main([str(run), "--apply", str(paths.doubts)]) == 0
    assert "data.annotations=" in capsys.readouterr().out
    config = load_config(run / "config.yaml", [f"data.annotations={paths.annotations}"])
    corrected = load_dataset(config.data).split("train").labels
    changed = np.argwhere(corrected != dataset.split("train").labels)
    assert len(changed) == 2
    assert review.main([str(run), "--apply", str(paths.doubts)]) == 2
    assert "exists; give another file with --output" in capsys.readouterr().err
    write_doubts(paths.doubts, doubts)
    assert write_report_again([str(run)]) == 0
    page = (run / "report/index.html").read_text(encoding="utf-8")
    assert all(f"<small>{own.image}</small>" in page for own in doubts)
