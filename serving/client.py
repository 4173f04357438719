"""Tags photos with a running server: `python -m serving.client`."""

import argparse
import logging
import pathlib
import sys
from collections.abc import Sequence

from biam_tf.command_line import USER_ERROR, run_command
from biam_tf.errors import UserError
from serving.prediction.class_options import (
    add_class_options,
    add_model_name,
    add_photos,
    add_selection_options,
    named_classes,
    selection_of,
)
from serving.rpc.photo_tagging import (
    Failures,
    LocalThresholds,
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
)
from serving.rpc.tagging_client import (
    TaggingError as TaggingError,
)

DESCRIPTION = """\
Sends photos to a server (TensorFlow Serving, or `python -m serving.server`) and prints the best
tags of each photo: score, probability, and a tick for a class that reaches its threshold. Choose
any classes that the exported model can embed; without --classes they are those of the training run.
"""

EXAMPLES = """\
examples:
  which of three classes are in a photo
    python -m serving.client --server localhost:8500 --classes "dog, red car, beach" photo.jpg
  the three best of the training run's classes
    python -m serving.client --top 3 *.jpg
  only what is in the photos, by the thresholds that were chosen on validation photos
    python -m serving.client --classes "dog, red car, beach" --present *.jpg
  all of at least 80 per cent
    python -m serving.client --classes-file classes.txt --probability 0.8 *.jpg
  where in the photos a dog and a beach were found
    python -m serving.client --classes "dog, beach" --explain evidence.png *.jpg
  a table for other programs
    python -m serving.client --classes-file classes.txt --csv *.jpg > tags.csv
  all that can be read of a folder with broken photos; those are named, and the status is 0
    python -m serving.client --keep-going --json *.jpg > tags.json
  a server with TLS, whose certificate was signed by your own authority
    python -m serving.client --server tags.example.org:443 --tls-root authority.pem photo.jpg

in Python:
  from serving.client import TaggingClient
  with TaggingClient("localhost:8500") as client:
      scores = client.tag(["photo.jpg"], ["dog", "red car", "beach"])
"""

DEFAULT_SERVER = "localhost:8500"

SCORES_ONLY = (
    "scores only: the model has no probabilities and thresholds, because its run had no validation "
    "photos or it was exported by an early version; --thresholds-file applies those of a file"
)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m serving.client",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_photos(parser, "PHOTO")
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
    add_selection_options(parser)
    parser.add_argument(
        "--thresholds-file",
        type=pathlib.Path,
        metavar="FILE",
        help="thresholds.json of the run or export, for a server whose model gives scores only, "
        "or to replace the model's own; vocabulary.npz must be beside it",
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
    add_model_name(parser)
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
        "--keep-going",
        action="store_true",
        help="exit with status 0 if photos are missing or broken, as long as one is tagged; "
        "without it, a broken photo is named, the others are tagged, and the status is 2",
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


def _command(arguments: argparse.Namespace) -> int:
    names = named_classes(arguments)
    if arguments.top < 1 or arguments.timeout <= 0:
        raise UserError("--top and --timeout: use positive numbers")
    if arguments.explain is not None and names is None:
        raise UserError("--explain draws response maps of classes that you choose; add --classes")
    if arguments.explain is not None and not arguments.explain.absolute().parent.is_dir():
        raise UserError(f"--explain {arguments.explain}: no such folder")
    selection, local = selection_of(arguments, arguments.top), None
    if arguments.thresholds_file is not None:
        local = LocalThresholds.read(arguments.thresholds_file)
    logging.basicConfig(format="%(message)s")  # the client logs that it waits for a server
    if not arguments.keep_going:
        for path in arguments.photos:
            _require_readable(path)  # before hours of work, since it may be a mistyped name
    client = TaggingClient(
        arguments.server,
        model_name=arguments.model_name,
        version=arguments.version,
        timeout_seconds=arguments.timeout,
        tls=arguments.tls,
        root_certificates=arguments.tls_root,
    )
    photos, failures = arguments.photos, Failures()
    with client:
        if names is None:
            tagged = tag_with_known_classes(client, photos, selection, failures, local)
        else:
            tagged = tag_with_classes(
                client, photos, names, selection, failures, arguments.explain, local
            )
    if arguments.json and (tagged or failures.photos):
        print_json(tagged, failures)
    elif tagged:
        (print_csv if arguments.csv else print_table)(tagged)
    if tagged and not any(photo.calibrated for photo in tagged):
        sys.stdout.flush()
        print(SCORES_ONLY, file=sys.stderr)
    return _report(failures, len(tagged), arguments)


def _report(failures: Failures, tagged: int, arguments: argparse.Namespace) -> int:
    """Names what was not tagged on standard error, and returns the exit status.

    Raises:
        UserError: the server ended the requests.
    """
    sys.stdout.flush()
    for path, reason in failures.photos.items():
        print(f"{'error: ' * (not arguments.keep_going)}{path}: {reason}", file=sys.stderr)
    if failures.stopped is not None:
        error = failures.stopped
        answer = f"{error.code.name}: {plain_message(error.message)}"
        after = f", after {tagged} of {len(arguments.photos)} photos" if tagged else ""
        raise UserError(f"{arguments.server} answered {answer}{after}") from error
    if not failures.photos:
        return 0
    left_out = f"{len(failures.photos)} of {len(arguments.photos)} photos were not tagged"
    if arguments.keep_going and tagged:
        print(left_out, file=sys.stderr)
        return 0
    way_out = "; to exit with status 0 all the same, add --keep-going" if tagged else ""
    print(f"error: {left_out}{way_out}", file=sys.stderr)
    return USER_ERROR


def _require_readable(path: str) -> None:
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error


if __name__ == "__main__":
    sys.exit(main())
