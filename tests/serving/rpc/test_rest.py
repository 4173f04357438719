"""REST, probes and metrics of the embedded server, and who can't hold it up."""

import base64
import contextlib
import json
import socket
import threading
import urllib.error
import urllib.request

import grpc
import numpy as np
import pytest
from grpc_reflection.v1alpha import reflection_pb2_grpc
from prediction_requests import CLASSES, PHOTOS, good, health, predictor, refusal
from tiny_model import BROKEN, NAMES, Gate, expected_scores, write_tiny_model
from tiny_server import ready, started, wait_for

MODEL = "/v1/models/tagger"
# As an array of texts of equal length it would take 16 GB.
LONG_TEXT = ["x" * 10**6] + ["y"] * 4000


def b64(photo):
    return {"b64": base64.b64encode(photo).decode()}


def ask(server, path, body=None, headers=()):
    """Returns the HTTP code, the JSON or text, and the headers."""
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    url = f"http://127.0.0.1:{server.metrics_port}{path}"
    request = urllib.request.Request(url, data, dict(headers))
    try:
        answer = urllib.request.urlopen(request, timeout=300)
    except urllib.error.HTTPError as error:
        answer = error
    text = answer.read().decode()
    is_json = answer.headers["content-type"] == "application/json"
    return answer.status, json.loads(text) if is_json else text, answer.headers


def columns(images=PHOTOS, classes=CLASSES, **more):
    inputs = {"images": [b64(photo) for photo in images], "class_embeddings": classes.tolist()}
    return {"inputs": inputs, **more}


def test_columns_and_rows_are_answered_as_by_tensorflow_serving(server):
    scores = expected_scores(PHOTOS, CLASSES / 3)
    for path in (MODEL, f"{MODEL}/versions/3"):
        code, answer, _ = ask(server, f"{path}:predict", columns(classes=CLASSES / 3))
        assert code == 200 and {*answer} == {"outputs"}
        np.testing.assert_allclose(answer["outputs"], scores, rtol=1e-6)
    explained = columns(signature_name="explain")
    _, answer, _ = ask(server, f"{MODEL}:predict", explained)
    assert np.shape(answer["outputs"]["response_maps"]) == (2, 2, 2, 3)
    for rows in ([b64(b"one"), b64(b"12")], [{"images": b64(b"one")}, {"images": b64(b"12")}]):
        known = {"signature_name": "tag_known", "instances": rows}
        code, answer, _ = ask(server, f"{MODEL}:predict", known)
        assert code == 200 and [row["scores"] for row in answer["predictions"]] == [[3, 3], [2, 2]]
        assert answer["predictions"][0]["names"] == [*NAMES[:2]]


@pytest.mark.parametrize(
    ("path", "body", "code", "message"),
    [
        (":predict", b"{", 400, "JSON Parse error"),
        (":predict", b"[" * 100_000, 400, "JSON Parse error"),
        (":predict", b'{"a":' + b"0," * 4_000_001 + b"0}", 400, "4,000,001 commas"),
        (":predict", {"inputs": [b64(b"x")]}, 400, "name them"),
        (":predict", columns(instances=[]), 400, "instances"),
        (":predict", columns(classes=np.array([[1.0, True]] * 2, object)), 400, "numbers"),
        (":predict", columns(classes=np.array([["1", "2"]])), 400, "numbers"),
        (":predict", columns(classes=np.ones((2, 5))), 400, "expected (any, 4)"),
        (":predict", columns(classes=np.full((1, 4), np.nan)), 400, "finite"),
        (":predict", columns([BROKEN]), 400, "not a whole photo"),
        (":predict", {**columns(), "inputs": {"images": [{"b64": "%"}]}}, 400, "missing"),
        (":predict", {"signature_name": "tag_known", "inputs": [{"b64": "%"}]}, 400, "b64"),
        (":predict", b'{"signature_name": "\\ud800", "instances": [1]}', 400, "not found"),
        (":predict", b'{"inputs": {"\\ud800": [1]}}', 400, "missing"),
        (":predict", {"inputs": {"images": ["x"], "class_embeddings": LONG_TEXT}}, 400, "numbers"),
        ("/versions/9:predict", columns(), 404, "Specific(tagger, 9)"),
        ("/versions/%D9%A3:predict", columns(), 404, "Malformed request"),
        ("s:predict", columns(), 404, "Latest(taggers)"),
        ("", columns(), 405, "GET"),
        (":classify", columns(), 404, "Malformed request"),
    ],
)
def test_what_is_wrong_gets_its_http_code(server, path, body, code, message):
    found, answer, _ = ask(server, f"{MODEL}{path}", body)
    assert found == code and message in answer["error"], answer


