"""The two gRPC services of TensorFlow Serving that clients of a single model need.

A `Predict` request passes through

1. `PredictionServicer.Predict`, which gRPC calls in one of the server's threads; `_handle` counts
   the request and turns errors into gRPC status codes;
2. `NewestVersion.current` (`serving.rpc.loader`), the loaded version;
3. `ModelVersion.predict` (`serving.rpc.loader`), which compares the inputs with the signature,
   reads them into arrays (`serving.rpc.tensors`) and runs the signature in a session;
4. the signature's function in `serving.graph.signatures`: decode the photos, run the backbone
   in batches shared by all requests, embed the class names, score;
5. `to_proto` (`serving.rpc.tensors`), which writes each output into the response.
"""

import logging
from collections.abc import Callable
from typing import TypeVar

import grpc
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from serving.rpc.loader import DEFAULT_SIGNATURE, ModelVersion, NewestVersion
from serving.rpc.metrics_page import Metrics
from serving.rpc.status import RequestError, invalid_argument, not_found
from serving.rpc.tensors import to_proto

SIGNATURE_DEF = "signature_def"

_LOG = logging.getLogger(__name__)

Response = TypeVar("Response")


class PredictionServicer(prediction_service_pb2_grpc.PredictionServiceServicer):
    """`Predict` and `GetModelMetadata`; the service's other methods return UNIMPLEMENTED.

    Args:
        versions: provides the loaded version.
        model_name: model name that requests must give.
        metrics: counts the requests.
        max_bytes: larger inputs are refused.
    """

    def __init__(self, versions: NewestVersion, model_name: str, metrics: Metrics, max_bytes: int):
        self._versions = versions
        self._model_name = model_name
        self._metrics = metrics
        self._max_bytes = max_bytes

    def Predict(
        self, request: predict_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> predict_pb2.PredictResponse:
        """Runs a signature of the loaded version."""
        name = request.model_spec.signature_name or DEFAULT_SIGNATURE
        version = self._versions.current
        # Label only existing names: clients could send any number of others.
        label = name if version is not None and name in version.signature_defs else "unknown"
        return _handle(
            context, self._metrics, "Predict", label, lambda: self._predict(request, name, context)
        )

    def _predict(
        self, request: predict_pb2.PredictRequest, name: str, context: grpc.ServicerContext
    ) -> predict_pb2.PredictResponse:
        _require_waiting_client(context)
        version = self._requested_version(request.model_spec)
        outputs = version.predict(
            request, self._max_bytes, lambda: _require_waiting_client(context)
        )
        if "images" in request.inputs:
            self._metrics.observe_photos(name, request.inputs["images"].tensor_shape.dim[0].size)
        response = predict_pb2.PredictResponse()
        _fill_model_spec(response.model_spec, self._model_name, version)
        response.model_spec.signature_name = name
        for key, value in outputs.items():
            response.outputs[key].CopyFrom(to_proto(value))
        return response

    def GetModelMetadata(
        self,
        request: get_model_metadata_pb2.GetModelMetadataRequest,
        context: grpc.ServicerContext,
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """Returns the signatures of the loaded version."""
        return _handle(
            context, self._metrics, "GetModelMetadata", "", lambda: self._metadata(request)
        )

    def _metadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        if not request.HasField("model_spec"):
            raise invalid_argument("Missing ModelSpec")
        if not request.metadata_field:
            raise invalid_argument(
                "GetModelMetadataRequest must specify at least one metadata_field"
            )
        for field in request.metadata_field:
            if field != SIGNATURE_DEF:
                raise invalid_argument(f"Metadata field {field} is not supported")
        version = self._requested_version(request.model_spec)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for name, signature in version.signature_defs.items():
            signatures.signature_def[name].CopyFrom(signature)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        _fill_model_spec(response.model_spec, self._model_name, version)
        response.metadata[SIGNATURE_DEF].Pack(signatures)
        return response

    def _requested_version(self, spec: model_pb2.ModelSpec) -> ModelVersion:
        """The loaded version, if it is the requested one.

        The reference returned here keeps the version in memory while the request runs, even if
        a newer one replaces it meanwhile.
        """
        _require_model_name(spec, self._model_name)
        version = self._versions.current
        if version is None:
            raise RequestError(
                grpc.StatusCode.UNAVAILABLE, f"no version of {self._model_name!r} is loaded yet"
            )
        if spec.version_label:
            raise invalid_argument("this server has no version labels; TensorFlow Serving has them")
        if spec.HasField("version") and spec.version.value != version.number:
            raise not_found(f"Specific({spec.name}, {spec.version.value})")
        return version


class ModelServicer(model_service_pb2_grpc.ModelServiceServicer):
    """`GetModelStatus`; for the arguments see `PredictionServicer`."""

    def __init__(self, versions: NewestVersion, model_name: str, metrics: Metrics):
        self._versions = versions
        self._model_name = model_name
        self._metrics = metrics

    def GetModelStatus(
        self, request: get_model_status_pb2.GetModelStatusRequest, context: grpc.ServicerContext
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """Returns the state of each version that was loaded or tried."""
        return _handle(context, self._metrics, "GetModelStatus", "", lambda: self._status(request))

    def _status(
        self, request: get_model_status_pb2.GetModelStatusRequest
    ) -> get_model_status_pb2.GetModelStatusResponse:
        if not request.HasField("model_spec"):
            raise invalid_argument("Missing ModelSpec")
        spec = request.model_spec
        _require_model_name(spec, self._model_name)
        states = self._versions.states
        if spec.HasField("version"):
            number = spec.version.value
            states = {number: states[number]} if number in states else {}
        if not states:
            version = f"version {spec.version.value}" if spec.HasField("version") else "any version"
            message = f"Could not find {version} of model {spec.name}"
            raise RequestError(grpc.StatusCode.NOT_FOUND, message)
        response = get_model_status_pb2.GetModelStatusResponse()
        for number, state in sorted(states.items()):
            status = response.model_version_status.add(version=number)
            status.state = get_model_status_pb2.ModelVersionStatus.State.Value(state.state)
            if state.error:
                status.status.error_code = grpc.StatusCode.UNKNOWN.value[0]
                status.status.error_message = state.error
        return response


def _handle(
    context: grpc.ServicerContext,
    metrics: Metrics,
    method: str,
    signature: str,
    respond: Callable[[], Response],
) -> Response:
    """Returns what `respond` returns, counted; ends the call with a status code if it raises."""
    try:
        with metrics.request(method, signature):
            return respond()
    except RequestError as error:
        failure = error
    except Exception as error:
        _LOG.exception("%s", method)
        failure = RequestError(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}")
    context.abort(failure.code, failure.message)  # raises
    raise AssertionError("unreachable")


def _require_waiting_client(context: grpc.ServicerContext) -> None:
    """Saves the work if the client gave up while its request waited for a thread."""
    left = context.time_remaining()
    if left is not None and left <= 0:
        raise RequestError(grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline passed in the queue")
    if not context.is_active():
        raise RequestError(grpc.StatusCode.CANCELLED, "the client gave up")


def _require_model_name(spec: model_pb2.ModelSpec, model_name: str) -> None:
    if not spec.name:
        raise invalid_argument("ModelSpec has no name specified.")
    if spec.name != model_name:
        raise not_found(f"Latest({spec.name})")


def _fill_model_spec(spec: model_pb2.ModelSpec, model_name: str, version: ModelVersion) -> None:
    spec.name = model_name
    spec.version.value = version.number
