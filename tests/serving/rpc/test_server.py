"""The server over a real channel: answers, codes, versions that come and go, the way out."""

import concurrent.futures
import re
import urllib.request

import grpc
import numpy as np
import pytest
import tensorflow as tf
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from prediction_requests import CLASSES, PHOTOS, good, health, predictor, refusal, status
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
)
from tiny_model import (
    BROKEN,
    EMBEDDING_SIZE,
    Gate,
    expected_scores,
)
from tiny_server import ready, started, wait_for


@pytest.fixture(scope="module")
def channel(server):
    with grpc.insecure_channel(server.address) as channel:
        yield channel


@pytest.fixture(scope="module")
def predict(channel):
    """Returns a function that sends a request made of arrays and returns the response."""
    return predictor(channel)


def test_a_stock_client_gets_its_scores(server):
    # Only what tensorflow-serving-api's own examples use.
    with grpc.insecure_channel(server.address) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "tagger"
        request.model_spec.signature_name = "tag"
        request.inputs["images"].CopyFrom(tf.make_tensor_proto([b"one"], shape=[1]))
        request.inputs["class_names"].CopyFrom(tf.make_tensor_proto(["dog", "beach"]))
        response = stub.Predict(request, 10.0)
    assert list(response.outputs["scores"].float_val) == [3.0, 3.0]
    assert tf.make_ndarray(response.outputs["scores"]).shape == (1, 2)
    assert response.model_spec.name == "tagger" and response.model_spec.version.value == 3
    assert response.model_spec.signature_name == "tag"


def test_every_signature_answers(predict):
    scores = expected_scores(PHOTOS, CLASSES)
    response = predict("", good())
    assert response.model_spec.signature_name == "serving_default"
    np.testing.assert_allclose(tf.make_ndarray(response.outputs["scores"]), scores)
    explained = predict("explain", good()).outputs
    assert tf.make_ndarray(explained["response_maps"]).shape == (2, 2, 2, 3)
    features = {
        name: tf.make_ndarray(value)
        for name, value in predict("features", {"images": PHOTOS}).outputs.items()
    }
    rescored = predict("rescore", {**features, "class_embeddings": CLASSES}).outputs["scores"]
    np.testing.assert_allclose(tf.make_ndarray(rescored), scores)
    names = predict("tag_known", {"images": PHOTOS}).outputs["names"]
    assert names.string_val[0] == b"dog" and tf.make_ndarray(names).shape == (2, 2)


def test_a_filter_chooses_outputs(predict):
    assert set(predict("explain", good()).outputs) == {"scores", "response_maps"}
    assert set(predict("explain", good(), ["scores"]).outputs) == {"scores"}


def claiming(value, *sizes):
    """A tensor that claims another shape than its values have."""
    proto = tf.make_tensor_proto(value)
    proto.tensor_shape.ClearField("dim")
    for size in sizes:
        proto.tensor_shape.dim.add(size=size)
    return proto


def one_value_for_all(*sizes):
    proto = claiming(np.float32(0), *sizes)
    proto.float_val[:] = [1.0]
    return proto


def without_rank():
    proto = tf.make_tensor_proto(CLASSES)
    proto.tensor_shape.unknown_rank = True
    return proto


NOT_FOUND, INVALID = grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT
WRONG = [
    ({"model": "another"}, NOT_FOUND, r"Latest\(another\)"),
    ({"version": 2}, NOT_FOUND, r"Specific\(tagger, 2\)"),
    ({"model": ""}, INVALID, "no name"),
    ({"signature": "tags"}, INVALID, '"tags" not found; known: embed, explain'),
    ({"inputs": {"images": PHOTOS}}, INVALID, r"Missing but required: \{class_embeddings\}"),
    ({"inputs": {**good(), "more": 1.0}}, INVALID, r"Sent extra: \{more\}"),
    ({"inputs": {}}, INVALID, "0!=2"),
    ({"outputs": ["maps"]}, INVALID, "not found in signature: maps"),
    ({"outputs": ["scores", "scores"]}, INVALID, "duplicate output"),
    ({"inputs": good([1, 2])}, INVALID, "images: dtype DT_INT32; expected DT_STRING"),
    ({"inputs": good(class_embeddings=np.ones((1, 4)))}, INVALID, "dtype DT_DOUBLE"),
    ({"inputs": good(class_embeddings=CLASSES[:, :3])}, INVALID, r"\(3, 3\); expected \(any, 4\)"),
    ({"inputs": good([PHOTOS])}, INVALID, r"images: shape \(1, 2\); expected \(any\)"),
    ({"inputs": good([BROKEN])}, INVALID, r"^assertion failed: \[images: not a whole photo\]$"),
    ({"inputs": good([])}, INVALID, "images"),
    ({"inputs": good(class_embeddings=claiming(CLASSES, 5, 4))}, INVALID, "of 48 bytes"),
    ({"inputs": good(class_embeddings=claiming(CLASSES, -1, 4))}, INVALID, "shape"),
    ({"inputs": good(class_embeddings=claiming(CLASSES, 2**62, 4))}, INVALID, "larger than"),
    ({"inputs": good(class_embeddings=one_value_for_all(10**9, 4))}, INVALID, "larger than"),
    ({"inputs": good(class_embeddings=without_rank())}, INVALID, "shape unknown"),
    ({"inputs": good(claiming(PHOTOS, 10**12))}, INVALID, "larger than"),
]


@pytest.mark.parametrize(("request_", "code", "message"), WRONG)
def test_what_is_wrong_gets_tensorflow_servings_code(predict, request_, code, message):
    found, details = refusal(predict, **request_)
    assert found == code
    assert re.search(message, details), details


def test_the_asked_for_version_is_the_one_that_answers(predict):
    assert predict(version=3).model_spec.version.value == 3


