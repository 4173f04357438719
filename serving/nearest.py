"""Prepares searches of large photo indexes: `python -m serving.nearest INDEX`."""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from biam_tf.command_line import command_to_paste, run_command
from biam_tf.errors import UserError
from serving.indexing.nearest_photos import DIRECTIONS, build_nearest
from serving.indexing.photo_index import PhotoIndex
from serving.indexing.vector_export import export_vectors

DESCRIPTION = """\
Arranges the photos of an index (python -m serving.index) by the few directions in which each has
its largest scores, with FAISS. `python -m serving.retag INDEX --search --nearest` then scores the
photos nearest to a class alone, in place of all. It is meant for hundreds of thousands of photos
(docs/serving.md).

Run it again after many photos were added: those that it does not know are scanned.

With --export it writes the directions into a file instead, for a vector database.
"""

EXAMPLES = """\
examples:
  python -m serving.nearest pictures.index
  python -m serving.retag pictures.index --classes "red car" --search --top 100 --nearest
  python -m serving.nearest pictures.index --export pictures.parquet
"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m serving.nearest",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("index", metavar="INDEX", type=pathlib.Path, help="folder of an index")
    parser.add_argument(
        "--directions",
        type=int,
        metavar="N",
        default=DIRECTIONS,
        help=f"directions of a photo; more find more and need more memory (default: {DIRECTIONS})",
    )
    parser.add_argument(
        "--export",
        type=pathlib.Path,
        metavar="FILE",
        help="write the directions into a .parquet or .npy file, with the photo of each",
    )
    return run_command(parser, _command, argv)


def _command(arguments: argparse.Namespace) -> None:
    if arguments.directions < 1:
        raise UserError(f"--directions {arguments.directions}: use at least 1")
    index = PhotoIndex(arguments.index)
    if arguments.export is not None:
        count = export_vectors(index, arguments.export, arguments.directions)
        size = index.class_side.vector_size
        print(f"{arguments.export}: {count:,} vectors of {size} numbers, {len(index):,} photos")
        return
    count = build_nearest(index, arguments.directions)
    print(f"{arguments.index}: {count:,} photos prepared for --nearest")
    words = ("--classes", "dog, red car", "--search", "--nearest")
    print(f"next: {command_to_paste('serving.retag', arguments.index, *words)}")


if __name__ == "__main__":
    sys.exit(main())
