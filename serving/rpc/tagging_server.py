"""The embedded server: TensorFlow Serving's API for one model, in this process."""

import asyncio
import contextlib
import gc
import os
import pathlib
import sys
import threading
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from biam_tf.errors import UserError
from serving.rpc.server_settings import DEFAULT_SETTINGS, ServerSettings
from serving.rpc.server_settings import option_of as option_of  # used here by others

# TensorFlow and gRPC are imported by the server alone: `--help` shows its settings without them.
if TYPE_CHECKING:
    import grpc

    from serving.rpc.http_server import HttpServer
    from serving.rpc.loader import ModelVersion

SERVICES = ("tensorflow.serving.PredictionService", "tensorflow.serving.ModelService")
# Streams that a connection may have open beside the requests that are worked on: health checks,
# reflection, and requests whose message is still on its way.
_OTHER_STREAMS = 128
_HANDSHAKE_SECONDS, _IDLE_SECONDS, _ALIVE_SECONDS = 20, 600, 60
_LAST_SECONDS = 0.5  # to end what was cut off, within the time given

Result = TypeVar("Result")


def prepare_process() -> None:
    """Sets up a process that does nothing but serve, so that its event loop never waits long.

    Call it before the server starts. The loop, which answers health checks while other threads
    work, gets its turn sooner. What exists now, above all the hundreds of thousands of objects of
    TensorFlow's modules, is left out of garbage collections: going through them after each new
    version would hold up everything for 0.2 s. Each connection needs a file number; the process
    takes all that it may have.
    """
    import serving.rpc.loader
    import serving.rpc.services  # noqa: F401  everything that a request needs

    sys.setswitchinterval(0.001)
    gc.collect()
    gc.freeze()
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource  # not on Windows

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class TaggingServer:
    """A gRPC server of a model's newest version; as a context manager it starts and stops.

    It runs in an event loop in a thread of its own. The loop awaits messages and answers health,
    status and probes; the work of requests runs in other threads (`serving.rpc.answering`).

    Args:
        model_dir: folder of the model, with one sub-folder per version.
        settings: address, limits, TLS and records.

    Attributes:
        port: the gRPC port, chosen by the system if the settings say 0.
        metrics_port: the HTTP port; None without one or before `start`.
        versions: the `serving.rpc.loader.NewestVersion` that provides the loaded version.

    Raises:
        UserError: the folder, a port or a TLS file can't be used.
    """

    def __init__(
        self, model_dir: str | os.PathLike, settings: ServerSettings = DEFAULT_SETTINGS
    ) -> None:
        from serving.rpc.answering import Answering
        from serving.rpc.intake import Intake
        from serving.rpc.limits import Limits
        from serving.rpc.listening import require_address, tls_context
        from serving.rpc.loader import NewestVersion
        from serving.rpc.metrics_page import Metrics
        from serving.rpc.outbox import Outbox
        from serving.rpc.request_records import RequestRecords
        from serving.rpc.services import ServedModel

        self._settings = settings
        self._tls = None
        if settings.tls_certificate is not None and settings.tls_key is not None:
            self._tls = tls_context(settings.tls_certificate, settings.tls_key)
        self._metrics = Metrics()
        self._http: HttpServer | None = None
        self.versions = NewestVersion(
            pathlib.Path(model_dir), settings.poll_seconds, settings.max_bytes, self._on_change
        )
        require_address(settings.host, settings.port)
        self._records = RequestRecords(settings.request_log, settings.traces)
        self._answering = Answering(
            settings.threads, settings.max_concurrent_rpcs, self._metrics, self._records
        )
        most = max(settings.max_requests_mb * 2**20, settings.max_bytes)
        self._intake = Intake(most)
        self._outbox = Outbox(max(most, settings.max_answer_mb * 2**20))
        limits = Limits(
            max_photos=settings.max_photos,
            max_classes=settings.max_classes,
            max_answer_bytes=settings.max_answer_mb * 2**20,
            max_work_bytes=settings.max_work_mb * 2**20,
        )
        self._model = ServedModel(
            self.versions, settings.model_name, self._answering, settings.max_bytes, limits
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="server", daemon=True)
        self._thread.start()
        try:
            self.port = self._await(self._make_server())
        except BaseException:
            self._end_loop()
            raise
        self.metrics_port: int | None = None

    def __enter__(self) -> "TaggingServer":
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    @property
    def address(self) -> str:
        """`host:port` of the gRPC server."""
        from serving.rpc.listening import address_of

        return address_of(self._settings.host, self.port)

    def start(self) -> None:
        """Starts listening and loading; requests get UNAVAILABLE until a version is loaded."""
        if self._settings.metrics_port is not None:
            from serving.rpc.http_server import HttpServer

            http = HttpServer(
                *(self._model, self._metrics, self._intake, self._outbox),
                *(self._settings, self._tls),
            )
            self._await(http.start())
            self._http, self.metrics_port = http, http.port
        self._await(self._server.start())
        self.versions.start()

    def stop(self) -> bool:
        """Refuses new requests, lets the running ones finish for `drain_seconds`, and stops.

        Returns:
            Whether all work has ended. If not, threads are still at a step of TensorFlow that
            can't be interrupted.
        """
        self._await(self._stop_listening())
        idle = self._answering.stop()
        loaded = self.versions.stop(_LAST_SECONDS)
        self._records.close()
        self._end_loop()
        return idle and loaded

    async def _make_server(self) -> int:
        """Makes the gRPC server; returns its port."""
        import grpc
        from grpc_health.v1 import health, health_pb2_grpc
        from grpc_reflection.v1alpha import reflection
        from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

        from serving.rpc.bounded_messages import BoundedMessages
        from serving.rpc.health import HealthServicer
        from serving.rpc.services import ModelServicer, PredictionServicer

        settings = self._settings
        self._health = HealthServicer(("", *SERVICES))
        values = max(settings.max_photos, settings.max_classes) + 1000
        self._server = grpc.aio.server(
            interceptors=[
                BoundedMessages(self._intake, self._outbox, self._answering.record, values)
            ],
            options=[
                ("grpc.max_receive_message_length", settings.max_bytes),
                # The limit of answers is checked before anything runs. A MB for their names.
                ("grpc.max_send_message_length", (settings.max_answer_mb + 1) * 2**20),
                ("grpc.max_concurrent_streams", settings.max_concurrent_rpcs + _OTHER_STREAMS),
                ("grpc.so_reuseport", 0),  # otherwise a second server would silently share the port
                # Otherwise gRPC takes megabytes of each message that waits for room.
                ("grpc.http2.bdp_probe", 0),
                # Connections that say nothing, and those whose client vanished.
                ("grpc.server_handshake_timeout_ms", _HANDSHAKE_SECONDS * 1000),
                ("grpc.max_connection_idle_ms", _IDLE_SECONDS * 1000),
                ("grpc.keepalive_time_ms", _ALIVE_SECONDS * 1000),
            ],
        )
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            PredictionServicer(self._model), self._server
        )
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(
            ModelServicer(self._model), self._server
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if settings.reflection:
            names = (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, self._server)
        return self._listen()

    def _listen(self) -> int:
        from serving.rpc.listening import address_of

        address = address_of(self._settings.host, self._settings.port)
        try:
            if self._settings.tls_certificate is None:
                return self._server.add_insecure_port(address)
            return self._server.add_secure_port(address, self._credentials())
        except RuntimeError as error:
            raise UserError(f"can't listen on {address}: {error}") from error

    def _credentials(self) -> "grpc.ServerCredentials":
        import grpc

        key, certificate = self._settings.tls_key, self._settings.tls_certificate
        assert key is not None and certificate is not None
        return grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])

    async def _stop_listening(self) -> None:
        seconds = self._settings.drain_seconds
        self._health.stop()
        ends: list[Coroutine] = [self._server.stop(seconds)]
        if self._http is not None:
            ends.append(self._http.stop(seconds))
        tasks = [asyncio.ensure_future(end) for end in ends]
        await asyncio.wait(tasks, timeout=seconds + _LAST_SECONDS)
        self._intake.stop()
        self._outbox.stop()

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_LAST_SECONDS)
        if not self._thread.is_alive():
            self._loop.close()

    def _await(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Runs a coroutine in the server's event loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _on_change(self, version: "ModelVersion") -> None:
        self._metrics.set_version(version.number)
        with contextlib.suppress(RuntimeError):  # the server stopped meanwhile
            self._loop.call_soon_threadsafe(self._health.set_serving)
