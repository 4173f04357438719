"""HTTP beside gRPC: TensorFlow Serving's REST API, probes, and the page for Prometheus.

| path | answer |
|---|---|
| `POST /v1/models/NAME[/versions/V]:predict` | runs a signature |
| `GET /v1/models/NAME[/versions/V]` | state of the versions |
| `GET /v1/models/NAME[/versions/V]/metadata` | the signatures |
| `GET /healthz` | 200 as long as the process answers |
| `GET /readyz` | 200 if a version is loaded, else 503 |
| `GET /metrics` | the page for Prometheus |
"""

import asyncio
import contextlib
import dataclasses
import json
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, MutableMapping
from typing import Any

import grpc
import uvicorn
from google.protobuf import json_format
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, model_pb2

from serving.rpc.calls import REQUEST_ID, Call
from serving.rpc.http_connections import BoundedConnection, connection_of
from serving.rpc.intake import Intake
from serving.rpc.limits import CLASS_INPUTS, count
from serving.rpc.listening import listening_socket
from serving.rpc.metrics_page import CONTENT_TYPE, Metrics
from serving.rpc.model_version import ModelVersion
from serving.rpc.outbox import Outbox
from serving.rpc.rest_json import BYTES_PER_NUMBER, RestRequest, read_request, write_answer
from serving.rpc.server_settings import ServerSettings
from serving.rpc.services import SIGNATURE_DEF, ServedModel, model_metadata, model_status
from serving.rpc.status import RequestError, invalid_argument

_JSON, _TEXT = "application/json", "text/plain; charset=utf-8"
_MODEL = re.compile(
    r"/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<version>[0-9]{1,19})|/labels/(?P<label>[^/:]+))?"
    r"(?P<rest>|/metadata|:predict)"
)
_SHOWN_PATH = 200
_LARGE_BODY = 2**18  # larger ones are read one at a time, apart from the threads of requests
_HTTP_CODES = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


@dataclasses.dataclass(frozen=True)
class _Answer:
    code: int
    body: Iterable[bytes]
    content_type: str = _JSON
    headers: tuple[tuple[str, str], ...] = ()


@dataclasses.dataclass(frozen=True)
class _Read:
    """A request that was read, and the version for which it was."""

    call: Call
    version: ModelVersion
    request: RestRequest


class _HttpError(Exception):
    """Ends a request with an HTTP code that no gRPC code stands for."""

    def __init__(self, code: int, message: str, **headers: str):
        super().__init__(message)
        self.answer = _Answer(code, [_error(message)], headers=tuple(headers.items()))


class _Gone(Exception):
    """The client closed the connection."""


