"""`python -m serving.predict`: tables, resuming, broken photos, and what it refuses."""

import csv
import json
import os
import shutil

import pytest

from biam_tf import Tagger
from serving import predict
from serving.prediction import tagging
from serving.prediction.journal import Journal
from serving.prediction.taggers import LocalTagger


@pytest.fixture
def asked(monkeypatch):
    """The photos that the model was asked about, by batch."""
    batches = []
    tag = tagging.tag_batch

    def counted(tagger, keys):
        batches.append([os.path.basename(key) for key in keys])
        return tag(tagger, keys)

    monkeypatch.setattr(tagging, "tag_batch", counted)
    return batches


@pytest.fixture
def run(finished, photos, tmp_path):
    """Returns a function that runs the command and returns its status."""

    def run(*options, paths=(photos,)):
        return predict.main([*map(str, paths), "--model", str(finished.path), *map(str, options)])

    return run


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_the_tags_are_those_of_the_tagger(run, finished, photos, tmp_path, capsys):
    names = finished.vocabulary  # a path; the classes are the run's own
    assert names.exists()
    out = tmp_path / "tags.jsonl"
    assert run("--jsonl", out, "--csv", tmp_path / "tags.csv", "--top", "3", "--table") == 1
    shown = capsys.readouterr()
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    found = sorted(path for path in photos.rglob("[0-9b]*.*") if path.is_file())
    assert sorted(line["photo"] for line in lines) == sorted(map(str, found))
    tagger = Tagger.load(finished.path)
    tagged = 0
    for line in lines:
        if line["photo"].endswith("broken.jpg"):
            assert line["tags"] == [] and "not a whole" in line["problem"]
            continue
        expected = tagger.tag(line["photo"], top=3)
        assert [tag["name"] for tag in line["tags"]] == [tag.name for tag in expected]
        for tag, other in zip(line["tags"], expected, strict=True):
            assert tag["score"] == pytest.approx(other.score, rel=1e-4, abs=1e-5)
            assert tag["probability"] == pytest.approx(other.probability, abs=1e-4)
            assert tag["present"] == other.present
        tagged += 1
    assert tagged == 20
    table = rows_of(tmp_path / "tags.csv")
    assert table[0] == ["photo", "tag", "score", "probability", "present"]
    assert len(table) == 1 + 3 * 20
    flat = [(line["photo"], tag["name"]) for line in lines for tag in line["tags"]]
    assert [tuple(row[:2]) for row in table[1:]] == flat
    assert f"not tagged: {photos / 'broken.jpg'}: not a whole JPEG" in shown.err
    assert "1 of 21 photos were not tagged" in shown.err
    assert str(photos / "00.png") in shown.out or str(photos / "00.jpg") in shown.out


def test_a_second_run_asks_for_changed_photos_alone(run, asked, photos, tmp_path):
    first, second = tmp_path / "1.csv", tmp_path / "2.csv"
    run("--csv", first)
    assert sum(map(len, asked)) == 21
    asked.clear()
    touched, changed, other = sorted(photos.glob("0*.*"))[:3]
    os.utime(touched, ns=(5, 5))  # the same contents
    run("--csv", second)
    assert asked == [] and second.read_bytes() == first.read_bytes()
    status = changed.stat()
    shutil.copy(other, changed)
    os.utime(changed, ns=(status.st_atime_ns, status.st_mtime_ns))
    run("--csv", second)
    assert asked == [[changed.name]]
    rows = rows_of(second)
    by_photo = {name: [row[1:] for row in rows if row[0] == str(name)] for name in (changed, other)}
    assert by_photo[changed] == by_photo[other]
    asked.clear()
    run("--again")
    assert sum(map(len, asked)) == 21


def test_a_stopped_run_continues_and_writes_the_same_bytes(run, asked, tmp_path, monkeypatch):
    run("--csv", tmp_path / "whole.csv", "--jsonl", tmp_path / "whole.jsonl")
    add, stopped = Journal.add, []

    def stop(self, answers):
        answers = list(answers)
        if not stopped and answers:
            stopped.append(True)
            add(self, answers[:7])
            with open(self.path, "ab") as file:
                file.write(b'{"photo": "/cut of')
            raise KeyboardInterrupt
        add(self, answers)

    monkeypatch.setattr(Journal, "add", stop)
    assert run("--again", "--csv", tmp_path / "again.csv") == 130
    assert not (tmp_path / "again.csv").exists()
    asked.clear()
    again = ["--csv", tmp_path / "again.csv", "--jsonl", tmp_path / "again.jsonl"]
    assert run(*again) == 1
    assert sum(map(len, asked)) == 21 - 7
    for ending in ("csv", "jsonl"):
        whole = (tmp_path / f"whole.{ending}").read_bytes()
        assert (tmp_path / f"again.{ending}").read_bytes() == whole


