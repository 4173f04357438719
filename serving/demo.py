"""Opens a page to try a model in the browser: `python -m serving.demo MODEL_DIR`."""

import argparse
import contextlib
import errno
import hmac
import importlib.util
import ipaddress
import logging
import os
import pathlib
import socket
import sys
from collections.abc import Callable, Iterator, Sequence

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when Gradio is first imported

from biam_tf.command_line import run_command, until_stopped
from biam_tf.errors import UserError
from serving import DEFAULT_MODEL_NAME
from serving.rpc.version_folders import newest_version

DESCRIPTION = """\
Opens a page in the browser to try an exported model: drop photos, type classes, see the tags and
where in the photo each was found; search a folder of photos with any words; compare two models, or
two lists of classes, on the same photos.

An embedded server is started unless --server gives the address of a running one (TensorFlow Serving
or serving.server). MODEL_DIR is read in either case, for the run's classes and thresholds.

The page is served on this machine only, loads nothing from other servers and sends nothing to them.
With --host, others can use it, too: with a password if --auth gives one.
"""

EXAMPLES = """\
examples:
  python -m serving.demo models/quickstart
  a running server on another machine
    python -m serving.demo models/quickstart --server tags.example.org:8500
  a pretrained tagger, without a model of your own
    python -m serving.demo --preset efficientnet_lite0_imagenet_minilm
  two runs side by side
    python -m serving.demo models/new --compare models/old
  for a whole office, which may search one folder of photos
    python -m serving.demo models/quickstart --host 0.0.0.0 --photos /srv/photos \\
        --host-name photos.example.org --auth people.txt
"""

DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 7860


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(demo_parser(), _command, argv)


def demo_parser() -> argparse.ArgumentParser:
    """Returns the parser of the options that `demo` takes."""
    parser = argparse.ArgumentParser(
        prog="python -m serving.demo",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model_dir",
        metavar="MODEL_DIR",
        type=pathlib.Path,
        nargs="?",
        help="folder of the model, with one sub-folder per version",
    )
    parser.add_argument(
        "--preset",
        metavar="NAME",
        help="a pretrained tagger instead of MODEL_DIR, see docs/pretrained_taggers.md; it is "
        "exported to the cache at first",
    )
    parser.add_argument(
        "--server",
        metavar="HOST:PORT",
        help="address of a running server of this model (default: start one)",
    )
    parser.add_argument(
        "--compare",
        metavar="MODEL_DIR",
        type=pathlib.Path,
        help="folder of a second model, for the view Compare",
    )
    parser.add_argument(
        "--compare-server",
        metavar="HOST:PORT",
        help="address of a running server of the second model",
    )
    parser.add_argument(
        "--model-name",
        metavar="NAME",
        default=DEFAULT_MODEL_NAME,
        help=f"name of the models on running servers (default: {DEFAULT_MODEL_NAME})",
    )
    parser.add_argument("--tls", action="store_true", help="encrypt connections to running servers")
    parser.add_argument(
        "--tls-root",
        metavar="FILE",
        help="encrypt, trusting the certificates in this PEM file",
    )
    parser.add_argument(
        "--photos",
        metavar="FOLDER",
        type=pathlib.Path,
        help="only folders in this one may be searched (default: any; required with --host)",
    )
    parser.add_argument(
        "--indexes",
        metavar="FOLDER",
        type=pathlib.Path,
        help="folder for indexes of searched folders (default: indexes in $BIAM_CACHE, "
        "or in the folder biam_tf of $XDG_CACHE_HOME or ~/.cache)",
    )
    parser.add_argument(
        "--host",
        metavar="HOST",
        default=DEFAULT_HOST,
        help=f"address to listen on (default: {DEFAULT_HOST}, this machine only)",
    )
    parser.add_argument(
        "--port",
        type=int,
        metavar="PORT",
        default=DEFAULT_PORT,
        help=f"port of the page; 0 for any free one (default: {DEFAULT_PORT})",
    )
    parser.add_argument(
        "--host-name",
        metavar="NAME",
        action="append",
        default=[],
        help="a name under which browsers find the page, for example behind a proxy (default: "
        "localhost and, with --host, the name of this machine); other names are refused; may be "
        "given several times",
    )
    parser.add_argument(
        "--auth",
        metavar="FILE",
        type=pathlib.Path,
        help="ask for a user name and a password; the file has lines of NAME:PASSWORD (behind a "
        "proxy with TLS, or else passwords can be read on the network)",
    )
    parser.add_argument(
        "--no-browser", action="store_true", help="print the address without opening a browser"
    )
    return parser


