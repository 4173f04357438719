"""Warm-up requests, which servers run before clients get a new version."""

import pathlib
from collections.abc import Iterable, Mapping

import numpy as np
import tensorflow as tf

from biam_tf.errors import UserError

FILE_NAME = "tf_serving_warmup_requests"


def require_protos() -> None:
    """Raises a `UserError` that says what to install if TensorFlow Serving's API is missing."""
    try:
        import tensorflow_serving.apis  # noqa: F401
    except ImportError:
        raise UserError(
            "the package tensorflow-serving-api is missing; install it with pip install "
            "'biam-tf[serving]'"
        ) from None


def write_warmup_requests(
    path: pathlib.Path, requests: Iterable[tuple[str, Mapping[str, np.ndarray]]]
) -> None:
    """Writes requests, pairs of a signature and its inputs, as TFRecord of `PredictionLog`."""
    from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, inputs in requests:
            request = predict_pb2.PredictRequest()
            request.model_spec.signature_name = signature
            for name, value in inputs.items():
                request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
            log = prediction_log_pb2.PredictionLog(
                predict_log=prediction_log_pb2.PredictLog(request=request)
            )
            writer.write(log.SerializeToString())
