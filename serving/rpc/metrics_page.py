"""Figures of a running server, as a page that Prometheus reads."""

import contextlib
import time
from collections.abc import Iterator

import grpc
import prometheus_client

from biam_tf.errors import UserError
from serving.rpc.status import RequestError

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_PHOTOS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Counts requests; each server has its own."""

    def __init__(self):
        self._registry = prometheus_client.CollectorRegistry()
        registry = {"registry": self._registry}
        self._requests = prometheus_client.Counter(
            "biam_requests", "Requests answered", ["method", "signature", "code"], **registry
        )
        self._latency = prometheus_client.Histogram(
            "biam_request_seconds",
            "Time from the start of the handling of a request to its answer",
            ["method", "signature"],
            buckets=_SECONDS,
            **registry,
        )
        self._photos = prometheus_client.Histogram(
            "biam_request_photos",
            "Photos in a request, which is not the batch of the backbone",
            ["signature"],
            buckets=_PHOTOS,
            **registry,
        )
        self._running = prometheus_client.Gauge(
            "biam_requests_in_progress", "Requests being handled", **registry
        )
        self._version = prometheus_client.Gauge(
            "biam_model_version", "Version that answers; 0: none yet", **registry
        )

    @contextlib.contextmanager
    def request(self, method: str, signature: str = "") -> Iterator[None]:
        """Counts a request with the code of the `RequestError` that leaves the block, if any."""
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

    def photos(self, signature: str, count: int) -> None:
        """Notes how many photos a request had."""
        self._photos.labels(signature).observe(count)

    def version(self, number: int) -> None:
        """Notes which version answers."""
        self._version.set(number)

    def serve(self, host: str, port: int):
        """Starts the page at `http://host:port/metrics`.

        Returns:
            The HTTP server, with `server_port` and `shutdown()`.

        Raises:
            UserError: the port can't be had.
        """
        try:
            server, _ = prometheus_client.start_http_server(port, host, self._registry)
        except OSError as error:
            raise UserError(f"--metrics-port {port}: {error.strerror or error}") from error
        return server
