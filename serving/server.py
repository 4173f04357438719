"""TensorFlow Serving's API for one model, in one small process: `python -m serving.server`."""

import argparse
import dataclasses
import logging
import pathlib
import sys
from collections.abc import Sequence

from biam_tf.command_line import run_command, until_stopped
from biam_tf.library_messages import end_process
from serving.rpc.tagging_server import (
    ServerSettings,
    TaggingServer,
    option_of,
    prepare_process,
)
from serving.rpc.version_folders import newest_version

DESCRIPTION = """\
Serves the newest version in MODEL_DIR with the API of TensorFlow Serving over gRPC, for
development, tests and small installations. In production, TensorFlow Serving loads the same folder.

A new version is loaded and warmed up while the old one still serves requests; then it takes over.
After SIGTERM, running requests may finish. With --metrics-port, it also answers over HTTP:
TensorFlow Serving's REST API, /healthz and /readyz for probes, /metrics for Prometheus.
"""

EXAMPLES = """\
examples:
  python -m serving.server models/quickstart
  python -m serving.server models/quickstart --host 0.0.0.0 --metrics-port 8501
  curl http://localhost:8501/v1/models/tagger/metadata
"""

HELP = {
    "host": "address to listen on; 0.0.0.0 for all addresses of this machine",
    "port": "gRPC port",
    "model_name": "model name that requests must give",
    "metrics_port": "HTTP port of REST, probes and metrics (default: no HTTP)",
    "max_message_mb": "largest request in MB",
    "max_rest_mb": "largest body of a REST request in MB, if --max-message-mb allows it",
    "max_requests_mb": "memory in MB of all requests received, waiting or worked on together",
    "max_photos": "largest number of photos of a request",
    "max_classes": "largest number of classes of a request",
    "max_answer_mb": "largest answer in MB, known before anything runs",
    "max_work_mb": "memory in MB that scoring one request may need, about",
    "max_concurrent_rpcs": "requests running or waiting; more are refused with RESOURCE_EXHAUSTED",
    "threads": "requests handled at the same time",
    "poll_seconds": "seconds between looks for a new version",
    "drain_seconds": "seconds that running requests may take after SIGTERM",
    "tls_certificate": "PEM file of the certificate chain, for gRPC and HTTP (default: no TLS)",
    "tls_key": "PEM file of its private key",
    "reflection": "let clients ask which services there are (default); grpcurl needs it",
    "request_log": "file that gets a line of JSON per request; - for standard error",
    "traces": "send OpenTelemetry's traces to this address, e.g. http://localhost:4318/v1/traces",
}
_TYPES = {
    "metrics_port": int,
    "tls_certificate": pathlib.Path,
    "tls_key": pathlib.Path,
    "request_log": pathlib.Path,
    "traces": str,
}

_LOG = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m serving.server",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model_dir",
        metavar="MODEL_DIR",
        type=pathlib.Path,
        help="folder of the model, with one sub-folder per version",
    )
    for field in dataclasses.fields(ServerSettings):
        if isinstance(field.default, bool):
            parser.add_argument(
                option_of(field.name),
                action=argparse.BooleanOptionalAction,
                default=field.default,
                help=HELP[field.name],
            )
            continue
        shown = "" if field.default is None else f" (default: {field.default})"
        parser.add_argument(
            option_of(field.name),
            type=_TYPES.get(field.name, type(field.default)),
            default=field.default,
            metavar=field.name.rpartition("_")[2].upper(),
            help=HELP[field.name] + shown,
        )
    return run_command(parser, _command, argv)


def _command(arguments: argparse.Namespace) -> None:
    options = {f.name: getattr(arguments, f.name) for f in dataclasses.fields(ServerSettings)}
    settings = ServerSettings(**options)
    newest_version(arguments.model_dir)  # before TensorFlow is imported
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    from serving.graph.warmup import require_protos

    require_protos()
    prepare_process()
    server = TaggingServer(arguments.model_dir, settings)
    wait = until_stopped()
    server.start()
    page = f", HTTP on port {server.metrics_port}" if server.metrics_port else ""
    _LOG.info("%r on %s%s", settings.model_name, server.address, page)
    wait()
    _LOG.info("stopping: running requests may take %g s more", settings.drain_seconds)
    if not server.stop():
        _LOG.warning("stopped; work that could not be interrupted was cut off")
        logging.shutdown()
        end_process(0)  # Python would wait for its threads
    _LOG.info("stopped")


if __name__ == "__main__":
    sys.exit(main())
