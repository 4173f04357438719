"""The command line of the client, against a server."""

import csv
import io
import json
import pathlib

import grpc
import numpy as np
import pytest
from PIL import Image
from tiny_model import BROKEN

from biam_tf.class_calibration import Selection, Tag
from biam_tf.contact_sheet import draw_contact_sheet
from serving import client as client_command
from serving.rpc.photo_tagging import (
    Failures,
    _chunks,
    plain_message,
    tag_with_known_classes,
)
from serving.rpc.tagging_client import TaggingError


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
    chunks = _chunks([(str(size), b"x" * size) for size in sizes], len(sizes))
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


@pytest.fixture
def broken(photos):
    """One more photo, which the model refuses."""
    path = photos[0].with_name("a broken one.jpg")
    path.write_bytes(BROKEN)
    return path


@pytest.mark.parametrize("per_request", [2, 8])
def test_a_broken_photo_costs_no_other_answer(ask, photos, broken, monkeypatch, per_request):
    monkeypatch.setattr("serving.rpc.photo_tagging._PHOTOS_PER_REQUEST", per_request)
    status, out, error = ask("--classes", "dog", "--json", str(broken))
    tagged = {entry["photo"]: entry for entry in json.loads(out)}
    for path in photos:
        assert tagged[str(path)]["tags"] == [{"name": "dog", "score": path.stat().st_size}]
    assert tagged[str(broken)] == {"photo": str(broken), "tags": [], "error": "not a whole photo"}
    assert status == 2 and f"error: {broken}: not a whole photo\n" in error
    assert "1 of 4 photos were not tagged" in error and "--keep-going" in error


def test_photos_that_cannot_be_tagged_are_left_out(ask, photos, broken, tmp_path):
    missing, sheet = tmp_path / "no.jpg", tmp_path / "sheet.png"
    options = ["--classes", "dog", "--keep-going", "--explain", str(sheet)]
    status, out, error = ask(*options, str(broken), str(missing))
    assert status == 0 and sheet.exists() and out.count("dog") == len(photos)
    assert f"{broken}: not a whole photo" in error and f"{missing}: No such file" in error
    status = client_command.main(["--keep-going", "--server", "localhost:9", str(missing)])
    assert status == 2  # nothing was tagged


def test_a_refused_photo_of_a_request_is_found_by_its_place():
    error = TaggingError(
        grpc.StatusCode.INVALID_ARGUMENT,
        "assertion failed: [images[1, 12]: not a whole JPEG]\n\t [[{{node Assert}}]]",
    )
    assert error.refused_photos == [1, 12] and error.reason == "not a whole JPEG"
    other = TaggingError(grpc.StatusCode.INVALID_ARGUMENT, "class_names: unknown: zebra")
    assert other.refused_photos is None and other.reason == other.message


class Picky:
    """Refuses photos by their places, as an exported model does."""

    def __init__(self, bad, code=grpc.StatusCode.INVALID_ARGUMENT):
        self.bad, self.code, self.asked = bad, code, []

    def known_tags(self, images, selection):
        self.asked.append(len(images))
        places = ", ".join(str(n) for n, image in enumerate(images) if image in self.bad)
        if places:
            raise TaggingError(self.code, f"images[{places}]: not a whole JPEG")
        return [[Tag("dog", float(len(image)), None, None)] for image in images]


def test_the_rest_of_a_request_is_sent_once_more(tmp_path):
    paths = []
    for number in range(20):
        paths.append(str(tmp_path / f"{number}.bin"))
        (tmp_path / f"{number}.bin").write_bytes(b"x" * (number + 1))
    client, failures = Picky({b"x" * 4, b"x" * 6}), Failures()
    tagged = tag_with_known_classes(client, paths, Selection(top=1), failures)
    assert failures == Failures({paths[n]: "not a whole JPEG" for n in (3, 5)})
    assert client.asked == [8, 6, 8, 4]
    assert [(photo.photo, photo.tags[0].score) for photo in tagged] == [
        (path, n + 1) for n, path in enumerate(paths) if n not in (3, 5)
    ]


def test_what_was_answered_before_a_failure_is_kept(tmp_path):
    paths = [str(tmp_path / f"{number}.bin") for number in range(10)]
    for number, path in enumerate(paths):
        pathlib.Path(path).write_bytes(b"x" * (number + 1))
    client, failures = Picky({b"x" * 9}, grpc.StatusCode.INTERNAL), Failures()
    assert len(tag_with_known_classes(client, paths, Selection(top=1), failures)) == 8
    assert failures.stopped.code is grpc.StatusCode.INTERNAL and not failures.photos


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
