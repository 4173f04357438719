import csv
import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from biam_tf.errors import UserError
from biam_tf.shape_painter import OBJECT_CLASSES, RADII, Box, ObjectClass, paint
from training.config import DataConfig
from training.data.folder.reader import check_photos, read_folder
from training.data.registry import load_dataset
from training.data.scenes import reader as scenes
from training.data.scenes.reader import ATTRIBUTES, ScenesSettings, draw_scenes, unseen_classes

pytestmark = pytest.mark.unit

PICTURES = 120


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return draw_scenes(tmp_path_factory.mktemp("scenes") / "drawn", PICTURES, seed=3)


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def contents(directory):
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def test_scenes_are_a_folder_data_set(drawn):
    dataset = read_folder(drawn)
    check_photos(dataset)
    assert {name: len(split) for name, split in dataset.splits.items()} == {
        "train": PICTURES,
        "val": PICTURES // 10,
        "test": PICTURES // 5,
    }
    assert (len(dataset.seen), len(dataset.unseen)) == (48, 24)
    for split in dataset.splits.values():
        count = (split.labels == 1).sum(1)
        assert set(count) == {2, 3, 4}
        assert not (split.labels == 0).any()


def test_training_and_validation_show_seen_classes_only(drawn):
    dataset = read_folder(drawn)
    for name in ("train", "val"):
        assert not (dataset.split(name).labels[:, dataset.unseen] == 1).any()
    assert (dataset.split("test").labels[:, dataset.unseen] == 1).sum() > 10


@pytest.mark.parametrize("seed", range(5))
def test_every_attribute_is_seen_and_unseen_equally_often(seed):
    unseen = unseen_classes(seed)
    assert len(unseen) == 24
    for attribute in ATTRIBUTES:
        with_it = [c for c in OBJECT_CLASSES if attribute in c]
        assert sum(c in unseen for c in with_it) == len(with_it) // 3


def test_another_seed_has_other_unseen_classes():
    assert unseen_classes(0) != unseen_classes(1)


def test_the_attribute_table_says_what_the_names_say(drawn):
    rows = table(drawn / "class_attributes.csv")
    assert list(rows[0]) == ["name", *ATTRIBUTES]
    assert [row["name"] for row in rows] == list(read_folder(drawn).names)
    for row in rows:
        assert {a for a in ATTRIBUTES if row[a] == "1"} == set(row["name"].split())


def test_every_labeled_object_has_a_box_that_holds_it(drawn):
    boxes = {}
    for row in table(drawn / "boxes.csv"):
        box = Box(*(int(row[key]) for key in ("x0", "y0", "x1", "y1")))
        assert 0 <= box.x0 < box.x1 <= 96 and 0 <= box.y0 < box.y1 <= 96
        boxes.setdefault(row["image"], {})[row["class"]] = box
    for row in table(drawn / "annotations.csv"):
        assert set(boxes[row["image"]]) == set(row["labels"].split(";"))
    for of_a_picture in boxes.values():
        placed = list(of_a_picture.values())
        overlaps = [a.overlap(b) for i, a in enumerate(placed) for b in placed[:i]]
        assert max(overlaps) < 0.1


def test_an_object_has_its_color_inside_its_box():
    picture, (box,) = paint(np.random.default_rng(0), 96, [ObjectClass("green", "plain", "square")])
    pixels = np.asarray(picture, float)
    middle = pixels[(box.y0 + box.y1) // 2, (box.x0 + box.x1) // 2]
    assert middle[1] > 1.5 * max(middle[0], middle[2])


def test_boxes_overlap_as_their_areas_say():
    box = Box(0, 0, 10, 10)
    assert box.overlap(box) == 1
    assert box.overlap(Box(10, 0, 20, 10)) == 0
    assert box.overlap(Box(5, 0, 15, 10)) == pytest.approx(50 / 150)


@pytest.mark.parametrize("size", [32, 96, 224])
def test_pictures_of_any_size_can_be_painted(size):
    picture, boxes = paint(np.random.default_rng(1), size, OBJECT_CLASSES[:4])
    assert picture.size == (size, size) and picture.mode == "RGB"
    assert all(max(b.x1 - b.x0, b.y1 - b.y0) <= 2 * round(size * RADII[1]) for b in boxes)


def test_the_same_seed_draws_the_same_bytes(drawn, tmp_path):
    again = draw_scenes(tmp_path / "again", PICTURES, seed=3)
    assert contents(again) == contents(drawn)
    other = draw_scenes(tmp_path / "other", 10, seed=4)
    assert contents(other)["images/00000.png"] != contents(drawn)["images/00000.png"]


def test_scenes_drawn_before_are_used_again(drawn):
    stamp = (drawn / "annotations.csv").stat().st_mtime_ns
    steps = []
    draw_scenes(drawn, PICTURES, seed=3, progress=lambda *step: steps.append(step))
    assert (drawn / "annotations.csv").stat().st_mtime_ns == stamp
    assert not steps


def test_progress_counts_all_pictures(tmp_path):
    steps = []
    draw_scenes(tmp_path / "few", 10, image_size=32, progress=lambda *step: steps.append(step))
    assert steps == [(done, 13) for done in range(1, 14)]
    assert Image.open(tmp_path / "few" / "images" / "00012.png").size == (32, 32)


def test_scenes_drawn_otherwise_are_not_overwritten(drawn):
    before = contents(drawn)
    with pytest.raises(
        UserError, match=r"drawn with .*seed 3.*, not with .*seed 5.*nothing was changed"
    ):
        draw_scenes(drawn, PICTURES, seed=5)
    assert contents(drawn) == before


@pytest.mark.parametrize("text", [None, "{", "[]"])
def test_a_folder_of_something_else_is_not_overwritten(tmp_path, text):
    (tmp_path / "thesis.txt").write_text("years of work")
    if text is not None:
        (tmp_path / "scenes.json").write_text(text)
    with pytest.raises(UserError, match="nothing was changed"):
        draw_scenes(tmp_path)
    assert (tmp_path / "thesis.txt").exists()


def test_a_drawing_that_is_interrupted_leaves_nothing_behind(tmp_path):
    def interrupt(done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw_scenes(tmp_path / "drawn", 10, progress=interrupt)
    assert not list(tmp_path.iterdir())


def test_two_runs_may_draw_the_same_scenes_at_once(tmp_path, monkeypatch):
    draw_into = scenes._draw_into

    def overtaken(aside, settings, progress):
        draw_into(aside, settings, progress)
        aside.parent.joinpath("drawn").mkdir()
        for name in ("scenes.json", "annotations.csv"):
            (tmp_path / "drawn" / name).write_bytes((aside / name).read_bytes())

    monkeypatch.setattr(scenes, "_draw_into", overtaken)
    assert draw_scenes(tmp_path / "drawn", 10) == tmp_path / "drawn"
    assert [path.name for path in tmp_path.iterdir()] == ["drawn"]


def test_load_dataset_draws_below_data_by_default(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = ScenesSettings(pictures=10, seed=2)
    dataset = load_dataset(DataConfig(settings=settings))
    assert dataset.directory == settings.directory
    assert json.loads((tmp_path / "data/scenes-10-seed2/scenes.json").read_text())["seed"] == 2
    elsewhere = DataConfig(directory="mine", settings=settings)
    assert load_dataset(elsewhere).fingerprint == dataset.fingerprint
