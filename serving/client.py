"""Tags photos with a running server: `python -m serving.client`."""

import argparse
import logging
import os
import pathlib
import sys
from collections.abc import Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # read when TensorFlow is first imported

from biam_tf.command_line import run_command
from biam_tf.errors import UserError
from serving import DEFAULT_MODEL_NAME
from serving.rpc.photo_tagging import (
    plain_message,
    print_csv,
    print_json,
    print_table,
    tag_with_classes,
    tag_with_known_classes,
)
from serving.rpc.tagging_client import (
    DEFAULT_TIMEOUT_SECONDS,
    TaggingClient,
    TaggingError,
    read_file,
)

DESCRIPTION = """\
Sends photos to a server (TensorFlow Serving, or `python -m serving.server`) and prints the best
tags of each photo with their scores. Choose any classes that the exported model can embed; without
--classes they are those of the training run.
"""

EXAMPLES = """\
examples:
  which of three classes are in a photo
    python -m serving.client --server localhost:8500 --classes "dog, red car, beach" photo.jpg
  the three best of the training run's classes
    python -m serving.client --top 3 *.jpg
  where in the photos a dog and a beach were found
    python -m serving.client --classes "dog, beach" --explain evidence.png *.jpg
  a table for other programs
    python -m serving.client --classes-file classes.txt --csv *.jpg > tags.csv
  a server with TLS, whose certificate was signed by your own authority
    python -m serving.client --server tags.example.org:443 --tls-root authority.pem photo.jpg

in Python:
  from serving.client import TaggingClient
  with TaggingClient("localhost:8500") as client:
      scores = client.tag(["photo.jpg"], ["dog", "red car", "beach"])
"""

DEFAULT_SERVER = "localhost:8500"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m serving.client",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "photos",
        metavar="PHOTO",
        nargs="+",
        help="JPEG, PNG, GIF, BMP, WebP, TIFF; with the extra [formats] HEIC, AVIF, JPEG XL",
    )
    parser.add_argument(
        "--server",
        metavar="HOST:PORT",
        default=DEFAULT_SERVER,
        help=f"address of the server (default: {DEFAULT_SERVER})",
    )
    add_class_options(parser)
    parser.add_argument(
        "--top", type=int, default=5, metavar="N", help="tags per photo (default: %(default)s)"
    )
    parser.add_argument(
        "--explain",
        type=pathlib.Path,
        metavar="OUT.png",
        help="draw the photos, their tags and where each tag was found; requires --classes",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="one line per tag: photo, tag, score")
    form.add_argument("--json", action="store_true", help="one list of tags per photo")
    parser.add_argument(
        "--model-name",
        metavar="NAME",
        default=DEFAULT_MODEL_NAME,
        help=f"name of the model on the server (default: {DEFAULT_MODEL_NAME})",
    )
    parser.add_argument(
        "--version", type=int, metavar="N", help="version of the model (default: the newest)"
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=DEFAULT_TIMEOUT_SECONDS,
        metavar="SECONDS",
        help="limit for each request of up to 8 photos, including waiting for the server "
        "(default: 60)",
    )
    parser.add_argument(
        "--tls",
        action="store_true",
        help="encrypt, trusting the certificates of this system",
    )
    parser.add_argument(
        "--tls-root",
        metavar="FILE",
        help="encrypt, trusting the certificates in this PEM file",
    )
    return run_command(parser, _command, argv)


def add_class_options(parser: argparse.ArgumentParser) -> None:
    """Adds `--classes` and `--classes-file`, which `named_classes` reads."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--classes", metavar="NAMES", help='names separated by commas: "dog, red car"'
    )
    group.add_argument("--classes-file", metavar="FILE", help="text file with one name per line")


def named_classes(arguments: argparse.Namespace) -> list[str] | None:
    """Returns the class names of the two options without repetitions; None without either.

    Raises:
        UserError: the file can't be read, or there is no name in it or in the option.
    """
    if arguments.classes is not None:
        where, names = "--classes", arguments.classes.split(",")
    elif arguments.classes_file is not None:
        where = str(arguments.classes_file)
        try:
            names = read_file(where).decode("utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise UserError(f"{where}: not UTF-8 text ({error})") from error
    else:
        return None
    names = list(dict.fromkeys(name.strip() for name in names if name.strip()))
    if not names:
        raise UserError(f"{where}: no class is named")
    return names


def _command(arguments: argparse.Namespace) -> None:
    names = named_classes(arguments)
    if arguments.top < 1 or arguments.timeout <= 0:
        raise UserError("--top and --timeout: use positive numbers")
    if arguments.explain is not None and names is None:
        raise UserError("--explain draws response maps of classes that you choose; add --classes")
    if arguments.explain is not None and not arguments.explain.absolute().parent.is_dir():
        raise UserError(f"--explain {arguments.explain}: no such folder")
    logging.basicConfig(format="%(message)s")  # the client logs that it waits for a server
    photos = [(path, read_file(path)) for path in arguments.photos]
    client = TaggingClient(
        arguments.server,
        model_name=arguments.model_name,
        version=arguments.version,
        timeout_seconds=arguments.timeout,
        tls=arguments.tls,
        root_certificates=arguments.tls_root,
    )
    try:
        with client:
            if names is None:
                tagged = tag_with_known_classes(client, photos, arguments.top)
            else:
                tagged = tag_with_classes(client, photos, names, arguments.top, arguments.explain)
    except TaggingError as error:
        answer = f"{error.code.name}: {plain_message(error.message)}"
        raise UserError(f"{arguments.server} answered {answer}") from error
    show = print_csv if arguments.csv else print_json if arguments.json else print_table
    show(tagged)


if __name__ == "__main__":
    sys.exit(main())
