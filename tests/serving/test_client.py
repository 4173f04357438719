"""The client over a real channel: every method, what it repeats and what not, its command line."""

import concurrent.futures
import csv
import io
import json
import subprocess
import time

import grpc
import numpy as np
import pytest
from photo_files import encoded
from PIL import Image
from tensorflow_serving.apis import prediction_service_pb2_grpc
from tiny_model import EMBEDDING_SIZE, NAMES, SLOW, expected_scores
from tiny_server import ready, started

from biam_tf.errors import UserError
from serving import client as client_command
from serving.client import TaggingClient, TaggingError

PHOTOS = [b"one", b"three"]
CLASSES = np.arange(3 * EMBEDDING_SIZE, dtype=np.float32).reshape(3, EMBEDDING_SIZE)


@pytest.fixture(scope="module")
def client(server):
    with TaggingClient(server.address, timeout_seconds=20) as client:
        yield client


@pytest.fixture
def photos(tmp_path):
    """Three files, each of another length and so of another score."""
    paths = []
    for seed, size in enumerate([(60, 40), (30, 50), (44, 44)]):
        path = tmp_path / f"photo {seed}.png"
        path.write_bytes(encoded("PNG", size, seed))
        paths.append(path)
    return paths


def test_tag_scores_names_and_embeddings(client, photos):
    np.testing.assert_allclose(
        client.tag(PHOTOS, class_embeddings=CLASSES), expected_scores(PHOTOS, CLASSES)
    )
    by_name = client.tag(PHOTOS, ["beach", "dog"])
    np.testing.assert_allclose(by_name, [[3, 3], [5, 5]])
    assert by_name.dtype == np.float32
    lengths = [[path.stat().st_size] for path in photos]
    np.testing.assert_allclose(client.tag(photos, ["dog"]), lengths)
    np.testing.assert_allclose(client.tag(str(photos[0]), ["dog"]), lengths[:1])


def test_the_other_methods_answer(client):
    assert client.tag_known(b"one") == [[("dog", 3.0), ("red car", 3.0)]]
    for classes in ({"class_names": ["cat"]}, {"class_embeddings": np.eye(EMBEDDING_SIZE)[3:]}):
        scores, response_maps = client.explain(PHOTOS, **classes)
        np.testing.assert_allclose(scores, [[3], [5]])
        assert response_maps.shape == (2, 2, 2, 1)
    region_features, scene_feature = client.features(PHOTOS)
    assert region_features.shape == (2, 2, 2, EMBEDDING_SIZE) and scene_feature.shape == (2, 3)
    scores = client.rescore(region_features, scene_feature, client.embed(NAMES))
    np.testing.assert_allclose(scores, client.tag(PHOTOS, NAMES))


def test_threads_share_a_client(client):
    def scored(length):
        return client.tag(b"x" * length, ["dog"]).item()

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(scored, range(1, 65))) == list(range(1, 65))


def test_exactly_one_kind_of_class_is_given(client):
    for classes in ({}, {"class_names": ["dog"], "class_embeddings": CLASSES}):
        with pytest.raises(UserError, match="either class_names or class_embeddings"):
            client.tag(PHOTOS, **classes)
    with pytest.raises(UserError, match="one text; give a list"):
        client.tag(PHOTOS, "dog")
    with pytest.raises(UserError, match=r"no\.jpg: No such file"):
        client.tag("no.jpg", ["dog"])


@pytest.mark.parametrize(
    ("options", "images", "names", "code", "message"),
    [
        ({}, [b"broken"], ["dog"], "INVALID_ARGUMENT", "not a whole photo"),
        ({}, PHOTOS, ["zebra"], "INVALID_ARGUMENT", "unknown: zebra"),
        ({"model_name": "other"}, PHOTOS, ["dog"], "NOT_FOUND", "Latest\\(other\\)"),
        ({"version": 8}, PHOTOS, ["dog"], "NOT_FOUND", "Specific\\(tagger, 8\\)"),
        ({"timeout_seconds": 0.2}, [SLOW], ["dog"], "DEADLINE_EXCEEDED", "(?i)deadline"),
    ],
)
def test_a_refusal_has_its_code_and_message(server, options, images, names, code, message):
    with (
        TaggingClient(server.address, **options) as client,
        pytest.raises(TaggingError, match=message) as error,
    ):
        client.tag(images, names)
    assert error.value.code is grpc.StatusCode[code]


