"""Metrics of a running server, on a page for Prometheus."""

import grpc
import prometheus_client

from serving.rpc.calls import Call

CONTENT_TYPE = prometheus_client.CONTENT_TYPE_LATEST

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
        self._queue = prometheus_client.Histogram(
            "biam_request_queue_seconds",
            "Time from the arrival of a request to the start of handling it",
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
        self._waiting = prometheus_client.Gauge(
            "biam_requests_waiting", "Requests waiting for a thread", registry=self._registry
        )
        self._running = prometheus_client.Gauge(
            "biam_requests_in_progress", "Requests being handled", registry=self._registry
        )
        self._version = prometheus_client.Gauge(
            "biam_model_version", "Version that is loaded; 0: none yet", registry=self._registry
        )

    def observe(self, call: Call, code: grpc.StatusCode) -> None:
        """Counts and times a request that ended."""
        labels = (call.method, call.signature)
        self._requests.labels(*labels, code.name).inc()
        if call.worked is not None:
            self._latency.labels(*labels).observe(call.worked)
        if call.method == "Predict":
            self._queue.labels(*labels).observe(call.waited)
            if call.photos is not None and code is grpc.StatusCode.OK:
                self._photos.labels(call.signature).observe(call.photos)

    def set_load(self, waiting: int, running: int) -> None:
        """Records how many requests wait for a thread, and how many have one."""
        self._waiting.set(waiting)
        self._running.set(running)

    def set_version(self, number: int) -> None:
        """Records which version is loaded."""
        self._version.set(number)

    def page(self) -> bytes:
        """Returns the page in Prometheus' text format."""
        return prometheus_client.generate_latest(self._registry)
