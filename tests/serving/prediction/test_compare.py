"""What a new model would change: counts against counts made by hand, and the command line."""

import csv
import pathlib
import shutil

import pytest
from PIL import Image

from biam_tf.class_calibration import Tag
from serving import compare
from serving.prediction.comparison import GAINED, LOST, Summary, compare_photos, compare_tags
from serving.prediction.comparison import write_changes as write
from serving.prediction.photo_list import find_photos

pytestmark = pytest.mark.unit

# Probabilities of a, b and c by photo; a class is present from 0.5 on.
OLD = {"1.png": (0.9, 0.6, 0.1), "2.png": (0.2, 0.8, 0.7), "3.png": (0.1, 0.2, 0.3)}
NEW = {"1.png": (0.8, 0.4, 0.7), "2.png": (0.2, 0.8, 0.7), "3.png": (0.1, 0.6, 0.3)}


def tags(probabilities):
    found = [Tag(name, 10 * p, p, p >= 0.5) for name, p in zip("abc", probabilities, strict=True)]
    return tuple(sorted(found, key=lambda tag: -tag.score))


class Stub:
    """Answers by the color of a photo's first byte after the header: its file's number."""

    has_thresholds = True

    def __init__(self, answers, folder):
        self.answers = {(folder / name).read_bytes(): p for name, p in answers.items()}

    def tag(self, contents):
        return [tags(self.answers[c]) if c in self.answers else "not a photo" for c in contents]


@pytest.fixture
def photos(tmp_path) -> pathlib.Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, name in enumerate([*OLD, "broken.png"]):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(folder / name)
    return folder


def test_lost_and_gained_tags_are_counted_by_class_and_photo(photos, tmp_path):
    stubs = Stub(OLD, photos), Stub(NEW, photos)
    table = tmp_path / "changes.csv"
    summary = Summary()
    for photo in write(str(table), compare_photos(*stubs, find_photos([str(photos)]), None)):
        summary.add(photo, 10)
    assert [pathlib.Path(p.path).name for p in summary.problems] == ["broken.png"]
    assert (summary.photos, summary.unchanged, summary.same_best, summary.kept) == (3, 1, 2, 3)
    assert dict(summary.changes) == {LOST: 1, GAINED: 2}
    assert {name: dict(kinds) for name, kinds in summary.by_class.items()} == {
        "b": {LOST: 1, GAINED: 1},
        "c": {GAINED: 1},
    }
    assert summary.changed_share == pytest.approx(3 / 6)
    assert summary.mean_shift == pytest.approx((0.9 / 3 + 0 + 0.4 / 3) / 3)
    with open(table, newline="", encoding="utf-8") as file:
        rows = [[pathlib.Path(row[0]).name, *row[1:]] for row in csv.reader(file)]
    assert rows[1:] == [
        ["1.png", "c", "gained", "1", "7", "0.1", "0.7"],
        ["1.png", "b", "lost", "6", "4", "0.6", "0.4"],
        ["3.png", "b", "gained", "2", "6", "0.2", "0.6"],
    ]
    assert "1.png: +c, -b" in "\n".join(summary.lines(10))


def test_the_best_n_are_compared_without_thresholds():
    photo = compare_tags("x", tags(OLD["1.png"]), tags(NEW["1.png"]), top=2)
    assert photo.kept == 1 and [(c.name, c.kind) for c in photo.changes] == [
        ("c", GAINED),
        ("b", LOST),
    ]


@pytest.mark.integration
def test_a_run_and_its_export_give_the_same_tags(finished, tagger_dir, scenes, tmp_path, capsys):
    picture = next((scenes / "images").rglob("*.png"))
    shutil.copy(picture, tmp_path / "scene.png")
    (tmp_path / "broken.jpg").write_bytes(b"no photo")
    arguments = [str(finished.path), str(tagger_dir), str(tmp_path), "--most-changes", "0"]
    assert compare.main(arguments) == 0
    shown = capsys.readouterr()
    assert "photos compared       1\n  with the same tags  1  (100.0%)" in shown.out
    assert "broken.jpg: " in shown.err
    assert compare.main([str(finished.path), str(tmp_path), str(tmp_path)]) == 2
