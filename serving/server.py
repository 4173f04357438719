"""TensorFlow Serving's API for one model, in one small process: `python -m serving.server`."""

import argparse
import concurrent.futures
import dataclasses
import logging
import os
import pathlib
import signal
import sys
import threading

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # read when TensorFlow is first imported

from biam_tf.command_line import run_command
from biam_tf.errors import UserError
from serving import DEFAULT_MODEL_NAME

DESCRIPTION = """\
Serves the newest version in MODEL_DIR with the API of TensorFlow Serving over gRPC, for
development, tests and small installations; in production TensorFlow Serving takes the same folder.

A new version folder is loaded and warmed up while the old one answers, and then takes over.
SIGTERM lets the requests that are running finish.
"""

EXAMPLES = """\
examples:
  python -m serving.server models/quickstart
  python -m serving.server models/quickstart --host 0.0.0.0 --metrics-port 8502
"""

SERVICES = ("tensorflow.serving.PredictionService", "tensorflow.serving.ModelService")

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class ServerSettings:
    """How a server listens, and how much it takes on.

    Attributes:
        host: address to listen on.
        port: port of gRPC; 0: any free one.
        model_name: name that requests must call the model by.
        metrics_port: port of the page for Prometheus; 0: any free one; None: no page.
        max_message_mb: largest request or response; gRPC's own 4 MB hold no 7,586 embeddings
            of 300 numbers.
        max_concurrent_rpcs: requests taken on at a time, running or waiting for a thread;
            more are refused with RESOURCE_EXHAUSTED.
        threads: requests handled at a time, of which the backbone's batches are made.
        poll_seconds: how often the folder is looked at for a new version.
        drain_seconds: how long running requests may take when the server is stopped.
        tls_certificate: PEM file of the certificate chain; None: no TLS.
        tls_key: PEM file of its private key.
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

    def __post_init__(self):
        for name in ("max_message_mb", "max_concurrent_rpcs", "threads"):
            if getattr(self, name) < 1:
                raise UserError(f"{_option(name)} {getattr(self, name)}: use at least 1")
        if self.max_message_mb > 2047:
            raise UserError(f"--max-message-mb {self.max_message_mb}: messages end at 2047 MB")
        if self.poll_seconds <= 0 or self.drain_seconds < 0:
            raise UserError("--poll-seconds and --drain-seconds: use positive numbers")
        for name in ("port", "metrics_port"):
            if not 0 <= (getattr(self, name) or 0) <= 65535:
                raise UserError(f"{_option(name)} {getattr(self, name)}: ports end at 65535")
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise UserError("--tls-certificate and --tls-key: give both, or neither")

    @property
    def max_bytes(self) -> int:
        """Largest message in bytes."""
        return self.max_message_mb * 2**20


class TaggingServer:
    """A server of one model's newest version; a context manager that starts and stops it.

    Args:
        model_dir: holds a folder for each version.
        settings: how it listens.

    Attributes:
        port: the port of gRPC, also where any free one was asked for.
        metrics_port: the port of the page for Prometheus, if there is one.
        versions: the `serving.rpc.loader.NewestVersion` it answers from.

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
        self._metrics_server = None
        self._serving = health_pb2.HealthCheckResponse.SERVING
        self._not_serving = health_pb2.HealthCheckResponse.NOT_SERVING
        self._health = health.HealthServicer()
        self._set_health(self._not_serving)
        self.versions = NewestVersion(
            pathlib.Path(model_dir), settings.poll_seconds, settings.max_bytes, self._changed
        )
        self._server = grpc.server(
            concurrent.futures.ThreadPoolExecutor(settings.threads, "request"),
            options=[
                ("grpc.max_receive_message_length", settings.max_bytes),
                ("grpc.max_send_message_length", settings.max_bytes),
                ("grpc.so_reuseport", 0),  # else a second server would silently share the port
            ],
            maximum_concurrent_rpcs=settings.max_concurrent_rpcs,
        )
        answering = (self.versions, settings.model_name, self._metrics, settings.max_bytes)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            PredictionServicer(*answering), self._server
        )
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(
            ModelServicer(self.versions, settings.model_name, self._metrics), self._server
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        self.port = self._listen(grpc)
        self.metrics_port = None

    def __enter__(self) -> "TaggingServer":
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    @property
    def address(self) -> str:
        """`host:port` of gRPC."""
        return f"{self._settings.host}:{self.port}"

    def start(self) -> None:
        """Starts to listen and to load; until a version is loaded it answers UNAVAILABLE."""
        if self._settings.metrics_port is not None:
            host = self._settings.host
            self._metrics_server = self._metrics.serve(host, self._settings.metrics_port)
            self.metrics_port = self._metrics_server.server_port
        self._server.start()
        self.versions.start()

    def stop(self) -> None:
        """Takes no more requests, lets the running ones finish, and ends."""
        self._health.enter_graceful_shutdown()
        self._server.stop(self._settings.drain_seconds).wait()
        self.versions.stop()
        if self._metrics_server is not None:
            self._metrics_server.shutdown()
            self._metrics_server.server_close()

    def _listen(self, grpc) -> int:
        address = f"{self._settings.host}:{self._settings.port}"
        try:
            if self._settings.tls_certificate is None:
                return self._server.add_insecure_port(address)
            return self._server.add_secure_port(address, self._credentials(grpc))
        except RuntimeError as error:
            raise UserError(f"can't listen on {address}; is another server there?") from error

    def _credentials(self, grpc):
        key, certificate = self._settings.tls_key, self._settings.tls_certificate
        try:
            return grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])
        except OSError as error:
            raise UserError(f"{error.filename}: {error.strerror}") from error

    def _changed(self, version) -> None:
        self._metrics.version(version.number)
        self._set_health(self._serving)

    def _set_health(self, status) -> None:
        for service in ("", *SERVICES):
            self._health.set(service, status)


