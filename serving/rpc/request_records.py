"""Records of requests: a log with a line of JSON per request, and traces of OpenTelemetry."""

import json
import logging
import os
import sys
import urllib.parse
from typing import Any

import grpc

from biam_tf.errors import UserError
from biam_tf.network import is_loopback
from serving.rpc.calls import Call

STANDARD_ERROR = "-"

_LOG = logging.getLogger(__name__)


class RequestRecords:
    """Writes what became of each request.

    Args:
        path: file of the log, which is appended to; "-" for standard error; None for no log.
        traces: address that takes OpenTelemetry's traces over HTTP (OTLP), for example
            `http://localhost:4318/v1/traces`; None for no traces.

    Raises:
        UserError: the file can't be written, or OpenTelemetry is not installed.
    """

    def __init__(self, path: str | os.PathLike | None = None, traces: str | None = None):
        self._file = None
        if path is not None and os.fspath(path) == STANDARD_ERROR:
            self._file = sys.stderr
        elif path is not None:
            try:
                self._file = open(path, "a", encoding="utf-8", buffering=1)
            except OSError as error:
                raise UserError(f"--request-log {path}: {error.strerror}") from error
        self._traces = None if traces is None else _Traces(traces)

    def write(self, call: Call, code: grpc.StatusCode) -> None:
        """Records a request that ended."""
        if self._file is not None:
            try:
                self._file.write(json.dumps(_facts(call, code)) + "\n")
            # For example, a full disk: requests go on.
            except (OSError, ValueError) as error:  # ValueError: closed when the server stopped
                _LOG.error("the request log can't be written: %s", error)
        if self._traces is not None:
            self._traces.add(call, code)

    def close(self) -> None:
        """Closes the log and sends the traces that were not sent yet."""
        if self._file not in (None, sys.stderr):
            self._file.close()
        if self._traces is not None:
            self._traces.close()


def _facts(call: Call, code: grpc.StatusCode) -> dict[str, Any]:
    facts = {
        "time": round(call.received, 3),
        "id": call.id,
        "method": call.method,
        "signature": call.signature or None,
        "code": code.name,
        "photos": call.photos,
        "classes": call.classes,
        "queue_ms": round(1000 * call.waited, 1),
        "run_ms": round(1000 * (call.worked or 0.0), 1),
    }
    return {name: value for name, value in facts.items() if value is not None}


class _Traces:
    """A span for each request, with its wait and its work below."""

    def __init__(self, address: str):
        try:
            from opentelemetry import trace
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError:
            raise UserError(
                "--traces needs OpenTelemetry; install it with pip install 'biam-tf[tracing]'"
            ) from None
        self._trace = trace
        self._propagator = TraceContextTextMapPropagator()
        self._provider = TracerProvider(
            resource=Resource.create(
                {"service.name": os.environ.get("OTEL_SERVICE_NAME", "biam-tf")}
            )
        )
        exporter = OTLPSpanExporter(endpoint=address, session=_session_without_proxy(address))
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("serving")

    def add(self, call: Call, code: grpc.StatusCode) -> None:
        facts = _facts(call, code)
        started = call.received + call.waited
        ended = started + (call.worked or 0.0)
        nanoseconds = [round(1e9 * time) for time in (call.received, started, ended)]
        span = self._tracer.start_span(
            call.method,
            context=self._propagator.extract(dict(call.headers)),
            kind=self._trace.SpanKind.SERVER,
            start_time=nanoseconds[0],
            attributes={
                "rpc.system": "grpc",
                "rpc.method": call.method,
                "rpc.grpc.status_code": code.value[0],
                **{
                    f"biam.{name}": facts[name]
                    for name in ("id", "signature", "photos", "classes")
                    if name in facts
                },
            },
        )
        if code is not grpc.StatusCode.OK:
            span.set_status(self._trace.StatusCode.ERROR, code.name)
        below = self._trace.set_span_in_context(span)
        for name, start, end in zip(("queue", "run"), nanoseconds, nanoseconds[1:], strict=False):
            self._tracer.start_span(name, context=below, start_time=start).end(end)
        span.end(nanoseconds[-1])

    def close(self) -> None:
        self._provider.shutdown()


def _session_without_proxy(address: str) -> Any:
    """Returns a session for an address of this machine, which no proxy leads to; else None."""
    if not is_loopback(urllib.parse.urlsplit(address).hostname or ""):
        return None
    import requests  # OpenTelemetry's exporter brings it

    session = requests.Session()
    session.trust_env = False
    return session
