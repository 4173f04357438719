"""The two services of TensorFlow Serving that a client of one model needs."""

import logging
from collections.abc import Callable

import grpc
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from serving.rpc.loader import DEFAULT_SIGNATURE, ModelVersion, NewestVersion
from serving.rpc.metrics_page import Metrics
from serving.rpc.status import RequestError, invalid
from serving.rpc.tensors import to_proto

SIGNATURE_DEF = "signature_def"

_LOG = logging.getLogger(__name__)


class PredictionServicer(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Predict and GetModelMetadata; the other methods answer UNIMPLEMENTED.

    Args:
        versions: where the version that answers comes from.
        model_name: what requests must call the model.
        metrics: counts the requests.
        max_bytes: larger inputs are refused.
    """

    def __init__(self, versions: NewestVersion, model_name: str, metrics: Metrics, max_bytes: int):
        self._versions = versions
        self._model_name = model_name
        self._metrics = metrics
        self._max_bytes = max_bytes

    def Predict(self, request, context):
        """Runs a signature."""
        name = request.model_spec.signature_name or DEFAULT_SIGNATURE
        version = self._versions.current
        # Only names that exist: a label for whatever a stranger sends would never end.
        known = name if version is not None and name in version.signature_defs else "unknown"

        def answer():
            _require_time(context)
            version = self._version(request.model_spec)
            outputs = version.predict(request, self._max_bytes, lambda: _require_time(context))
            if "images" in request.inputs:
                self._metrics.photos(name, request.inputs["images"].tensor_shape.dim[0].size)
            response = predict_pb2.PredictResponse()
            _name(response.model_spec, self._model_name, version)
            response.model_spec.signature_name = name
            for key, value in outputs.items():
                response.outputs[key].CopyFrom(to_proto(value))
            return response

        return _answered(context, self._metrics, "Predict", known, answer)

    def GetModelMetadata(self, request, context):
        """Returns the signatures."""

        def answer():
            if not request.HasField("model_spec"):
                raise invalid("Missing ModelSpec")
            if not request.metadata_field:
                raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
            for field in request.metadata_field:
                if field != SIGNATURE_DEF:
                    raise invalid(f"Metadata field {field} is not supported")
            version = self._version(request.model_spec)
            signatures = get_model_metadata_pb2.SignatureDefMap()
            for name, signature in version.signature_defs.items():
                signatures.signature_def[name].CopyFrom(signature)
            response = get_model_metadata_pb2.GetModelMetadataResponse()
            _name(response.model_spec, self._model_name, version)
            response.metadata[SIGNATURE_DEF].Pack(signatures)
            return response

        return _answered(context, self._metrics, "GetModelMetadata", "", answer)

    def _version(self, spec) -> ModelVersion:
        """The version that a request is for; it stays loaded for as long as it is held."""
        _require_name(spec, self._model_name)
        version = self._versions.current
        if version is None:
            raise RequestError(
                grpc.StatusCode.UNAVAILABLE, f"no version of {self._model_name!r} is loaded yet"
            )
        if spec.version_label:
            raise invalid("this server has no version labels; TensorFlow Serving has them")
        if spec.HasField("version") and spec.version.value != version.number:
            raise _not_found(f"Specific({spec.name}, {spec.version.value})")
        return version


class ModelServicer(model_service_pb2_grpc.ModelServiceServicer):
    """GetModelStatus; the arguments are those of `PredictionServicer`."""

    def __init__(self, versions: NewestVersion, model_name: str, metrics: Metrics):
        self._versions = versions
        self._model_name = model_name
        self._metrics = metrics

    def GetModelStatus(self, request, context):
        """Returns what became of each version."""
        return _answered(
            context, self._metrics, "GetModelStatus", "", lambda: self._status(request)
        )

    def _status(self, request):
        if not request.HasField("model_spec"):
            raise invalid("Missing ModelSpec")
        spec = request.model_spec
        _require_name(spec, self._model_name)
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


def _answered(context, metrics: Metrics, method: str, signature: str, answer: Callable):
    try:
        with metrics.request(method, signature):
            return answer()
    except RequestError as error:
        failure = error
    except Exception as error:
        _LOG.exception("%s", method)
        failure = RequestError(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}")
    context.abort(failure.code, failure.message)


def _require_time(context) -> None:
    """Spares the work for a client that has given up while its request waited for a thread."""
    left = context.time_remaining()
    if left is not None and left <= 0:
        raise RequestError(grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline passed in the queue")
    if not context.is_active():
        raise RequestError(grpc.StatusCode.CANCELLED, "the client gave up")


def _require_name(spec, model_name: str) -> None:
    if not spec.name:
        raise invalid("ModelSpec has no name specified.")
    if spec.name != model_name:
        raise _not_found(f"Latest({spec.name})")


def _not_found(wanted: str) -> RequestError:
    return RequestError(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {wanted}")


def _name(spec, model_name: str, version: ModelVersion) -> None:
    spec.name = model_name
    spec.version.value = version.number