def test_status_metadata_probes_and_ids(server):
    _, status, _ = ask(server, MODEL)
    assert [(v["version"], v["state"]) for v in status["model_version_status"]] == [
        ("3", "AVAILABLE")
    ]
    _, metadata, _ = ask(server, f"{MODEL}/metadata")
    signatures = metadata["metadata"]["signature_def"]["signature_def"]
    assert signatures["tag"]["inputs"]["images"]["dtype"] == "DT_STRING"
    assert ask(server, "/healthz")[:2] == ask(server, "/readyz")[:2] == (200, "ok\n")
    _, _, headers = ask(server, f"{MODEL}:predict", columns(), {"X-Request-Id": "a-7"})
    assert headers["x-request-id"] == "a-7"
    compressed = {"Content-Encoding": "gzip"}
    assert ask(server, f"{MODEL}:predict", columns(), compressed)[0] == 415
    assert 'biam_request_queue_seconds_count{method="Predict"' in ask(server, "/metrics")[1]


def test_health_and_requests_are_answered_beside_those_that_hold_on(server):
    halt = threading.Event()

    def never():
        halt.wait(60)
        yield from ()

    with contextlib.ExitStack() as stack:
        stack.callback(halt.set)
        channel = stack.enter_context(grpc.insecure_channel(server.address))
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        held = [stub.ServerReflectionInfo(never()) for _ in range(20)]
        bodiless = channel.stream_unary("/tensorflow.serving.PredictionService/Predict")
        held += [bodiless.future(never()) for _ in range(20)]
        for _ in range(20):
            slow = stack.enter_context(socket.create_connection(("127.0.0.1", server.metrics_port)))
            slow.sendall(f"POST {MODEL}:predict HTTP/1.1\r\nHost: a\r\n".encode())
            slow.sendall(b"Content-Length: 90000\r\n\r\n{")
        assert health(channel) == 1 and ask(server, "/healthz")[0] == 200
        assert predictor(channel)("", good()).outputs
        assert ask(server, f"{MODEL}:predict", columns())[0] == 200
        for call in held:
            call.cancel()


def test_a_request_that_is_given_up_ends_at_its_next_step(model_dir, tmp_path):
    server = ready(started(model_dir, threads=1, max_concurrent_rpcs=1, drain_seconds=0.2))
    gate, never = Gate(tmp_path / "gate"), Gate(tmp_path / "never")
    with grpc.insecure_channel(server.address) as channel:
        predict = predictor(channel)
        photos = [gate.photo] + [b"x"] * 31 + [never.photo]  # the last one is in the second step
        for seconds in (2, 20, 200):  # on a busy machine the first may end before it begins
            code = refusal(predict, "", good(photos), timeout=seconds)[0]
            assert code == grpc.StatusCode.DEADLINE_EXCEEDED
            if gate.reached():
                break
        assert gate.reached()
        code = refusal(predict, "", good())[0]
        assert code == grpc.StatusCode.RESOURCE_EXHAUSTED  # the thread is at the first step still
        gate.open()
        wait_for(lambda: not server._answering._open)
        assert not never.reached()
        assert predict("", good()).outputs
    assert server.stop()


def test_a_version_that_is_copied_file_by_file_is_loaded_when_it_is_whole(tmp_path, caplog):
    caplog.set_level("INFO")
    write_tiny_model(tmp_path / "from", 2, bias=5.0)
    write_tiny_model(tmp_path / "to", 1)
    server = ready(started(tmp_path / "to", poll_seconds=0.05))
    files = sorted(path for path in (tmp_path / "from" / "2").rglob("*") if path.is_file())
    files.sort(key=lambda path: path.name != "saved_model.pb")
    for name in ("99999999999999999999", "٤", "5"):  # beyond int64, other digits, not begun
        (tmp_path / "to" / name).mkdir()
    for name in ("99999999999999999999", "٤"):
        (tmp_path / "to" / name / "saved_model.pb").write_bytes(files[0].read_bytes())
    for number, file in enumerate(files):
        target = tmp_path / "to" / file.relative_to(tmp_path / "from")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
        if number == 0:
            wait_for(lambda: "version 2 is skipped" in caplog.text)
    wait_for(lambda: server.versions.current.number == 2)
    assert "version 5 waits: there is no saved_model.pb in it yet" in caplog.text
    assert {*server.versions.states} == {1, 2, 5}
    server.stop()