def test_one_value_may_stand_for_all(predict):
    scores = predict("", good(class_embeddings=one_value_for_all(2, 4))).outputs["scores"]
    np.testing.assert_allclose(tf.make_ndarray(scores), [[12, 12], [20, 20]])


def test_damaged_requests_leave_the_good_ones_unharmed(predict):
    expected = expected_scores(PHOTOS, CLASSES)

    def ask(number):
        if number % 3 == 0:
            answer = predict("", good()).outputs["scores"]
            np.testing.assert_array_equal(tf.make_ndarray(answer), expected)
            return
        request, code, _ = WRONG[number % len(WRONG)]
        assert refusal(predict, **request)[0] == code

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(120)))


def test_bytes_that_are_no_message_are_refused_and_do_no_harm(channel, predict):
    raw = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    for seed in range(10):
        junk = np.random.default_rng(seed).bytes(50)
        with pytest.raises(grpc.RpcError):
            raw(b"\xff" + junk, timeout=300)
    assert predict().outputs


def test_metadata_holds_the_signatures(channel):
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "tagger"
    response = stub.GetModelMetadata(request, timeout=300)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    response.metadata["signature_def"].Unpack(signatures)
    assert response.model_spec.version.value == 3
    assert {"serving_default", "tag", "tag_known", "explain", "features", "rescore"} <= {
        *signatures.signature_def
    }
    assert set(signatures.signature_def["tag"].inputs) == {"images", "class_names"}
    request.metadata_field[:] = ["weights"]
    assert refusal(stub.GetModelMetadata, request)[0] == INVALID
    request.metadata_field[:] = []
    assert refusal(stub.GetModelMetadata, request)[0] == INVALID


def test_status_tells_which_version_is_available(channel):
    available = get_model_status_pb2.ModelVersionStatus.AVAILABLE
    assert {number: s.state for number, s in status(channel).items()} == {3: available}
    assert set(status(channel, version=3)) == {3}
    assert refusal(status, channel, version=4)[0] == NOT_FOUND
    assert refusal(status, channel, "another")[0] == NOT_FOUND


def test_health_and_reflection_are_there(channel):
    serving = health_pb2.HealthCheckResponse.SERVING
    assert health(channel) == serving
    assert health(channel, "tensorflow.serving.PredictionService") == serving
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    (answer,) = stub.ServerReflectionInfo(asked)
    services = {service.name for service in answer.list_services_response.service}
    assert {"tensorflow.serving.PredictionService", "grpc.health.v1.Health"} <= services


def test_other_methods_are_not_there(channel):
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    code, _ = refusal(stub.Classify, classification_pb2.ClassificationRequest(), timeout=300)
    assert code == grpc.StatusCode.UNIMPLEMENTED


def test_metrics_count_requests_by_code(server, predict):
    predict("tag_known", {"images": [b"a"] * 5})
    refusal(predict, signature="made up by a stranger")
    page = f"http://{server.address.split(':')[0]}:{server.metrics_port}/metrics"
    text = urllib.request.urlopen(page, timeout=300).read().decode()
    ok = r'biam_requests_total\{code="OK",method="Predict",signature="tag_known"\} \d'
    assert re.search(ok, text)
    assert 'code="INVALID_ARGUMENT",method="Predict",signature="unknown"' in text
    assert "stranger" not in text
    assert 'biam_request_photos_bucket{le="8.0",signature="tag_known"}' in text
    assert 'biam_request_seconds_sum{method="Predict",signature="tag_known"}' in text
    assert "biam_model_version 3.0" in text


def test_a_deadline_that_passes_is_told_and_a_queued_request_is_not_run(model_dir, tmp_path):
    server = ready(started(model_dir, threads=1))
    gate, never = Gate(tmp_path / "gate"), Gate(tmp_path / "never")
    with (
        grpc.insecure_channel(server.address) as channel,
        concurrent.futures.ThreadPoolExecutor(1) as pool,
    ):
        predict = predictor(channel)
        running = pool.submit(predict, "", good([gate.photo]))
        wait_for(gate.reached)
        code, _ = refusal(predict, "", good([never.photo]), timeout=0.2)
        assert code == grpc.StatusCode.DEADLINE_EXCEEDED
        assert not running.done()
        gate.open()
        predict("", good())  # next in the only thread, which did not take up what was given up
        assert not never.reached()
        running.result()
    server.stop()


def test_beyond_the_limits_resources_are_exhausted(model_dir, tmp_path):
    server = ready(started(model_dir, max_concurrent_rpcs=2, max_message_mb=1))
    gate = Gate(tmp_path / "gate")
    with (
        grpc.insecure_channel(server.address) as channel,
        concurrent.futures.ThreadPoolExecutor(6) as pool,
    ):
        predict = predictor(channel)

        def code(_):
            try:
                predict("", good([gate.photo]))
            except grpc.RpcError as error:
                return error.code()
            return grpc.StatusCode.OK

        calls = [pool.submit(code, number) for number in range(6)]
        wait_for(lambda: sum(call.done() for call in calls) == 4)
        gate.open()
        codes = [call.result() for call in calls]
        assert codes.count(grpc.StatusCode.OK) == 2
        assert codes.count(grpc.StatusCode.RESOURCE_EXHAUSTED) == 4
        large = np.zeros((70_000, EMBEDDING_SIZE), np.float32)
        found, details = refusal(predict, "", good(class_embeddings=large))
        assert found == grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details
    server.stop()


def test_9_megabytes_of_class_embeddings_are_taken(predict):
    many = np.ones((600_000, EMBEDDING_SIZE), np.float32)
    scores = predict("", good([b"1"], many)).outputs["scores"]
    assert many.nbytes > 9e6 and tf.make_ndarray(scores).shape == (1, len(many))
