"""The two gRPC services of TensorFlow Serving that clients of a single model need.

A `Predict` request passes through

1. `PredictionServicer.Predict`, which is called in the event loop when the whole message is there
   (`serving.rpc.intake` waits for it and bounds the bytes of all requests);
   `Answering.answer` (`serving.rpc.answering`) lets it wait for a thread and counts it;
2. `NewestVersion.current` (`serving.rpc.loader`), the loaded version;
3. `ModelVersion.predict` (`serving.rpc.model_version`), which compares the inputs with the
   signature and the limits (`serving.rpc.limits`), reads them into arrays (`serving.rpc.tensors`)
   and runs the signature in a session;
4. the signature's function in `serving.graph.signatures`: decode the photos, run the backbone
   in batches shared by all requests, embed the class names, score;
5. `to_proto` (`serving.rpc.tensors`), which writes each output into the response.
"""

import dataclasses
import time
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

from serving.rpc.answering import Answering
from serving.rpc.calls import REQUEST_ID, Call
from serving.rpc.limits import CLASS_INPUTS, Limits, count, static_sizes
from serving.rpc.loader import NewestVersion
from serving.rpc.model_version import DEFAULT_SIGNATURE, ModelVersion
from serving.rpc.status import RequestError, invalid_argument, not_found
from serving.rpc.tensors import to_proto

SIGNATURE_DEF = "signature_def"
NO_NAME = "ModelSpec has no name specified."

Response = TypeVar("Response")


@dataclasses.dataclass(frozen=True)
class ServedModel:
    """What the services share.

    Attributes:
        versions: provides the loaded version.
        name: model name that requests must give.
        answering: runs and records the requests.
        max_bytes: larger inputs are refused.
        limits: what one request may ask for.
    """

    versions: NewestVersion
    name: str
    answering: Answering
    max_bytes: int
    limits: Limits

    def version(self, spec: model_pb2.ModelSpec) -> ModelVersion:
        """Returns the loaded version, if it is the requested one.

        The returned reference keeps the version in memory while the request runs, even if a newer
        one replaces it meanwhile.

        Raises:
            RequestError: NOT_FOUND, or UNAVAILABLE before a version is loaded.
        """
        require_model_name(spec, self.name)
        version = self.versions.current
        if version is None:
            raise RequestError(
                grpc.StatusCode.UNAVAILABLE, f"no version of {self.name!r} is loaded yet"
            )
        if spec.version_label:
            raise invalid_argument("this server has no version labels; TensorFlow Serving has them")
        if spec.HasField("version") and spec.version.value != version.number:
            raise not_found(f"Specific({spec.name}, {spec.version.value})")
        return version

    def label(self, signature: str) -> str:
        """Returns the signature's name, or "unknown": clients could send any number of others."""
        version = self.versions.current
        return signature if version and signature in version.signature_defs else "unknown"