def _command(arguments: argparse.Namespace) -> None:
    _check(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with demo(arguments) as address:
        logging.getLogger("httpx").setLevel(logging.WARNING)
        logging.getLogger("serving.rpc.tagging_client").setLevel(logging.ERROR)  # shown on the page
        wait = until_stopped()
        print(f"{address}  (Ctrl-C stops it)", flush=True)
        if not arguments.no_browser:
            import webbrowser

            webbrowser.open(address)
        wait()


def _check(arguments: argparse.Namespace) -> None:
    if (arguments.model_dir is None) == (arguments.preset is None):
        raise UserError("give either the folder MODEL_DIR or --preset NAME")
    if not 0 <= arguments.port <= 65535:
        raise UserError(f"--port {arguments.port}: use 0 to 65535")
    if arguments.compare_server and arguments.compare is None:
        raise UserError("--compare-server requires --compare; give both")
    if arguments.photos is not None and not arguments.photos.is_dir():
        raise UserError(f"--photos {arguments.photos}: no such folder")
    if arguments.photos is None and not _is_loopback(arguments.host):
        raise UserError(
            f"--host {arguments.host}: others could search any folder of this machine; limit them "
            "with --photos FOLDER"
        )
    _require_gradio()
    _check_port(arguments.host, arguments.port)


def _check_port(host: str, port: int) -> None:
    """Raises a UserError for an address that can't be listened on, before a model is loaded."""

    def problem_of(port: int) -> OSError | None:
        try:
            with socket.create_server((host, port), family=family):
                return None
        except OSError as error:
            return error

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    problem = problem_of(port)
    if problem is None:
        return
    if problem.errno != errno.EADDRINUSE:
        raise UserError(f"can't listen on {host}:{port}: {problem.strerror or problem}")
    nearby = range(port + 1, min(port + 100, 65536))
    free = next((other for other in nearby if problem_of(other) is None), 0)
    raise UserError(
        f"port {port} of {host} is already in use, perhaps by another page; use --port {free}"
    )


def _accounts(path: pathlib.Path) -> Callable[[str, str], bool]:
    """Returns whether a name and a password are in a file of `--auth`."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--auth {path}: {getattr(error, 'strerror', None) or error}") from error
    accounts = {}
    for number, line in enumerate(lines, 1):
        name, colon, password = line.partition(":")
        if line.strip() and not (colon and name and password):
            raise UserError(f"--auth {path}, line {number}: expected NAME:PASSWORD")
        if line.strip():
            accounts[name] = password.encode()
    if not accounts:
        raise UserError(f"--auth {path}: no line of NAME:PASSWORD")

    def accepts(name: str, password: str) -> bool:
        # In constant time, and a comparison for unknown names, too.
        right = hmac.compare_digest(accounts.get(name, b""), password.encode())
        return right and name in accounts

    return accepts


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _require_gradio() -> None:
    # Found but not imported: that takes seconds, in which the server can load the model.
    if importlib.util.find_spec("gradio") is None:
        raise UserError("the page needs gradio; install it with pip install 'biam-tf[demo]'")


@contextlib.contextmanager
def demo(arguments: argparse.Namespace) -> Iterator[str]:
    """Serves the page and yields its address; stops it and its servers on exit.

    Args:
        arguments: parsed by `demo_parser`.

    Raises:
        UserError: a model or the port of the page can't be used, or a package is missing.
    """
    auth = None if arguments.auth is None else _accounts(arguments.auth)
    for model_dir in (arguments.model_dir, arguments.compare):
        if model_dir is not None:
            newest_version(model_dir)  # before TensorFlow is imported

    from serving.demo_page.http_guard import names_of_this_machine
    from serving.demo_page.served_model import serve_model

    names = {*arguments.host_name, arguments.host}
    if not _is_loopback(arguments.host):
        names |= names_of_this_machine()
    options = {
        "model_name": arguments.model_name,
        "tls": arguments.tls,
        "root_certificates": arguments.tls_root,
    }
    with contextlib.ExitStack() as stack:
        model_dir = arguments.model_dir
        if arguments.preset:
            from serving.graph.saved_model import export_pretrained

            model_dir = export_pretrained(arguments.preset)
        first = stack.enter_context(serve_model(model_dir, arguments.server, **options))
        second = None
        if arguments.compare is not None:
            second = stack.enter_context(
                serve_model(arguments.compare, arguments.compare_server, **options)
            )
        # Importing Gradio takes seconds, in which the servers load their models.
        from biam_tf.files import cache_folder
        from serving.demo_page.web_page import Models, open_page

        for served in (first, second):
            if served is not None:
                served.wait_until_loaded()
        indexes = arguments.indexes or cache_folder() / "indexes"
        models = Models(first, second)
        yield stack.enter_context(
            open_page(
                models, indexes, arguments.photos, arguments.host, arguments.port, names, auth
            )
        )


if __name__ == "__main__":
    sys.exit(main())
