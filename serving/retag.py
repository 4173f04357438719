"""Scores indexed photos against any classes: `python -m serving.retag`."""

import argparse
import csv
import json
import os
import pathlib
import sys

import numpy as np

from biam_tf.command_line import run_command
from biam_tf.errors import UserError
from serving.client import add_class_options, named_classes
from serving.indexing.photo_index import PhotoIndex

DESCRIPTION = """\
Scores the photos of an index (python -m serving.index) against any classes, without the model and
without the photos, and prints the best tags of each photo. With --search it prints the best photos
of each class instead. Without --classes it takes those that the model was trained with.
"""

EXAMPLES = """\
examples:
  python -m serving.retag pictures.index --classes "dog, beach" --word-vectors glove.6B.300d.txt
  python -m serving.retag pictures.index --classes "red car" --search --top 20
  python -m serving.retag pictures.index --classes-file classes.txt --output tags.csv
"""


def main(argv=None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m serving.retag",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("index", metavar="INDEX", type=pathlib.Path, help="folder of an index")
    add_class_options(parser)
    parser.add_argument(
        "--word-vectors",
        metavar="FILE",
        help="where to look up classes that the model was not trained with: GloVe text, .npz or an "
        "attribute table .csv",
    )
    parser.add_argument(
        "--search", action="store_true", help="the best photos of each class, not the reverse"
    )
    parser.add_argument(
        "--top", type=int, default=5, metavar="N", help="tags a photo, photos a class (default: 5)"
    )
    parser.add_argument("--threshold", type=float, metavar="T", help="leave out lower scores")
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        metavar="FILE",
        help="write all of it into a .csv or .json file instead of printing it",
    )
    return run_command(parser, _command, argv)


def _command(arguments: argparse.Namespace) -> None:
    if arguments.top < 1:
        raise UserError(f"--top {arguments.top}: use at least 1")
    if arguments.output and arguments.output.suffix.lower() not in _WRITERS:
        raise UserError(f"--output {arguments.output}: end the name with .csv or .json")
    index = PhotoIndex(arguments.index)
    names = named_classes(arguments) or list(index.vocabulary.names)
    scores = index.scores(index.embed(names, arguments.word_vectors))
    photos = list(index.photos)
    if arguments.search:
        found = _best(scores.T, names, photos, arguments.top, arguments.threshold)
        headings = ("class", "photo")
    else:
        found = _best(scores, photos, names, arguments.top, arguments.threshold)
        headings = ("photo", "tag")
    if arguments.output:
        _write(arguments.output, headings, found)
        print(f"{arguments.output}: {len(photos)} photos, {len(names)} classes")
        return
    for number, (name, best) in enumerate(found):
        print(("\n" if number else "") + name)
        for other, score in best:
            print(f"  {score:8.3f}  {other}")


def _best(scores, rows, columns, top, threshold) -> list[tuple[str, list[tuple[str, float]]]]:
    """The best columns of each row, best first, with their scores."""
    top = min(top, len(columns))
    chosen = np.argpartition(-scores, top - 1, axis=1)[:, :top]
    values = np.take_along_axis(scores, chosen, axis=1)
    order = np.lexsort((chosen, -values), axis=1)
    chosen = np.take_along_axis(chosen, order, axis=1)
    values = np.take_along_axis(values, order, axis=1)
    found = []
    for name, own, own_values in zip(rows, chosen, values, strict=True):
        best = zip(own, own_values.tolist(), strict=True)
        kept = [(columns[c], v) for c, v in best if threshold is None or v >= threshold]
        found.append((name, kept))
    return found


def _write(path: pathlib.Path, headings: tuple[str, str], found) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "w", encoding="utf-8", newline="") as file:
            _WRITERS[path.suffix.lower()](file, headings, found)
        os.replace(partial, path)
    except OSError as error:
        raise UserError(f"--output {path}: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)


def _write_csv(file, headings: tuple[str, str], found) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*headings, "score"])
    for name, best in found:
        writer.writerows((name, other, f"{score:.6g}") for other, score in best)


def _write_json(file, headings: tuple[str, str], found) -> None:
    outer, inner = headings
    rows = [
        {outer: name, f"{inner}s": [{inner: other, "score": score} for other, score in best]}
        for name, best in found
    ]
    json.dump(rows, file, indent=1, ensure_ascii=False)


_WRITERS = {".csv": _write_csv, ".json": _write_json}

if __name__ == "__main__":
    sys.exit(main())
