"""The client over a real channel: every method, what it repeats and what not, its command line."""

import concurrent.futures
import socket
import subprocess
import sys
import time

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
from tiny_model import EMBEDDING_SIZE, NAMES, Gate, expected_scores
from tiny_server import ready, started

from biam_tf.errors import UserError
from serving import client as client_command
from serving.client import TaggingClient, TaggingError

AWAY = grpc.StatusCode.UNAVAILABLE
PHOTOS = [b"one", b"three"]
CLASSES = np.arange(3 * EMBEDDING_SIZE, dtype=np.float32).reshape(3, EMBEDDING_SIZE)


@pytest.fixture(scope="module")
def client(server):
    with TaggingClient(server.address, timeout_seconds=300) as client:
        yield client


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
    ],
)
def test_a_refusal_has_its_code_and_message(server, options, images, names, code, message):
    with (
        TaggingClient(server.address, **options) as client,
        pytest.raises(TaggingError, match=message) as error,
    ):
        client.tag(images, names)
    assert error.value.code is grpc.StatusCode[code]


def test_paths_are_named_by_a_refusal(server, tmp_path, moody):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"x")
    _, address = moody("images[1]: not a whole JPEG", "images[1]: not a whole JPEG")
    for images, named in (([broken, broken], str(broken)), ([b"x", b"x"], r"images\[1\]")):
        with (
            TaggingClient(address) as client,
            pytest.raises(TaggingError, match=f"INVALID_ARGUMENT: {named}: not a whole JPEG"),
        ):
            client.tag(images, ["dog"])


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_this_machine_is_not_asked_through_a_proxy(server, monkeypatch, host):
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody answers there
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    with TaggingClient(f"{host}:{server.port}", timeout_seconds=300) as client:
        np.testing.assert_allclose(client.tag(PHOTOS, ["dog"]), [[3], [5]])


def test_a_call_ends_with_its_deadline(server, tmp_path):
    gate = Gate(tmp_path / "gate")
    with (
        TaggingClient(server.address, timeout_seconds=0.2) as client,
        pytest.raises(TaggingError, match=r"(?i)deadline") as error,
    ):
        client.tag([gate.photo], ["dog"])
    gate.open()
    assert error.value.code is grpc.StatusCode.DEADLINE_EXCEEDED


STOCK_CLIENT = """
import sys

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

address, given, answered = sys.argv[1:]
given = dict(np.load(given))
photos, names = [b"one", b"three"], [b"dog", b"red car"]
classes = given["class_embeddings"]
requests = {
    "serving_default": {"images": photos, "class_embeddings": classes},
    "tag": {"images": photos, "class_names": names},
    "tag_known": {"images": photos},
    "explain": {"images": photos, "class_embeddings": classes},
    "features": {"images": photos},
    "rescore": given,
    "embed": {"class_names": names},
}
answers = {}
with grpc.insecure_channel(address) as channel:
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    for signature, inputs in requests.items():
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "tagger"
        request.model_spec.signature_name = signature
        for name, value in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        for name, value in stub.Predict(request, 20.0).outputs.items():
            answers[f"{signature}.{name}"] = tf.make_ndarray(value)
assert not {"serving", "biam_tf"} & {*sys.modules}
answers["tag_known.names"] = answers["tag_known.names"].astype("S")
np.savez(answered, **answers)
"""


def test_a_stock_client_without_our_code_gets_the_same_answers(server, client, tmp_path):
    (tmp_path / "stock.py").write_text(STOCK_CLIENT)
    region_features, scene_feature = client.features(PHOTOS)
    np.savez(
        tmp_path / "given.npz",
        region_features=region_features,
        scene_feature=scene_feature,
        class_embeddings=CLASSES,
    )
    command = [sys.executable, "-I", "stock.py", server.address, "given.npz", "answers.npz"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=600)
    known = client.tag_known(PHOTOS)
    scores, response_maps = client.explain(PHOTOS, class_embeddings=CLASSES)
    expected = {
        "serving_default.scores": client.tag(PHOTOS, class_embeddings=CLASSES),
        "tag.scores": client.tag(PHOTOS, ["dog", "red car"]),
        "tag_known.names": np.array([[name.encode() for name, _ in row] for row in known]),
        "tag_known.scores": np.array([[score for _, score in row] for row in known], np.float32),
        "explain.scores": scores,
        "explain.response_maps": response_maps,
        "features.region_features": region_features,
        "features.scene_feature": scene_feature,
        "rescore.scores": client.rescore(region_features, scene_feature, CLASSES),
        "embed.class_embeddings": client.embed(["dog", "red car"]),
    }
    with np.load(tmp_path / "answers.npz") as answers:
        assert {*answers} == {*expected}
        for name, value in expected.items():
            np.testing.assert_array_equal(answers[name], value, err_msg=name)


