"""Files are replaced whole or left as they were."""

import hashlib
import os

import pytest

from biam_tf import files
from biam_tf.errors import UserError
from biam_tf.files import (
    append_line,
    folder_beside,
    read_json,
    replacing,
    sha256_of,
    size_in_words,
    write_json,
    write_text,
)
from biam_tf.processes import ProcessIdentity, this_process

pytestmark = pytest.mark.unit


def test_a_file_is_there_when_all_is_written_and_not_before(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")
    with replacing(path) as partial:
        assert partial.suffix == ".csv" and partial.parent == tmp_path
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and os.listdir(tmp_path) == ["table.csv"]


def test_what_was_there_stays_when_writing_fails(tmp_path):
    path = tmp_path / "model.keras"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(path) as partial:
        partial.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["model.keras"]


def test_a_folder_is_moved_into_place_as_a_whole(tmp_path):
    with replacing(tmp_path / "run") as partial:
        partial.mkdir()
        (partial / "a").write_text("1")
    assert (tmp_path / "run" / "a").read_text() == "1" and os.listdir(tmp_path) == ["run"]
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "other") as partial:
        partial.mkdir()
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == ["run"]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none/x\.txt: cannot be written \(No such file"):
        write_text(tmp_path / "none" / "x.txt", "text")
    with pytest.raises(UserError, match="cannot be written"):
        append_line(tmp_path / "none" / "x.txt", "text")


@pytest.mark.parametrize(
    ("size", "words"),
    [(0, "0 bytes"), (949, "949 bytes"), (1000, "1.0 kB"), (40_500, "40.5 kB"),
     (3_000_000, "3.0 MB"), (999_960_000, "1.0 GB"), (4e15, "4000000.0 GB")],
)  # fmt: skip
def test_sizes_are_never_zero_of_a_unit(size, words):
    assert size_in_words(size) == words


def test_texts_and_sums(tmp_path):
    write_json(tmp_path / "a.json", {"name": "Müll"})
    append_line(tmp_path / "a.json", "more")
    content = '{\n  "name": "Müll"\n}\nmore\n'.encode()
    assert (tmp_path / "a.json").read_bytes() == content
    assert sha256_of(tmp_path / "a.json") == hashlib.sha256(content).hexdigest()


def test_what_a_killed_process_left_is_removed_by_the_next_and_what_others_write_is_not(tmp_path):
    own = this_process()
    ended = ProcessIdentity(own.number, own.started + 1, own.host)  # its number is used again
    elsewhere = ".a.0123abcd-1-1-89abcdef.partial.csv"
    names = [f".a.{process.in_a_name()}-89abcdef.partial.csv" for process in (ended, own)]
    for name in (*names, elsewhere):
        (tmp_path / name).touch()
    left = tmp_path / f".run.{ended.in_a_name()}-89abcdef.partial"
    (left / "folder").mkdir(parents=True)
    files._looked_through.clear()
    write_text(tmp_path / "b.txt", "text")
    assert sorted(os.listdir(tmp_path)) == sorted([names[1], elsewhere, "b.txt"])


def test_a_folder_beside_is_removed_at_the_end(tmp_path):
    with folder_beside(tmp_path / "7") as folder:
        assert folder.parent == tmp_path and not folder.name.isdecimal()
        (folder / "file").touch()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("contents", "reason"),
    [(b"{", "Expecting"), (b"\xff", "codec"), (b"[" * 200_000, "nested too deeply")],
)
def test_a_damaged_json_file_is_named(tmp_path, contents, reason):
    path = tmp_path / "metrics.json"
    path.write_bytes(contents)
    with pytest.raises(UserError, match=rf"metrics\.json: damaged: not the figures \(.*{reason}"):
        read_json(path, "the figures")
