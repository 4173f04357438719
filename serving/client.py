"""Asks a server, TensorFlow Serving or ours, for tags: `python -m serving.client`."""

import argparse
import csv
import dataclasses
import io
import json
import logging
import os
import pathlib
import re
import sys
from collections.abc import Iterable, Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # read when TensorFlow is first imported

import numpy as np

from biam_tf.command_line import run_command
from biam_tf.errors import UserError
from serving import DEFAULT_MODEL_NAME
from serving.rpc.tagging_client import (
    DEFAULT_TIMEOUT_SECONDS,
    TaggingClient,
    TaggingError,
    read_file,
)

DESCRIPTION = """\
Sends photos to a server (TensorFlow Serving, or `python -m serving.server`) and prints how well
each class fits each photo. The classes are yours: any that the exported model has words for.
Without --classes it prints the best of the classes that the model was trained with.
"""

EXAMPLES = """\
examples:
  what is in a photo, of three classes
    python -m serving.client --server localhost:8500 --classes "dog, red car, beach" photo.jpg
  the three best of the classes that the model was trained with
    python -m serving.client --top 3 *.jpg
  where in the photos a dog was seen, and where a beach
    python -m serving.client --classes "dog, beach" --explain evidence.png *.jpg
  a table for other programs
    python -m serving.client --classes-file classes.txt --csv *.jpg > tags.csv
  a server behind TLS, whose certificate an authority of your own has signed
    python -m serving.client --server tags.example.org:443 --tls-root authority.pem photo.jpg

in Python:
  from serving.client import TaggingClient
  with TaggingClient("localhost:8500") as client:
      scores = client.tag(["photo.jpg"], ["dog", "red car", "beach"])
"""

DEFAULT_SERVER = "localhost:8500"
_PHOTOS_A_REQUEST, _BYTES_A_REQUEST = 8, 16 * 2**20
# Larger than photos stand on the sheet, and small enough to keep many.
_DRAWN_SIZE = 640, 640


@dataclasses.dataclass(frozen=True)
class _Tagged:
    """One photo's tags, best first."""

    photo: str
    tags: list[tuple[str, float]]


