"""Settings of the embedded server."""

import dataclasses
import pathlib

from biam_tf.errors import UserError
from serving import DEFAULT_MODEL_NAME


def option_of(name: str) -> str:
    """Returns the command line option of a setting."""
    return f"--{name.replace('_', '-')}"


@dataclasses.dataclass(frozen=True)
class ServerSettings:
    """Address, limits, TLS and records of a server.

    Attributes:
        host: address to listen on.
        port: gRPC port; 0 for any free one.
        model_name: model name that requests must give.
        metrics_port: HTTP port of REST, probes and the page for Prometheus; 0 for any free one,
            None for none.
        max_message_mb: largest request in MB; gRPC's default of 4 MB is too small for 7,586
            embeddings of 300 numbers.
        max_rest_mb: largest body of a REST request in MB. JSON needs many times its size, and holds
            up other requests while it is read.
        max_requests_mb: memory in MB of all requests that are received, waiting or worked on; at
            least that of one message. More wait, half a minute at most.
        max_photos: largest number of photos of a request.
        max_classes: largest number of classes of a request.
        max_answer_mb: largest answer in MB; known from the shapes before anything runs.
        max_work_mb: memory in MB that scoring one request may need, estimated from the shapes
            (`serving.rpc.limits.scoring_bytes`). Photos are scored fewer at a time to stay below.
        max_concurrent_rpcs: largest number of requests running or waiting for a thread; more are
            refused with RESOURCE_EXHAUSTED.
        threads: requests handled at the same time; the backbone's batches form among them.
        poll_seconds: seconds between looks for a new version.
        drain_seconds: seconds that running requests may take when the server is stopped.
        tls_certificate: PEM file of the certificate chain, for gRPC and HTTP; None for no TLS.
        tls_key: PEM file of its private key.
        reflection: whether clients may ask which services there are.
        request_log: file that gets a line of JSON per request; "-" for standard error.
        traces: address that takes OpenTelemetry's traces (OTLP over HTTP); None for no traces.

    Raises:
        UserError: a setting is out of range, or only one of the TLS files is given.
    """

    host: str = "127.0.0.1"
    port: int = 8500
    model_name: str = DEFAULT_MODEL_NAME
    metrics_port: int | None = None
    max_message_mb: int = 64
    max_rest_mb: int = 16
    max_requests_mb: int = 256
    max_photos: int = 1024
    max_classes: int = 1_000_000
    max_answer_mb: int = 64
    max_work_mb: int = 256
    max_concurrent_rpcs: int = 128
    threads: int = 16
    poll_seconds: float = 1.0
    drain_seconds: float = 30.0
    tls_certificate: pathlib.Path | None = None
    tls_key: pathlib.Path | None = None
    reflection: bool = True
    request_log: pathlib.Path | None = None
    traces: str | None = None

    def __post_init__(self) -> None:
        for name in (
            *("max_message_mb", "max_rest_mb", "max_requests_mb", "max_photos", "max_classes"),
            *("max_answer_mb", "max_work_mb"),
            *("max_concurrent_rpcs", "threads"),
        ):
            if getattr(self, name) < 1:
                raise UserError(f"{option_of(name)} {getattr(self, name)}: use at least 1")
        for name in ("max_message_mb", "max_answer_mb"):
            if getattr(self, name) > 2047:
                raise UserError(f"{option_of(name)} {getattr(self, name)}: use at most 2047")
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


DEFAULT_SETTINGS = ServerSettings()
