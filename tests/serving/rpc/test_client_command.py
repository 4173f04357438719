"""The command line of the client, against a server."""

import csv
import io
import json

import numpy as np
import pytest
from PIL import Image

from biam_tf.contact_sheet import draw_contact_sheet
from serving import client as client_command
from serving.rpc.photo_tagging import _chunks, plain_message


@pytest.fixture
def ask(server, photos, capsys):
    """Returns a function that runs the command line; gives status, output and errors."""

    def ask(*options):
        paths = [str(path) for path in photos]
        status = client_command.main(["--server", server.address, *options, *paths])
        return status, *capsys.readouterr()

    return ask


def test_the_command_prints_the_best_tags(ask, photos):
    status, out, _ = ask("--classes", "dog, red car ,beach,dog", "--top", "2")
    assert status == 0
    blocks = [block.splitlines() for block in out.split("\n\n")]
    assert [block[0] for block in blocks] == [str(path) for path in photos]
    size = photos[0].stat().st_size
    assert blocks[0][1:] == [f"  {size:8.3f}  dog", f"  {size:8.3f}  red car"]


def test_the_command_writes_csv_and_json(ask, photos, tmp_path):
    (tmp_path / "classes.txt").write_text("beach\n\nred car\n")
    _, out, _ = ask("--classes-file", str(tmp_path / "classes.txt"), "--csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["tag"] for row in rows] == ["beach", "red car"] * 3
    assert float(rows[0]["score"]) == photos[0].stat().st_size
    known = json.loads(ask("--json", "--top", "1")[1])
    assert [entry["photo"] for entry in known] == [str(path) for path in photos]
    assert [len(entry["tags"]) for entry in known] == [1, 1, 1]


def test_many_photos_travel_in_several_requests(ask, photos, monkeypatch):
    monkeypatch.setattr("serving.rpc.photo_tagging._PHOTOS_PER_REQUEST", 2)
    status, out, error = ask("--classes", "dog", "--json")
    scores = [entry["tags"][0]["score"] for entry in json.loads(out)]
    assert status == 0 and scores == [path.stat().st_size for path in photos]
    assert "Tagging: 3/3" in error


def test_large_photos_travel_in_requests_of_their_own(photos, monkeypatch):
    monkeypatch.setattr("serving.rpc.photo_tagging._BYTES_PER_REQUEST", 10)
    sizes = [4, 6, 1, 30, 2, 8]
    chunks = _chunks([(str(size), b"x" * size) for size in sizes])
    assert [[len(photo) for _, photo in chunk] for chunk in chunks] == [[4, 6], [1], [30], [2, 8]]


def test_the_command_draws_the_evidence(ask, photos, tmp_path, monkeypatch):
    drawn = {}

    def spy(path, *arguments, **options):
        drawn.update(zip(("pixels", "names", "groups", "scores"), arguments, strict=True))
        drawn.update(options)
        draw_contact_sheet(path, *arguments, **options)

    monkeypatch.setattr("biam_tf.contact_sheet.draw_contact_sheet", spy)
    sheet = tmp_path / "evidence.png"
    status, out, _ = ask("--classes", "dog, beach", "--top", "1", "--explain", str(sheet))
    assert status == 0 and out.count("dog") == 3 and "beach" not in out
    with Image.open(sheet) as picture:
        assert picture.width > 600 and picture.height > 400
    assert drawn["captions"] == [path.name for path in photos] and drawn["tags"] == 1
    assert [pixels.shape for pixels in drawn["pixels"]] == [(40, 60, 3), (50, 30, 3), (44, 44, 3)]
    for values in (drawn["scores"], drawn["response_maps"].mean(axis=(1, 2))):
        np.testing.assert_allclose(values, [[path.stat().st_size] * 2 for path in photos])


def test_what_cannot_be_drawn_is_named(ask, photos, tmp_path):
    photos[1].write_bytes(b"a photo for the tiny model alone")
    sheet = tmp_path / "evidence.png"
    status, _, error = ask("--classes", "dog", "--explain", str(sheet))
    assert status == 2 and f"{photos[1]}: cannot be drawn" in error and not sheet.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--classes", " , "], "--classes: no class is named"),
        (["--classes-file", "no.txt"], "no.txt: No such file"),
        (["--explain", "x.png"], "add --classes"),
        (["--top", "0"], "use positive numbers"),
        (["--classes", "zebra"], "answered INVALID_ARGUMENT: class_names: unknown: zebra\n"),
        (["--classes", "dog", "--explain", "no/such/folder/x.png"], "x.png: no such folder"),
        (["--classes", "dog", "--explain", "{folder}"], "{folder}: cannot be written (Is a dir"),
        (["--model-name", "other"], "NOT_FOUND"),
        (["--tls-root", "no.pem"], "no.pem: No such file"),
        (["no.jpg"], "no.jpg: No such file"),
    ],
)
def test_the_command_names_what_is_wrong(ask, tmp_path, options, message):
    status, out, error = ask(*(option.format(folder=tmp_path) for option in options))
    assert (
        status == 2
        and message.format(folder=tmp_path) in error
        and not out
        and "Traceback" not in error
    )


def test_a_message_is_shown_without_what_tensorflow_puts_around_it():
    said = "class_names[0] zebra: no such class [of 2]"
    around = f"assertion failed: [{said}]\n\t [[{{{{node Assert/AssertGuard}}}}]]"
    assert plain_message(around) == said
    assert plain_message("Servable not found") == "Servable not found"