class Moody(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Refuses with the codes it is given, one a call."""

    def __init__(self, codes):
        self.codes = list(codes)
        self.times = []

    def Predict(self, request, context):
        self.times.append(time.monotonic())
        context.abort(self.codes.pop(0), "moody")


@pytest.fixture
def refusing():
    """Returns a function of status codes to a server that answers them, and its address."""
    servers = []

    def refusing(*codes):
        server = grpc.server(concurrent.futures.ThreadPoolExecutor(1))
        moody = Moody(codes)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(moody, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        return moody, f"127.0.0.1:{port}"

    yield refusing
    for server in servers:
        server.stop(None)


def test_only_unavailable_is_repeated_after_longer_and_longer_pauses(refusing):
    away = grpc.StatusCode.UNAVAILABLE
    moody, address = refusing(away, away, away, grpc.StatusCode.INTERNAL, away)
    with TaggingClient(address) as client, pytest.raises(TaggingError, match="INTERNAL: moody"):
        client.tag(PHOTOS, ["dog"])
    assert moody.codes == [away]
    pauses = np.diff(moody.times)
    assert (pauses > [0.05, 0.1, 0.2]).all()


def test_repeating_ends_with_the_deadline(refusing):
    moody, address = refusing(*[grpc.StatusCode.UNAVAILABLE] * 50)
    start = time.monotonic()
    with (
        TaggingClient(address, timeout_seconds=0.5) as client,
        pytest.raises(TaggingError, match=r"UNAVAILABLE|DEADLINE_EXCEEDED"),
    ):
        client.tag(PHOTOS, ["dog"])
    assert time.monotonic() - start < 5 and 1 <= len(moody.times) < 10


def test_a_client_waits_for_a_server_that_starts(model_dir, server):
    port = server.port + 1 if server.port < 65535 else server.port - 1
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        with TaggingClient(f"127.0.0.1:{port}", timeout_seconds=30) as client:
            scores = pool.submit(client.tag, PHOTOS, ["dog"])
            time.sleep(0.3)
            late = started(model_dir, port=port)
            np.testing.assert_allclose(scores.result(), [[3], [5]])
        late.stop()


def test_an_encrypted_connection(model_dir, tmp_path):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    try:
        subprocess.run(
            [*command, "-keyout", key, "-out", certificate], check=True, capture_output=True
        )
    except FileNotFoundError:
        pytest.skip("no openssl command to make a certificate with")
    server = ready(started(model_dir, tls_certificate=certificate, tls_key=key))
    try:
        with TaggingClient(server.address, root_certificates=certificate) as client:
            np.testing.assert_allclose(client.tag(PHOTOS, ["dog"]), [[3], [5]])
        with (
            TaggingClient(server.address, tls=True, timeout_seconds=0.5) as stranger,
            pytest.raises(TaggingError, match=r"UNAVAILABLE|DEADLINE_EXCEEDED"),
        ):
            stranger.tag(PHOTOS, ["dog"])
    finally:
        server.stop()


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
    _, out, _ = ask("--classes-file", str(tmp_path / "classes.txt"), "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["tag"] for row in rows] == ["beach", "red car"] * 3
    assert float(rows[0]["score"]) == photos[0].stat().st_size
    known = json.loads(ask("--format", "json", "--top", "1")[1])
    assert [entry["photo"] for entry in known] == [str(path) for path in photos]
    assert [len(entry["tags"]) for entry in known] == [1, 1, 1]


def test_many_photos_travel_in_several_requests(ask, photos, monkeypatch):
    monkeypatch.setattr(client_command, "_PHOTOS_A_REQUEST", 2)
    status, out, error = ask("--classes", "dog", "--format", "json")
    scores = [entry["tags"][0]["score"] for entry in json.loads(out)]
    assert status == 0 and scores == [path.stat().st_size for path in photos]
    assert "Tagging: 3/3" in error


def test_the_command_draws_the_evidence(ask, tmp_path):
    status, _, _ = ask("--classes", "dog, beach", "--explain", str(tmp_path / "evidence.png"))
    assert status == 0
    with Image.open(tmp_path / "evidence.png") as sheet:
        assert sheet.width > 600 and sheet.height > 400


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--classes", " , "], "--classes: no class is named"),
        (["--classes-file", "no.txt"], "no.txt: No such file"),
        (["--explain", "x.png"], "add --classes"),
        (["--top", "0"], "use positive numbers"),
        (["--classes", "zebra"], "answered INVALID_ARGUMENT: "),
        (["--classes", "dog", "--explain", "no/such/folder/x.png"], "x.png: No such file"),
        (["--model-name", "other"], "NOT_FOUND"),
        (["--tls-root", "no.pem"], "no.pem: No such file"),
    ],
)
def test_the_command_names_what_is_wrong(ask, options, message):
    status, out, error = ask(*options)
    assert status == 2 and message in error and not out and "Traceback" not in error
