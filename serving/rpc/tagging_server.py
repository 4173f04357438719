"""The embedded server: TensorFlow Serving's API for one model, in this process."""

import concurrent.futures
import dataclasses
import os
import pathlib
import wsgiref.simple_server
from typing import TYPE_CHECKING

from biam_tf.errors import UserError
from serving import DEFAULT_MODEL_NAME

# TensorFlow and gRPC are imported by the server alone: `--help` shows its settings without them.
if TYPE_CHECKING:
    import grpc

    from serving.rpc.loader import ModelVersion

SERVICES = ("tensorflow.serving.PredictionService", "tensorflow.serving.ModelService")


def option_of(name: str) -> str:
    """Returns the command line option of a setting."""
    return f"--{name.replace('_', '-')}"


@dataclasses.dataclass(frozen=True)
class ServerSettings:
    """Address, limits and TLS of a server.

    Attributes:
        host: address to listen on.
        port: gRPC port; 0 for any free one.
        model_name: model name that requests must give.
        metrics_port: port of the page for Prometheus; 0 for any free one, None for no page.
        max_message_mb: largest request or response in MB; gRPC's default of 4 MB is too small for
            7,586 embeddings of 300 numbers.
        max_concurrent_rpcs: largest number of requests running or waiting for a thread; more are
            refused with RESOURCE_EXHAUSTED.
        threads: requests handled at the same time; the backbone's batches form among them.
        poll_seconds: seconds between looks for a new version.
        drain_seconds: seconds that running requests may take when the server is stopped.
        tls_certificate: PEM file of the certificate chain; None for no TLS.
        tls_key: PEM file of its private key.

    Raises:
        UserError: a setting is out of range, or only one of the TLS files is given.
    """

    host: str = "127.0.0.1"
    port: int = 8500
    model_name: str = DEFAULT_MODEL_NAME
    metrics_port: int | None = None
    max_message_mb: int = 64
    max_concurrent_rpcs: int = 128
    threads: int = 16
    poll_seconds: float = 1.0
    drain_seconds: float = 30.0
    tls_certificate: pathlib.Path | None = None
    tls_key: pathlib.Path | None = None

    def __post_init__(self) -> None:
        for name in ("max_message_mb", "max_concurrent_rpcs", "threads"):
            if getattr(self, name) < 1:
                raise UserError(f"{option_of(name)} {getattr(self, name)}: use at least 1")
        if self.max_message_mb > 2047:
            raise UserError(f"--max-message-mb {self.max_message_mb}: use at most 2047")
        if self.poll_seconds <= 0 or self.drain_seconds < 0:
            raise UserError("--poll-seconds and --drain-seconds: use positive numbers")
        for name in ("port", "metrics_port"):
            if not 0 <= (getattr(self, name) or 0) <= 65535:
                raise UserError(f"{option_of(name)} {getattr(self, name)}: use 0 to 65535")
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise UserError("--tls-certificate and --tls-key: give both, or neither")

    @property
    def max_bytes(self) -> int:
        """Size of the largest message in bytes."""
        return self.max_message_mb * 2**20


class TaggingServer:
    """A gRPC server of a model's newest version; as a context manager it starts and stops.

    Args:
        model_dir: folder of the model, with one sub-folder per version.
        settings: address, limits and TLS.

    Attributes:
        port: the gRPC port, chosen by the system if the settings say 0.
        metrics_port: the port of the page for Prometheus; None without one or before `start`.
        versions: the `serving.rpc.loader.NewestVersion` that provides the loaded version.

    Raises:
        UserError: the folder, a port or a TLS file can't be used.
    """

    def __init__(
        self, model_dir: str | os.PathLike, settings: ServerSettings = ServerSettings()
    ) -> None:
        import grpc
        from grpc_health.v1 import health, health_pb2, health_pb2_grpc
        from grpc_reflection.v1alpha import reflection
        from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

        from serving.rpc.loader import NewestVersion
        from serving.rpc.metrics_page import Metrics
        from serving.rpc.services import ModelServicer, PredictionServicer

        self._settings = settings
        self._metrics = Metrics()
        self._metrics_server: wsgiref.simple_server.WSGIServer | None = None
        self._serving = health_pb2.HealthCheckResponse.SERVING
        self._not_serving = health_pb2.HealthCheckResponse.NOT_SERVING
        self._health = health.HealthServicer()
        self._set_health(self._not_serving)
        self.versions = NewestVersion(
            pathlib.Path(model_dir), settings.poll_seconds, settings.max_bytes, self._on_change
        )
        self._server = grpc.server(
            concurrent.futures.ThreadPoolExecutor(settings.threads, "request"),
            options=[
                ("grpc.max_receive_message_length", settings.max_bytes),
                ("grpc.max_send_message_length", settings.max_bytes),
                ("grpc.so_reuseport", 0),  # otherwise a second server would silently share the port
            ],
            maximum_concurrent_rpcs=settings.max_concurrent_rpcs,
        )
        served = (self.versions, settings.model_name, self._metrics)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            PredictionServicer(*served, settings.max_bytes), self._server
        )
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(
            ModelServicer(*served), self._server
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        self.port = self._listen()
        self.metrics_port: int | None = None

    def __enter__(self) -> "TaggingServer":
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    @property
    def address(self) -> str:
        """`host:port` of the gRPC server."""
        return f"{self._settings.host}:{self.port}"

    def start(self) -> None:
        """Starts listening and loading; requests get UNAVAILABLE until a version is loaded."""
        if self._settings.metrics_port is not None:
            host = self._settings.host
            metrics_server = self._metrics.serve(host, self._settings.metrics_port)
            self._metrics_server = metrics_server
            self.metrics_port = metrics_server.server_port
        self._server.start()
        self.versions.start()

    def stop(self) -> None:
        """Refuses new requests, lets the running ones finish, and stops."""
        self._health.enter_graceful_shutdown()
        self._server.stop(self._settings.drain_seconds).wait()
        self.versions.stop()
        if self._metrics_server is not None:
            self._metrics_server.shutdown()
            self._metrics_server.server_close()

    def _listen(self) -> int:
        address = f"{self._settings.host}:{self._settings.port}"
        try:
            if self._settings.tls_certificate is None:
                return self._server.add_insecure_port(address)
            return self._server.add_secure_port(address, self._credentials())
        except RuntimeError as error:
            raise UserError(f"can't listen on {address}; is another server there?") from error

    def _credentials(self) -> "grpc.ServerCredentials":
        import grpc

        key, certificate = self._settings.tls_key, self._settings.tls_certificate
        assert key is not None and certificate is not None
        try:
            return grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])
        except OSError as error:
            raise UserError(f"{error.filename}: {error.strerror}") from error

    def _on_change(self, version: "ModelVersion") -> None:
        self._metrics.set_version(version.number)
        self._set_health(self._serving)

    def _set_health(self, status: int) -> None:
        for service in ("", *SERVICES):
            self._health.set(service, status)