def main(argv=None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m serving.client",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("photos", metavar="PHOTO", nargs="+", help="JPEG, PNG, GIF or BMP")
    parser.add_argument(
        "--server",
        metavar="HOST:PORT",
        default=DEFAULT_SERVER,
        help=f"default: {DEFAULT_SERVER}",
    )
    add_class_options(parser)
    parser.add_argument("--top", type=int, default=5, metavar="N", help="tags a photo (default: 5)")
    parser.add_argument(
        "--explain",
        type=pathlib.Path,
        metavar="OUT.png",
        help="draw the photos, their tags and where each tag was found; needs --classes",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="one line a tag: photo, tag, score")
    form.add_argument("--json", action="store_true", help="one list of tags a photo")
    parser.add_argument(
        "--model-name",
        metavar="NAME",
        default=DEFAULT_MODEL_NAME,
        help=f"what the server calls the model (default: {DEFAULT_MODEL_NAME})",
    )
    parser.add_argument(
        "--version", type=int, metavar="N", help="of the model (default: the newest)"
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=DEFAULT_TIMEOUT_SECONDS,
        metavar="SECONDS",
        help="for each request of up to 8 photos, waiting for the server included (default: 60)",
    )
    parser.add_argument(
        "--tls", action="store_true", help="encrypt, trusting the certificates of this system"
    )
    parser.add_argument(
        "--tls-root", metavar="FILE", help="encrypt, trusting the certificates of this PEM file"
    )
    return run_command(parser, _command, argv)


def add_class_options(parser: argparse.ArgumentParser) -> None:
    """Adds `--classes` and `--classes-file`, of which `named_classes` makes a list."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--classes", metavar="NAMES", help='separated by commas: "dog, red car"')
    group.add_argument("--classes-file", metavar="FILE", help="one name a line")


def named_classes(arguments: argparse.Namespace) -> list[str] | None:
    """Returns the classes that a command line names, each once; None where it names none.

    Raises:
        UserError: the file can't be read, or no name is left.
    """
    if arguments.classes is not None:
        where, names = "--classes", arguments.classes.split(",")
    elif arguments.classes_file is not None:
        where = arguments.classes_file
        try:
            names = read_file(where).decode().splitlines()
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
        raise UserError("--explain draws the evidence for classes you name; add --classes")
    if arguments.explain is not None and not arguments.explain.absolute().parent.is_dir():
        raise UserError(f"--explain {arguments.explain}: no such folder")
    logging.basicConfig(format="%(message)s")  # the client tells that it waits for a server
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
                tagged = _tag_known(client, photos, arguments.top)
            else:
                tagged = _tag(client, photos, names, arguments)
    except TaggingError as error:
        answer = f"{error.code.name}: {_plain(error.message)}"
        raise UserError(f"{arguments.server} answered {answer}") from error
    show = _print_csv if arguments.csv else _print_json if arguments.json else _print_table
    show(tagged)


def _plain(message: str) -> str:
    """What the model said, without what TensorFlow puts around it."""
    first = message.partition("\n")[0]
    return re.sub(r"^assertion failed: \[(.*)\]$", r"\1", first)


def _tag_known(client: TaggingClient, photos, top: int) -> list[_Tagged]:
    tagged = []
    for some in _chunks(photos):
        answers = client.tag_known([contents for _, contents in some])
        tagged += [_Tagged(path, tags[:top]) for (path, _), tags in zip(some, answers, strict=True)]
    return tagged


def _tag(client: TaggingClient, photos, names: list[str], arguments) -> list[_Tagged]:
    scores, response_maps = [], []
    for some in _chunks(photos):
        contents = [photo for _, photo in some]
        if arguments.explain is None:
            scores.append(client.tag(contents, names))
        else:
            some_scores, some_maps = client.explain(contents, names)
            scores.append(some_scores)
            response_maps.append(some_maps)
    scores = np.concatenate(scores)
    if arguments.explain is not None:
        response_maps = np.concatenate(response_maps)
        _draw(arguments.explain, photos, names, scores, response_maps, arguments.top)
    tagged = []
    for (path, _), row in zip(photos, scores, strict=True):
        best = np.argsort(-row, kind="stable")[: arguments.top]
        tagged.append(_Tagged(path, [(names[c], float(row[c])) for c in best]))
    return tagged


def _chunks(photos: Sequence[tuple[str, bytes]]) -> Iterable[Sequence[tuple[str, bytes]]]:
    """Requests that stay below the size of a message, however large the photos are."""
    from biam_tf.progress import progress

    chunks, room = [[]], _BYTES_A_REQUEST
    for path, contents in photos:
        if chunks[-1] and (len(contents) > room or len(chunks[-1]) == _PHOTOS_A_REQUEST):
            chunks.append([])
            room = _BYTES_A_REQUEST
        chunks[-1].append((path, contents))
        room -= len(contents)
    if len(chunks) == 1:
        yield photos
        return
    with progress(len(photos), "Tagging", "photo") as bar:
        for chunk in chunks:
            yield chunk
            bar.update(len(chunk))


def _draw(path: pathlib.Path, photos, names, scores, response_maps, top: int) -> None:
    from biam_tf.contact_sheet import draw_contact_sheet

    pixels = [_pixels(*photo) for photo in photos]
    try:
        draw_contact_sheet(
            path,
            pixels,
            names,
            ["seen"] * len(names),  # a server doesn't tell; nothing is marked
            scores,
            response_maps=response_maps,
            tags=top,
            captions=[os.path.basename(photo) for photo, _ in photos],
            title="Tags, and where each was found",
        )
    except OSError as error:
        raise UserError(f"--explain {path}: {error.strerror or error}") from error


def _pixels(path: str, contents: bytes) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(contents)) as photo:
            photo.thumbnail(_DRAWN_SIZE)
            return np.asarray(photo.convert("RGB"))
    except UnidentifiedImageError as error:
        raise UserError(f"{path}: can't be drawn: not a JPEG, PNG, GIF or BMP") from error


def _print_table(tagged: list[_Tagged]) -> None:
    for number, photo in enumerate(tagged):
        print(("\n" if number else "") + photo.photo)
        for name, score in photo.tags:
            print(f"  {score:8.3f}  {name}")


def _print_csv(tagged: list[_Tagged]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["photo", "tag", "score"])
    for photo in tagged:
        writer.writerows((photo.photo, name, f"{score:.6g}") for name, score in photo.tags)


def _print_json(tagged: list[_Tagged]) -> None:
    rows = [
        {"photo": photo.photo, "tags": [{"name": n, "score": s} for n, s in photo.tags]}
        for photo in tagged
    ]
    print(json.dumps(rows, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    sys.exit(main())
