"""A page to try a model in a browser: `python -m serving.demo MODEL_DIR`."""

import argparse
import contextlib
import importlib.util
import ipaddress
import logging
import os
import pathlib
import signal
import sys
import threading
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # read when TensorFlow is first imported
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when Gradio is first imported

from biam_tf.command_line import run_command
from biam_tf.errors import UserError
from serving import DEFAULT_MODEL_NAME

DESCRIPTION = """\
Opens a page in the browser to try an exported model: drop photos, type classes, see the tags and
where in the photo each was found; search a folder of photos with any words; compare two models, or
two lists of classes, on the same photos.

The embedded server is started for it, unless --server names one that runs (TensorFlow Serving
included). MODEL_DIR is read in either case: it has the run's classes and thresholds.

The page is on this machine alone and loads nothing from anywhere else; nothing is reported to
anybody. It has no passwords: with --host others can use it, too.
"""

EXAMPLES = """\
examples:
  python -m serving.demo models/quickstart
  a server that runs already, on another machine
    python -m serving.demo models/quickstart --server tags.example.org:8500
  two runs side by side
    python -m serving.demo models/new --compare models/old
  for the whole office, who may search the photos of one folder
    python -m serving.demo models/quickstart --host 0.0.0.0 --photos /srv/photos
"""

DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 7860


def main(argv=None) -> int:
    """Runs the command line; returns the exit status."""
    return run_command(demo_parser(), _command, argv)


def demo_parser() -> argparse.ArgumentParser:
    """Returns the command line's options, which `demo` takes parsed."""
    parser = argparse.ArgumentParser(
        prog="python -m serving.demo",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model_dir", metavar="MODEL_DIR", type=pathlib.Path, help="holds a folder for each version"
    )
    parser.add_argument(
        "--server",
        metavar="HOST:PORT",
        help="gRPC of a running server of this model (default: one is started)",
    )
    parser.add_argument(
        "--compare",
        metavar="MODEL_DIR",
        type=pathlib.Path,
        help="a second model, for the view Compare",
    )
    parser.add_argument(
        "--compare-server", metavar="HOST:PORT", help="a running server of the second model"
    )
    parser.add_argument(
        "--model-name",
        metavar="NAME",
        default=DEFAULT_MODEL_NAME,
        help=f"what running servers call the models (default: {DEFAULT_MODEL_NAME})",
    )
    parser.add_argument("--tls", action="store_true", help="encrypt the way to running servers")
    parser.add_argument(
        "--tls-root", metavar="FILE", help="encrypt it, trusting the certificates of this PEM file"
    )
    parser.add_argument(
        "--photos",
        metavar="FOLDER",
        type=pathlib.Path,
        help="only photos in here may be searched (default: any; needed with --host)",
    )
    parser.add_argument(
        "--indexes",
        metavar="FOLDER",
        type=pathlib.Path,
        help="where indexes of searched folders are kept (default: biam_tf/indexes in "
        "$XDG_CACHE_HOME or ~/.cache)",
    )
    parser.add_argument(
        "--host",
        metavar="HOST",
        default=DEFAULT_HOST,
        help=f"address of the page (default: {DEFAULT_HOST}, this machine alone)",
    )
    parser.add_argument(
        "--port",
        type=int,
        metavar="PORT",
        default=DEFAULT_PORT,
        help=f"port of the page; 0: any free one (default: {DEFAULT_PORT})",
    )
    parser.add_argument(
        "--no-browser", action="store_true", help="print the address and open nothing"
    )
    return parser


def _command(arguments: argparse.Namespace) -> None:
    _check(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with demo(arguments) as address:
        logging.getLogger("httpx").setLevel(logging.WARNING)
        logging.getLogger("serving.rpc.tagging_client").setLevel(logging.ERROR)  # the page says it
        stopped = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stopped.set())
        print(f"{address}  (Ctrl-C ends it)", flush=True)
        if not arguments.no_browser:
            import webbrowser

            webbrowser.open(address)
        stopped.wait()


def _check(arguments: argparse.Namespace) -> None:
    if not 0 <= arguments.port <= 65535:
        raise UserError(f"--port {arguments.port}: ports end at 65535")
    if arguments.compare_server and arguments.compare is None:
        raise UserError("--compare-server is of the model that --compare names; give both")
    if arguments.photos is not None and not arguments.photos.is_dir():
        raise UserError(f"--photos {arguments.photos}: no such folder")
    if arguments.photos is None and not _is_loopback(arguments.host):
        raise UserError(
            f"--host {arguments.host}: others could search any folder of this machine; say with "
            "--photos FOLDER which they may"
        )
    _require_gradio()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _require_gradio() -> None:
    # Not imported yet: that takes seconds, in which the model is loaded.
    if importlib.util.find_spec("gradio") is None:
        raise UserError('the page needs gradio; install it with pip install -e ".[demo]"')


@contextlib.contextmanager
def demo(arguments: argparse.Namespace):
    """Serves the page; gives its address, and ends it and its servers on leaving."""
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(_served(arguments.model_dir, arguments.server, arguments))
        second = None
        if arguments.compare is not None:
            second = stack.enter_context(
                _served(arguments.compare, arguments.compare_server, arguments)
            )
        # Importing Gradio takes seconds, in which the servers load their models.
        from serving.demo_page.page import Models, open_page

        for served in (first, second):
            if served is not None and served.server is not None:
                _wait_until_loaded(served)
        indexes = arguments.indexes or _default_indexes()
        models = Models(first, second)
        yield stack.enter_context(
            open_page(models, indexes, arguments.photos, arguments.host, arguments.port)
        )


def _wait_until_loaded(served) -> None:
    versions = served.server.versions
    while versions.current is None:
        failed = [state.error for state in versions.states.values() if state.error]
        if failed:
            raise UserError(f"{served.model_dir}: the model can't be loaded: {failed[-1]}")
        time.sleep(0.05)


@contextlib.contextmanager
def _served(model_dir: pathlib.Path, address: str | None, arguments: argparse.Namespace):
    """A model and a server of it: the one named, or an embedded one that is started."""
    from serving.demo_page.exported_model import read_newest
    from serving.demo_page.served_model import ServedModel, connect
    from serving.graph.warmup import require_protos

    require_protos()
    read_newest(model_dir)  # what is wrong with the folder is told before anything starts
    server = None
    with contextlib.ExitStack() as stack:
        if address is None:
            from serving.server import ServerSettings, TaggingServer

            server = stack.enter_context(
                TaggingServer(model_dir, ServerSettings(port=0, drain_seconds=1.0))
            )
            client = connect(server.address)
            address = server.address
        else:
            client = connect(
                address,
                model_name=arguments.model_name,
                tls=arguments.tls,
                root_certificates=arguments.tls_root,
            )
        stack.enter_context(client)
        yield ServedModel(model_dir, address, client, server)


def _default_indexes() -> pathlib.Path:
    cache = os.environ.get("XDG_CACHE_HOME")
    return (pathlib.Path(cache) if cache else pathlib.Path.home() / ".cache") / "biam_tf/indexes"


if __name__ == "__main__":
    sys.exit(main())