class PredictionServicer(prediction_service_pb2_grpc.PredictionServiceServicer):
    """`Predict` and `GetModelMetadata`; the service's other methods return UNIMPLEMENTED.

    Args:
        model: the model and what runs it.
    """

    def __init__(self, model: ServedModel):
        self._model = model

    async def Predict(
        self, request: predict_pb2.PredictRequest, context: grpc.aio.ServicerContext
    ) -> predict_pb2.PredictResponse:
        """Runs a signature of the loaded version."""
        name = request.model_spec.signature_name or DEFAULT_SIGNATURE
        call = _call("Predict", context, self._model.label(name))
        return await _answer(
            self._model, call, context, lambda: self._predict(request, name, call), True
        )

    def _predict(
        self, request: predict_pb2.PredictRequest, name: str, call: Call
    ) -> predict_pb2.PredictResponse:
        version = self._model.version(request.model_spec)
        shapes = {
            key: tuple(static_sizes(value.tensor_shape)) for key, value in request.inputs.items()
        }
        call.photos, call.classes = count(shapes, ("images",)), count(shapes, CLASS_INPUTS)
        outputs = version.predict(request, self._model.max_bytes, call.check, self._model.limits)
        response = predict_pb2.PredictResponse()
        _fill_model_spec(response.model_spec, self._model.name, version)
        response.model_spec.signature_name = name
        for key, value in outputs.items():
            to_proto(value, response.outputs[key])
        return response

    async def GetModelMetadata(
        self,
        request: get_model_metadata_pb2.GetModelMetadataRequest,
        context: grpc.aio.ServicerContext,
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """Returns the signatures of the loaded version."""
        call = _call("GetModelMetadata", context)
        return await _answer(
            self._model, call, context, lambda: model_metadata(self._model, request), False
        )


def model_metadata(
    model: ServedModel, request: get_model_metadata_pb2.GetModelMetadataRequest
) -> get_model_metadata_pb2.GetModelMetadataResponse:
    """Answers `GetModelMetadata`.

    Raises:
        RequestError: the request is malformed, or there is no such model.
    """
    if not request.HasField("model_spec"):
        raise invalid_argument("Missing ModelSpec")
    if not request.metadata_field:
        raise invalid_argument("GetModelMetadataRequest must specify at least one metadata_field")
    for field in request.metadata_field:
        if field != SIGNATURE_DEF:
            raise invalid_argument(f"Metadata field {field} is not supported")
    version = model.version(request.model_spec)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    for name, signature in version.signature_defs.items():
        signatures.signature_def[name].CopyFrom(signature)
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    _fill_model_spec(response.model_spec, model.name, version)
    response.metadata[SIGNATURE_DEF].Pack(signatures)
    return response


class ModelServicer(model_service_pb2_grpc.ModelServiceServicer):
    """`GetModelStatus`; for the arguments see `PredictionServicer`."""

    def __init__(self, model: ServedModel):
        self._model = model

    async def GetModelStatus(
        self,
        request: get_model_status_pb2.GetModelStatusRequest,
        context: grpc.aio.ServicerContext,
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """Returns the state of each version that was loaded or tried."""
        call = _call("GetModelStatus", context)
        return await _answer(
            self._model, call, context, lambda: model_status(self._model, request), False
        )


def model_status(
    model: ServedModel, request: get_model_status_pb2.GetModelStatusRequest
) -> get_model_status_pb2.GetModelStatusResponse:
    """Answers `GetModelStatus`.

    Raises:
        RequestError: the request is malformed, or there is no such model or version.
    """
    if not request.HasField("model_spec"):
        raise invalid_argument("Missing ModelSpec")
    spec = request.model_spec
    if not spec.name:
        raise invalid_argument(NO_NAME)
    states = model.versions.states if spec.name == model.name else {}
    if spec.HasField("version"):
        number = spec.version.value
        states = {number: states[number]} if number in states else {}
    if not states:
        version = f"version {spec.version.value}" if spec.HasField("version") else "any versions"
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


def require_model_name(spec: model_pb2.ModelSpec, model_name: str) -> None:
    """Raises a `RequestError` if a request is not for the model of this name."""
    if not spec.name:
        raise invalid_argument(NO_NAME)
    if spec.name != model_name:
        raise not_found(f"Latest({spec.name})")


def _call(method: str, context: grpc.aio.ServicerContext, signature: str = "") -> Call:
    left = context.time_remaining()
    return Call(
        method,
        {key: value for key, value in context.invocation_metadata() if isinstance(value, str)},
        None if left is None else time.monotonic() + left,
        signature,
    )


async def _answer(
    model: ServedModel,
    call: Call,
    context: grpc.aio.ServicerContext,
    respond: Callable[[], Response],
    in_thread: bool,
) -> Response:
    """Returns what `respond` returns; ends the call with a status code if it raises."""
    context.set_trailing_metadata(((REQUEST_ID, call.id),))
    try:
        return await model.answering.answer(call, respond, in_thread)
    except RequestError as error:
        failure = error
    await context.abort(failure.code, failure.message)  # raises
    raise AssertionError("unreachable")


def _fill_model_spec(spec: model_pb2.ModelSpec, model_name: str, version: ModelVersion) -> None:
    spec.name = model_name
    spec.version.value = version.number
