"""Requests to a server of the tiny model, and the refusals that they get."""

import grpc
import numpy as np
import pytest
import tensorflow as tf
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)
from tiny_model import EMBEDDING_SIZE

PHOTOS = [b"one", b"three"]
CLASSES = np.arange(3 * EMBEDDING_SIZE, dtype=np.float32).reshape(3, EMBEDDING_SIZE)


def predictor(channel):
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

    def predict(signature="", inputs=None, outputs=(), timeout=300, model="tagger", version=None):
        request = predict_pb2.PredictRequest(output_filter=outputs)
        request.model_spec.name = model
        request.model_spec.signature_name = signature
        if version is not None:
            request.model_spec.version.value = version
        for name, value in (good() if inputs is None else inputs).items():
            if not isinstance(value, tensor_pb2.TensorProto):
                value = tf.make_tensor_proto(value)
            request.inputs[name].CopyFrom(value)
        return stub.Predict(request, timeout=timeout)

    return predict


def good(images=PHOTOS, class_embeddings=CLASSES):
    return {"images": images, "class_embeddings": class_embeddings}


def refusal(call, *arguments, **options) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as error:
        call(*arguments, **options)
    return error.value.code(), error.value.details()


def status(channel, model="tagger", version=None):
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = model
    if version is not None:
        request.model_spec.version.value = version
    stub = model_service_pb2_grpc.ModelServiceStub(channel)
    found = stub.GetModelStatus(request, timeout=60).model_version_status
    return {version.version: version for version in found}


def health(channel, service=""):
    stub = health_pb2_grpc.HealthStub(channel)
    return stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=60).status