class Moody(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Does what it is told, one step a call, whatever is asked.

    A status code is a refusal, a text an invalid argument; a number is the version of the model
    that answers.
    """

    def __init__(self, steps):
        self.steps = list(steps)
        self.times, self.deadlines = [], []

    def Predict(self, request, context):
        self.times.append(time.monotonic())
        self.deadlines.append(self.times[-1] + context.time_remaining())
        step = self.steps.pop(0)
        if isinstance(step, grpc.StatusCode):
            context.abort(step, "moody")
        if isinstance(step, str):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, step)
        response = predict_pb2.PredictResponse()
        response.model_spec.version.value = step
        for name in ("class_embeddings", "scores", "response_maps"):
            response.outputs[name].CopyFrom(tf.make_tensor_proto([[float(step)]]))
        return response


@pytest.fixture
def moody():
    """Returns a function of steps to a server that takes them, and its address."""
    servers = []

    def moody(*steps):
        server = grpc.server(concurrent.futures.ThreadPoolExecutor(1))
        servicer = Moody(steps)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        return servicer, f"127.0.0.1:{port}"

    yield moody
    for server in servers:
        server.stop(None)


def test_an_unavailable_server_is_asked_again_after_longer_and_longer_pauses(moody, caplog):
    servicer, address = moody(AWAY, AWAY, AWAY, 7)
    with TaggingClient(address) as client:
        assert client.tag(PHOTOS, ["dog"]) == [[7]]
    pauses = np.diff(servicer.times)
    assert (pauses > [0.05, 0.1, 0.2]).all() and not servicer.steps
    assert caplog.messages == [f"{address} is unavailable; waiting up to 60 s for it"]


@pytest.mark.parametrize(
    "code",
    ["INTERNAL", "RESOURCE_EXHAUSTED", "INVALID_ARGUMENT", "ABORTED", "UNKNOWN", "NOT_FOUND"],
)
def test_no_other_failure_is_repeated(moody, code):
    servicer, address = moody(AWAY, grpc.StatusCode[code], 7)
    with TaggingClient(address) as client, pytest.raises(TaggingError, match=f"^{code}: moody$"):
        client.tag(PHOTOS, ["dog"])
    assert servicer.steps == [7]


@pytest.mark.parametrize("retries", [0, 2])
def test_repetitions_can_be_limited(moody, retries):
    servicer, address = moody(*[AWAY] * 5)
    with (
        TaggingClient(address, retries=retries) as client,
        pytest.raises(TaggingError, match="UNAVAILABLE: moody"),
    ):
        client.tag(PHOTOS, ["dog"])
    assert len(servicer.times) == retries + 1


def test_repeating_ends_with_the_deadline(moody):
    servicer, address = moody(*[AWAY] * 50)
    with (
        TaggingClient(address, timeout_seconds=2) as client,
        pytest.raises(TaggingError, match=r"UNAVAILABLE|DEADLINE_EXCEEDED"),
    ):
        client.tag(PHOTOS, ["dog"])
    # The pauses double: the seventh call would come after 3.15 s at least, the fiftieth never.
    assert 1 <= len(servicer.times) <= 6


def test_names_are_explained_by_the_version_that_embedded_them(moody):
    servicer, address = moody(1, 2, 2, 2)  # a new version comes in after the first request
    with TaggingClient(address) as client:
        scores, _ = client.explain(PHOTOS, ["dog"])
    assert scores == [[2]] and not servicer.steps


def test_both_requests_of_an_explanation_have_one_deadline(moody):
    servicer, address = moody(*[AWAY] * 5, 1, 1)
    with TaggingClient(address, timeout_seconds=30) as client:
        client.explain(PHOTOS, ["dog"])
    # The five pauses take 1.55 s at least, by which a second deadline would be later.
    np.testing.assert_allclose(servicer.deadlines, servicer.deadlines[0], atol=1.0)


def test_a_client_waits_for_a_server_that_starts(model_dir):
    reserved = socket.socket()  # bound, so that nobody else takes the port, and not listening
    reserved.bind(("127.0.0.1", 0))
    port = reserved.getsockname()[1]
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        with TaggingClient(f"127.0.0.1:{port}", timeout_seconds=300) as client:
            scores = pool.submit(client.tag, PHOTOS, ["dog"])
            time.sleep(0.3)
            reserved.close()
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
        assert (
            client_command.main(
                ["--server", server.address, "--tls-root", str(certificate), str(key)]
            )
            == 0
        )
        with pytest.raises(UserError, match=r"key\.pem: no certificate in PEM form"):
            TaggingClient(server.address, root_certificates=key)
    finally:
        server.stop()
