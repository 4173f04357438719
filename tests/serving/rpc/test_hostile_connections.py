"""Clients that send slowly, read slowly or send what takes much memory; over real connections."""

import contextlib
import json
import socket
import struct
import time
import urllib.error
import urllib.request

import grpc
import numpy as np
import pytest
import tensorflow as tf
from prediction_requests import good, health, predictor, refusal
from tensorflow_serving.apis import predict_pb2
from tiny_server import ready, started, wait_for

from serving.rpc import http_connections, outbox

INVALID = grpc.StatusCode.INVALID_ARGUMENT
PREDICT = "/tensorflow.serving.PredictionService/Predict"
MANY = np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32)


def large_answer() -> predict_pb2.PredictRequest:
    """A small request whose answer has 2 MB, or 6 MB over REST."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "tagger", "explain"
    request.inputs["images"].CopyFrom(tf.make_tensor_proto([b"x"] * 1000))
    request.inputs["class_embeddings"].CopyFrom(tf.make_tensor_proto(MANY))
    return request


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """A frame of HTTP/2."""
    head = struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream)
    return head + payload


def call_of(method: str, message: bytes) -> bytes:
    """A call of gRPC, after which the client lets the server send 64 KB and no more."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": method,
        ":authority": "a",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    headers = b"".join(
        b"\0" + bytes([len(key)]) + key.encode() + bytes([len(value)]) + value.encode()
        for key, value in fields.items()
    )
    return (
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        + frame(4, 0, 0, b"")
        + frame(1, 4, 1, headers)
        + frame(0, 1, 1, b"\0" + struct.pack(">I", len(message)) + message)
    )


def connection(stack: contextlib.ExitStack, port: int) -> socket.socket:
    found = stack.enter_context(socket.socket())
    found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    found.settimeout(300)
    found.connect(("127.0.0.1", port))
    return found


def ended(client: socket.socket) -> bool:
    """Reads to the end of a connection."""
    with contextlib.suppress(ConnectionError):
        while client.recv(2**16):
            pass
    return True


def test_who_does_not_read_a_large_answer_is_cut_off(server, monkeypatch):
    monkeypatch.setattr(outbox, "PAUSE_SECONDS", 0.5)
    monkeypatch.setattr(outbox, "_TICK_SECONDS", 0.05)
    inputs = {"images": ["x"] * 1000, "class_embeddings": MANY.tolist()}
    body = json.dumps({"signature_name": "explain", "inputs": inputs}).encode()
    header = f"POST /v1/models/tagger:predict HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}"
    for port, request in (
        (server.port, call_of(PREDICT, large_answer().SerializeToString())),
        (server.metrics_port, header.encode() + b"\r\n\r\n" + body),
    ):
        with contextlib.ExitStack() as stack:
            client = connection(stack, port)
            client.sendall(request)
            wait_for(lambda: server._outbox.bytes > 1_900_000)
            wait_for(lambda: server._outbox.bytes == 0)
            assert ended(client)
    with grpc.insecure_channel(server.address) as channel:  # who reads gets it
        answer = predictor(channel)("explain", good([b"x"] * 1000, MANY)).outputs
        assert tf.make_ndarray(answer["response_maps"]).shape == (1000, 2, 2, 100)
    wait_for(lambda: server._outbox.bytes == 0)


def test_headers_that_do_not_come_end_a_connection_and_slow_bodies_do_not(server, monkeypatch):
    monkeypatch.setattr(http_connections, "HEADER_SECONDS", 0.5)
    body = json.dumps({"signature_name": "tag_known", "instances": ["one"]}).encode()
    with contextlib.ExitStack() as stack:
        silent, slow, good_one, later = (connection(stack, server.metrics_port) for _ in range(4))
        later.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b"200" in later.recv(1000)
        good_one.sendall(b"POST /v1/models/tagger:predict HTTP/1.1\r\nHost: a\r\n")
        good_one.sendall(f"Content-Length: {len(body)}\r\n\r\n".encode() + body[:1])
        slow.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: ")
        with contextlib.suppress(OSError):  # until it is closed
            for _ in range(600):
                slow.sendall(b"a")
                time.sleep(0.05)
            pytest.fail("the header may take any time")
        assert ended(silent) and ended(later)
        good_one.sendall(body[1:])
        assert good_one.recv(1000).startswith(b"HTTP/1.1 200")


def test_what_is_no_message_and_what_takes_many_times_its_size_is_refused(server):
    with grpc.insecure_channel(server.address) as channel:
        raw = channel.unary_unary(PREDICT)
        for junk in (b"\xff" * 50, b"\x0a" + b"\xff" * 400_000):
            code, details = refusal(raw, junk, timeout=300)
            assert code == INVALID and "no message" in details
        request = large_answer()
        for _ in range(200_000):
            request.inputs["images"].tensor_shape.dim.add()
        code, details = refusal(raw, request.SerializeToString(), timeout=300)
        assert code == INVALID and "dimensions" in details
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert refusal(check, b"\x0a\x80\x80\x20" + b"a" * 2**19, timeout=300)[0] == INVALID
        assert health(channel) == 1


def test_a_client_that_watches_and_does_not_read_holds_up_no_end(model_dir):
    server = ready(started(model_dir, drain_seconds=0.5))
    with contextlib.ExitStack() as stack:
        client = connection(stack, server.port)
        no_window = frame(4, 0, 0, struct.pack(">HI", 4, 0))
        call = call_of("/grpc.health.v1.Health/Watch", b"").replace(frame(4, 0, 0, b""), no_window)
        client.sendall(call)
        with grpc.insecure_channel(server.address) as channel:
            wait_for(lambda: health(channel) == 1)
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < 100  # it waited without end


def test_names_of_rest_are_decoded_once(server):
    url = f"http://127.0.0.1:{server.metrics_port}/v1/models/%2574agger"
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(url, timeout=300)
    assert error.value.code == 404 and b"%74agger" in error.value.read()
