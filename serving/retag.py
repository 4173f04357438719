"""Scores indexed photos against any classes: `python -m serving.retag`."""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from biam_tf.command_line import run_command
from biam_tf.errors import UserError
from serving.client import add_class_options, named_classes
from serving.indexing.match_table import WRITERS, best_matches, write_table
from serving.indexing.photo_index import PhotoIndex

DESCRIPTION = """\
Scores the photos of an index (python -m serving.index) against any classes, without the model and
without the photos, and prints the best tags of each photo. With --search it prints the best photos
of each class instead. Without --classes it uses those of the training run.
"""

EXAMPLES = """\
examples:
  python -m serving.retag pictures.index --classes "dog, beach" --word-vectors glove.6B.300d.txt
  python -m serving.retag pictures.index --classes "red car" --search --top 20
  python -m serving.retag pictures.index --classes-file classes.txt --output tags.csv
"""


def main(argv: Sequence[str] | None = None) -> int:
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
        help="embeddings of classes that the model was not trained with: GloVe text, .npz or an "
        "attribute table .csv",
    )
    parser.add_argument(
        "--search",
        action="store_true",
        help="list the best photos of each class instead of the best tags of each photo",
    )
    parser.add_argument(
        "--top",
        type=int,
        default=5,
        metavar="N",
        help="tags per photo, or photos per class (default: 5)",
    )
    parser.add_argument("--threshold", type=float, metavar="T", help="leave out lower scores")
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        metavar="FILE",
        help="write the result into a .csv or .json file instead of printing it",
    )
    return run_command(parser, _command, argv)


def _command(arguments: argparse.Namespace) -> None:
    if arguments.top < 1:
        raise UserError(f"--top {arguments.top}: use at least 1")
    if arguments.output and arguments.output.suffix.lower() not in WRITERS:
        raise UserError(f"--output {arguments.output}: end the name with .csv or .json")
    index = PhotoIndex(arguments.index)
    names = named_classes(arguments) or list(index.vocabulary.names)
    scores = index.scores(index.embed(names, arguments.word_vectors))
    if arguments.search:
        headings = ("class", "photo")
        matches = best_matches(scores.T, names, index.photos, arguments.top, arguments.threshold)
    else:
        headings = ("photo", "tag")
        matches = best_matches(scores, index.photos, names, arguments.top, arguments.threshold)
    if arguments.output:
        write_table(arguments.output, headings, matches)
        print(f"{arguments.output}: {len(index)} photos, {len(names)} classes")
        return
    for number, (name, best) in enumerate(matches):
        print(("\n" if number else "") + name)
        for other, score in best:
            print(f"  {score:8.3f}  {other}")


if __name__ == "__main__":
    sys.exit(main())