def test_a_limit_decides_what_is_listed(run, finished, photos, tmp_path):
    photo = next(photos.glob("00.*"))
    tags = Tagger.load(finished.path).tag(photo)
    cut = (tags[6].score + tags[7].score) / 2
    assert run("--threshold", cut, "--csv", tmp_path / "a.csv", paths=[photo]) == 0
    rows = rows_of(tmp_path / "a.csv")[1:]
    assert [row[1] for row in rows] == [tag.name for tag in tags[:7]]
    assert {row[4] for row in rows} == {"yes"}
    assert run("--present", "--csv", tmp_path / "a.csv", paths=[photo]) == 0
    assert [r[1] for r in rows_of(tmp_path / "a.csv")[1:]] == [t.name for t in tags if t.present]
    likely = sorted((t.probability for t in tags if t.probability is not None), reverse=True)
    limit = (likely[3] + likely[4]) / 2
    assert run("--probability", limit, "--csv", tmp_path / "a.csv", paths=[photo]) == 0
    rows = rows_of(tmp_path / "a.csv")[1:]
    assert {row[1] for row in rows} == {t.name for t in tags if (t.probability or 0) >= limit}


def test_arguments_that_overlap_name_a_photo_once_and_names_may_be_formulas(
    run, photos, tmp_path, monkeypatch
):
    danger = photos / "b" / "=1+1.png"
    shutil.copy(next(photos.glob("00.*")), danger)
    monkeypatch.chdir(danger.parent)
    paths = ["=1+1.png", photos / "b", danger]
    assert run("--csv", tmp_path / "a.csv", "--top", 1, paths=paths) == 0
    rows = rows_of(tmp_path / "a.csv")[1:]
    assert [row[0] for row in rows].count("'=1+1.png") == 1
    assert len(rows) == 11


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--top", "0"], "--top 0: use at least 1"),
        (["--probability", "2"], "--probability 2: use a number from 0 to 1"),
        (["--classes", " ,  "], "--classes: no class is named"),
        (["--classes", "\u200b"], "a class needs a name"),
        (["--csv", "none/tags.csv"], "no such folder as"),
        (["--csv", "."], "is a folder; name a file"),
    ],
)
def test_what_cannot_be_done_is_one_message(run, options, message, capsys, cache):
    assert run(*options) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert len(errors) == 1 and message in errors[0]
    assert list(cache.rglob("*.lock")) == []


def test_what_is_not_there_is_named(run, photos, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert run(paths=[tmp_path / "empty"]) == 2
    assert f"{tmp_path / 'empty'}: no photo in it" in capsys.readouterr().err
    assert run(paths=[photos, tmp_path / "gone"]) == 2
    assert f"error: {tmp_path / 'gone'}: no such file or folder" in capsys.readouterr().err
    drawn = tmp_path / "new" / "drawn"
    unknown = ["--preset", "efficientnet_lite0_imagenet_minilmm", "--draw", str(drawn)]
    assert predict.main([str(photos), *unknown]) == 2
    assert not drawn.parent.exists()
    assert "did you mean 'efficientnet_lite0_imagenet_minilm'?" in capsys.readouterr().err
    assert predict.main([str(photos), "--model", str(tmp_path / "gone")]) == 2
    assert "gone: no such folder" in capsys.readouterr().err


def test_folders_that_may_not_be_written_are_named_before_photos_are_tagged(
    run, asked, photos, tmp_path, monkeypatch, capsys
):
    (tmp_path / "drawn").mkdir()
    (tmp_path / "file").touch()
    assert run("--draw", tmp_path / "file" / "drawn") == 2
    assert f"{tmp_path / 'file'} is a file; name a folder" in capsys.readouterr().err
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # tests may run as root
    for options, folder in (
        (["--csv", tmp_path / "tags.csv"], tmp_path),
        (["--draw", tmp_path / "drawn"], tmp_path / "drawn"),
        (["--draw", tmp_path / "new"], tmp_path),
    ):
        assert run(*options) == 2
        assert f"{folder} may not be written; name another folder" in capsys.readouterr().err
    assert asked == [] and not (tmp_path / "new").exists()


def test_a_full_disk_leaves_what_was_there(run, photos, tmp_path, monkeypatch, capsys):
    out = tmp_path / "tags.csv"
    out.write_text("before")
    from serving.prediction import tables

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tables, "open_table", full)
    assert run("--csv", out) == 2
    assert "cannot be written (No space left on device)" in capsys.readouterr().err
    assert out.read_text() == "before"
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_a_broken_photo_costs_no_other_and_is_not_asked_about_twice(
    run, asked, photos, tmp_path, monkeypatch
):
    good = next(photos.glob("00.*"))
    for number in range(20):  # more than a batch
        (photos / f"{number:02d}-bad.png").write_bytes(good.read_bytes()[:-40])
    (photos / "empty.jpg").write_bytes(b"")
    assert run("--csv", tmp_path / "a.csv", "--top", 1) == 1
    assert len(rows_of(tmp_path / "a.csv")) == 21
    asked.clear()
    monkeypatch.setattr(LocalTagger, "__init__", lambda *_: pytest.fail("the model was loaded"))
    assert run("--csv", tmp_path / "a.csv", "--top", 1) == 1
    assert asked == []
