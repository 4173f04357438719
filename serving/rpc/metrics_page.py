"""Metrics of a running server, on a page for Prometheus."""

import contextlib
import time
import wsgiref.simple_server
from collections.abc import Iterator

import grpc
import prometheus_client

from biam_tf.errors import UserError
from serving.rpc.status import RequestError

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_PHOTOS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Counts and times requests; each server has its own registry."""

    def __init__(self) -> None:
        self._registry = prometheus_client.CollectorRegistry()
        self._requests = prometheus_client.Counter(
            "biam_requests",
            "Requests answered",
            ["method", "signature", "code"],
            registry=self._registry,
        )
        self._latency = prometheus_client.Histogram(
            "biam_request_seconds",
            "Time from the start of handling a request to its response",
            ["method", "signature"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._photos = prometheus_client.Histogram(
            "biam_request_photos",
            "Photos per request, which is not the batch size of the backbone",
            ["signature"],
            buckets=_PHOTOS,
            registry=self._registry,
        )
        self._running = prometheus_client.Gauge(
            "biam_requests_in_progress", "Requests being handled", registry=self._registry
        )
        self._version = prometheus_client.Gauge(
            "biam_model_version", "Version that is loaded; 0: none yet", registry=self._registry
        )

    @contextlib.contextmanager
    def request(self, method: str, signature: str = "") -> Iterator[None]:
        """Counts and times the block as a request; its code is that of a raised `RequestError`."""
        started, code = time.perf_counter(), grpc.StatusCode.OK
        self._running.inc()
        try:
            yield
        except RequestError as error:
            code = error.code
            raise
        except BaseException:
            code = grpc.StatusCode.INTERNAL
            raise
        finally:
            self._running.dec()
            self._requests.labels(method, signature, code.name).inc()
            self._latency.labels(method, signature).observe(time.perf_counter() - started)

    def observe_photos(self, signature: str, count: int) -> None:
        """Records the number of photos of a request."""
        self._photos.labels(signature).observe(count)

    def set_version(self, number: int) -> None:
        """Records which version is loaded."""
        self._version.set(number)

    def serve(self, host: str, port: int) -> wsgiref.simple_server.WSGIServer:
        """Starts the page at `http://host:port/metrics`, in a thread.

        Returns:
            The HTTP server, with `server_port` and `shutdown()`.

        Raises:
            UserError: the port is already in use or not permitted.
        """
        try:
            server, _ = prometheus_client.start_http_server(port, host, self._registry)
        except OSError as error:
            raise UserError(f"--metrics-port {port}: {error.strerror or error}") from error
        return server
