"""A really exported run in the server, asked hundreds of damaged things."""

import collections
import concurrent.futures
import struct
import zlib

import grpc
import numpy as np
import pytest
import tensorflow as tf
from photo_files import encoded
from tiny_server import ready, started

from biam_tf.runs import load_run
from serving.client import TaggingClient

REQUESTS = 600
INVALID = grpc.StatusCode.INVALID_ARGUMENT


def huge_header() -> bytes:
    """A PNG of 70 bytes that claims 50,000 x 50,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 100)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def damages(size: int):
    """Returns functions of (random generator) to (images, class_embeddings) or a raw matrix."""
    photos = [encoded(form, (90, 70)) for form in ("JPEG", "PNG", "GIF", "BMP")]
    classes = np.random.default_rng(0).normal(size=(7, size)).astype(np.float32)

    def cut(rng):
        photo = photos[rng.integers(len(photos))]
        return [photo[: rng.integers(1, len(photo) - 30)]], classes

    def noise(rng):
        return [rng.bytes(int(rng.integers(0, 3000)))], classes

    def one_broken_of_three(rng):
        return [photos[0], rng.bytes(100), photos[1]], classes

    def not_finite(rng):
        bad = classes.copy()
        bad[rng.integers(7), rng.integers(size)] = rng.choice([np.nan, np.inf, -np.inf])
        return photos[:1], bad

    return {
        "a photo cut short": cut,
        "bytes at random": noise,
        "one broken photo of three": one_broken_of_three,
        "huge dimensions in a header": lambda rng: ([huge_header()], classes),
        "numbers that are not finite": not_finite,
        "embeddings too short": lambda rng: (photos[:1], classes[:, : rng.integers(1, size)]),
        "embeddings too long": lambda rng: (photos[:1], np.ones((2, size + rng.integers(1, 9)))),
        "embeddings in float64": lambda rng: (photos[:1], classes.astype(np.float64)),
        "embeddings of rank 1": lambda rng: (photos[:1], classes[0]),
        "no classes": lambda rng: (photos[:1], classes[:0]),
        "no photos": lambda rng: ([], classes),
        "photos as numbers": lambda rng: ([1.0, 2.0], classes),
    }


@pytest.mark.slow
def test_600_damaged_requests_leave_the_good_ones_unharmed(cold_dir, finished):
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    size = load_run(finished.path).vocabulary.embedding_size
    photo = encoded("JPEG", (120, 80), seed=3)
    many = np.random.default_rng(1).normal(size=(50_000, size)).astype(np.float32)
    own = many[:9]
    kinds = damages(size)
    server = ready(started(cold_dir, threads=8))
    answers = collections.Counter()

    with grpc.insecure_channel(server.address) as channel, TaggingClient(server.address) as client:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        expected, expected_of_many = (
            client.tag(photo, class_embeddings=classes) for classes in (own, many)
        )
        assert expected_of_many.shape == (1, 50_000)

        def ask(number: int) -> None:
            rng = np.random.default_rng(number)
            if number % 60 == 0:  # many classes are no damage
                scores = client.tag(photo, class_embeddings=many)
                np.testing.assert_allclose(scores, expected_of_many, atol=1e-4)
            if number % 4 == 0:
                scores = client.tag(photo, class_embeddings=own)
                np.testing.assert_allclose(scores, expected, atol=1e-4)
                return
            kind = list(kinds)[rng.integers(len(kinds))]
            images, classes = kinds[kind](rng)
            request = predict_pb2.PredictRequest()
            request.model_spec.name = "tagger"
            request.inputs["images"].CopyFrom(
                tf.make_tensor_proto(images, dtype=None if images else tf.string)
            )
            request.inputs["class_embeddings"].CopyFrom(tf.make_tensor_proto(classes))
            with pytest.raises(grpc.RpcError) as error:
                stub.Predict(request, timeout=60)
            answers[kind, error.value.code(), bool(error.value.details())] += 1

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(ask, range(REQUESTS)))
        np.testing.assert_allclose(
            client.tag(photo, class_embeddings=own), expected, atol=1e-4
        )  # alive
    server.stop()
    assert {kind for kind, _, _ in answers} == set(kinds)
    assert {(code, told) for _, code, told in answers} == {(INVALID, True)}, answers