class HttpServer:
    """Serves `/v1/models`, `/healthz`, `/readyz` and `/metrics` in the server's event loop.

    Args:
        model: the model and what runs it, shared with gRPC.
        metrics: the metrics of the page.
        intake: counts the bytes of requests, shared with gRPC.
        outbox: counts the bytes of answers, likewise.
        settings: address and limits.
        tls: the TLS context; None for plain HTTP.

    Attributes:
        port: the port, after `start`.

    Raises:
        UserError: the port can't be used.
    """

    def __init__(
        self,
        model: ServedModel,
        metrics: Metrics,
        intake: Intake,
        outbox: Outbox,
        settings: ServerSettings,
        tls: ssl.SSLContext | None,
    ) -> None:
        # Numbers are longer in JSON.
        answer = model.limits.max_answer_bytes * 4 // BYTES_PER_NUMBER
        limits = dataclasses.replace(model.limits, max_answer_bytes=answer)
        self._model = dataclasses.replace(model, limits=limits)
        self._metrics = metrics
        self._intake = intake
        self._outbox = outbox
        self._turn = asyncio.Lock()
        self._max_body = min(settings.max_rest_mb * 2**20, settings.max_bytes)
        assert settings.metrics_port is not None
        self._socket = listening_socket(settings.host, settings.metrics_port, "--metrics-port")
        self.port: int = self._socket.getsockname()[1]
        config = uvicorn.Config(
            self._app,
            interface="asgi3",
            http=BoundedConnection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=max(1, round(settings.drain_seconds)),
        )
        config.load()
        config.ssl = tls
        self._server = uvicorn.Server(config)
        self._task: asyncio.Task | None = None

    async def start(self) -> None:
        """Starts listening."""
        self._task = asyncio.ensure_future(self._server.serve(sockets=[self._socket]))
        while not self._server.started and not self._task.done():
            await asyncio.sleep(0.005)

    async def stop(self, seconds: float) -> None:
        """Stops listening; requests that are running may take `seconds`."""
        self._server.should_exit = True
        if self._task is not None:
            await asyncio.wait([self._task], timeout=seconds)
            self._server.force_exit = True
            await asyncio.wait([self._task], timeout=0.3)
        self._socket.close()

    async def _app(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        headers = {
            key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]
        }
        try:
            answer = await self._respond(scope["method"], scope["path"], headers, receive)
        except _HttpError as error:
            answer = error.answer
        except _Gone:
            return
        parts = [*answer.body]
        sent, connection = 0, connection_of(scope)
        try:
            letter = self._outbox.add(
                sum(map(len, parts)), lambda: sent - connection.unsent, connection.abort
            )
        except RequestError as error:
            answer = _Answer(_HTTP_CODES[error.code], parts := [_error(error.message)])
            letter = None
        out = [("content-type", answer.content_type), *answer.headers]
        try:
            await send(
                {
                    "type": "http.response.start",
                    "status": answer.code,
                    "headers": [(key.encode(), value.encode()) for key, value in out],
                }
            )
            for part in parts if scope["method"] != "HEAD" else ():
                await send({"type": "http.response.body", "body": part, "more_body": True})
                sent += len(part)
                # Lets the loop see that the client is gone, after which nothing is sent, and
                # answer others meanwhile.
                await asyncio.sleep(0)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._outbox.remove(letter)

    async def _respond(
        self, method: str, path: str, headers: dict[str, str], receive: Receive
    ) -> _Answer:
        if path in ("/healthz", "/readyz", "/metrics"):
            _require_method(method, "GET", "HEAD")
            if path == "/metrics":
                return _Answer(200, [self._metrics.page()], CONTENT_TYPE)
            if path == "/readyz" and self._model.versions.current is None:
                return _Answer(503, [b"no version is loaded yet\n"], _TEXT)
            return _Answer(200, [b"ok\n"], _TEXT)
        found = _MODEL.fullmatch(path)
        if found is None:
            raise _HttpError(404, f"Malformed request: {method} {path[:_SHOWN_PATH]}")
        spec = model_pb2.ModelSpec(name=found["name"])
        if found["version"]:
            number = int(found["version"])
            if number >= 2**63:
                raise _HttpError(404, f"there is no version {number}")
            spec.version.value = number
        if found["label"]:
            spec.version_label = found["label"]
        if found["rest"] == ":predict":
            _require_method(method, "POST")
            call = Call("Predict", headers, signature="unknown")
            work = self._predict(call, spec, receive)
        else:
            _require_method(method, "GET", "HEAD")
            metadata = found["rest"] == "/metadata"
            call = Call("GetModelMetadata" if metadata else "GetModelStatus", headers)
            facts = self._metadata if metadata else self._status
            work = self._model.answering.answer(call, lambda: [facts(spec)], False)
        identity = (REQUEST_ID, call.id)
        try:
            return _Answer(200, await work, headers=(identity,))
        except RequestError as error:
            code = _HTTP_CODES.get(error.code, 500)
            return _Answer(code, [_error(error.message)], headers=(identity,))

    async def _predict(
        self, call: Call, spec: model_pb2.ModelSpec, receive: Receive
    ) -> Iterable[bytes]:
        async with self._body(call, receive) as body:
            read = lambda: self._read(call, spec, body)  # noqa: E731
            if len(body) > _LARGE_BODY:
                answer = self._model.answering.answer(call, self._run, True, read)
            else:
                answer = self._model.answering.answer(call, lambda: self._run(read()), True)
            work = asyncio.ensure_future(answer)
            gone = asyncio.ensure_future(receive())  # the next event is the client's leaving
            try:
                await asyncio.wait([work, gone], return_when=asyncio.FIRST_COMPLETED)
                if not work.done():
                    work.cancel()
                    await asyncio.wait([work])
                    raise _Gone
                return work.result()
            finally:
                gone.cancel()
                if not work.done():
                    work.cancel()

    def _read(self, call: Call, spec: model_pb2.ModelSpec, body: bytearray) -> "_Read":
        version = self._model.version(spec)
        request = read_request(body, version, self._model.max_bytes)
        call.signature = self._model.label(request.signature)
        shapes = {key: array.shape for key, array in request.inputs.items()}
        call.photos, call.classes = count(shapes, ("images",)), count(shapes, CLASS_INPUTS)
        return _Read(call, version, request)

    def _run(self, read: "_Read") -> list[bytes]:
        request, check = read.request, read.call.check
        outputs = read.version.run(request.signature, request.inputs, check, self._model.limits)
        return write_answer(outputs, request, check)

    @contextlib.asynccontextmanager
    async def _body(self, call: Call, receive: Receive) -> AsyncIterator[bytearray]:
        """Receives a body, whose bytes count until the context is left."""
        encoding = call.headers.get("content-encoding", "identity")
        if encoding.lower() != "identity":
            raise _HttpError(415, f"content-encoding {encoding[:40]!r}: send the body as it is")
        length = call.headers.get("content-length")
        if length is not None and int(length) > self._max_body:
            raise self._too_large()
        body = bytearray()

        async def read() -> bytearray:
            more = True
            while more:
                async with self._turn:  # many bodies at a time would hold up health
                    await asyncio.sleep(0)
                event = await receive()
                if event["type"] == "http.disconnect":
                    raise _Gone
                body.extend(event.get("body", b""))
                if len(body) > self._max_body:
                    raise self._too_large()
                more = event.get("more_body", False)
            return body

        try:
            await self._intake.receive(
                f"body {id(body)}",
                lambda: len(body),
                read,
                size=self._max_body if length is None else int(length),
            )
            self._intake.hold(len(body))
        except RequestError as error:
            self._model.answering.record(call, error.code)
            if error.code == grpc.StatusCode.DEADLINE_EXCEEDED:
                raise _HttpError(408, error.message) from None
            raise
        try:
            yield body
        finally:
            self._intake.release(len(body))

    def _too_large(self) -> _HttpError:
        return _HttpError(
            413,
            f"the body is larger than {self._max_body // 2**20} MB (--max-rest-mb, "
            "--max-message-mb); send larger requests over gRPC",
        )

    def _status(self, spec: model_pb2.ModelSpec) -> bytes:
        request = get_model_status_pb2.GetModelStatusRequest(model_spec=spec)
        if spec.version_label:
            raise invalid_argument("this server has no version labels; TensorFlow Serving has them")
        found = model_status(self._model, request)
        states = [
            {
                "version": str(version.version),
                "state": get_model_status_pb2.ModelVersionStatus.State.Name(version.state),
                "status": {
                    "error_code": "UNKNOWN" if version.status.error_code else "OK",
                    "error_message": version.status.error_message,
                },
            }
            for version in found.model_version_status
        ]
        return _json({"model_version_status": states})

    def _metadata(self, spec: model_pb2.ModelSpec) -> bytes:
        response = model_metadata(
            self._model,
            get_model_metadata_pb2.GetModelMetadataRequest(
                model_spec=spec, metadata_field=[SIGNATURE_DEF]
            ),
        )
        signatures = get_model_metadata_pb2.SignatureDefMap()
        response.metadata[SIGNATURE_DEF].Unpack(signatures)
        found = json_format.MessageToDict(
            signatures,
            preserving_proto_field_name=True,
            always_print_fields_with_no_presence=True,
        )
        model = {
            "name": response.model_spec.name,
            "signature_name": "",
            "version": str(response.model_spec.version.value),
        }
        return _json({"model_spec": model, "metadata": {SIGNATURE_DEF: found}})


def _require_method(method: str, *allowed: str) -> None:
    if method not in allowed:
        raise _HttpError(405, f"use {allowed[0]}, not {method}", allow=", ".join(allowed))


def _error(message: str) -> bytes:
    return _json({"error": message})


def _json(value: Any) -> bytes:
    # Halves of UTF-16 pairs, which JSON may name, stay escapes.
    text = json.dumps(value, indent=1, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace") + b"\n"