def main(argv=None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m serving.server",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model_dir", metavar="MODEL_DIR", type=pathlib.Path, help="holds a folder for each version"
    )
    helps = {
        "host": "address to listen on; 0.0.0.0: every one of this machine",
        "port": "port of gRPC",
        "model_name": "what requests must call the model",
        "metrics_port": "port of a page for Prometheus (default: no page)",
        "max_message_mb": "largest request or response",
        "max_concurrent_rpcs": "requests beyond are refused with RESOURCE_EXHAUSTED",
        "threads": "requests handled at a time",
        "poll_seconds": "how often to look for a new version",
        "drain_seconds": "how long running requests may take after SIGTERM",
        "tls_certificate": "PEM file of the certificate chain (default: no TLS)",
        "tls_key": "PEM file of its private key",
    }
    kinds = {"metrics_port": int, "tls_certificate": pathlib.Path, "tls_key": pathlib.Path}
    for field in dataclasses.fields(ServerSettings):
        shown = "" if field.default is None else f" (default: {field.default})"
        parser.add_argument(
            _option(field.name),
            type=kinds.get(field.name, type(field.default)),
            default=field.default,
            metavar=field.name.rpartition("_")[2].upper(),
            help=helps[field.name] + shown,
        )
    return run_command(parser, _command, argv)


def _command(arguments: argparse.Namespace) -> None:
    options = {f.name: getattr(arguments, f.name) for f in dataclasses.fields(ServerSettings)}
    settings = ServerSettings(**options)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    from serving.graph.warmup import require_protos

    require_protos()
    server = TaggingServer(arguments.model_dir, settings)
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    server.start()
    page = f", metrics on port {server.metrics_port}" if server.metrics_port else ""
    _LOG.info("%r on %s%s", settings.model_name, server.address, page)
    stopped.wait()
    _LOG.info("stopping: running requests may finish")
    server.stop()


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


if __name__ == "__main__":
    sys.exit(main())
