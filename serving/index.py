"""Indexes the photos of a folder with an exported model: `python -m serving.index`."""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from biam_tf.command_line import run_command
from serving.indexing.build_index import ENDINGS, index_photos
from serving.indexing.photo_index import MANIFEST

DESCRIPTION = """\
Runs an exported model on every photo below PHOTO_FOLDER and stores the region embeddings, as 16-bit
floats, in the folder INDEX. `python -m serving.retag INDEX` then scores the photos against any
classes, in moments, without the model and without the photos.

Run it again after the photos changed: new and changed ones are added, deleted ones are removed. An
interrupted run continues where it stopped. Unreadable photos are listed and left out.
"""

EXAMPLES = """\
examples:
  python -m serving.index models/my-photos ~/Pictures pictures.index
  python -m serving.retag pictures.index --classes "dog, red car, beach"
"""

_BROKEN_SHOWN = 10


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m serving.index",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model_dir",
        metavar="MODEL_DIR",
        type=pathlib.Path,
        help="folder of an exported model; its newest version is used",
    )
    parser.add_argument(
        "photo_folder",
        metavar="PHOTO_FOLDER",
        type=pathlib.Path,
        help=f"searched with its sub-folders for {', '.join(ENDINGS)}",
    )
    parser.add_argument("index", metavar="INDEX", type=pathlib.Path, help="folder to write")
    return run_command(parser, _command, argv)


def _command(arguments: argparse.Namespace) -> None:
    manifest = index_photos(arguments.model_dir, arguments.photo_folder, arguments.index)
    count = sum(len(shard.photos) for shard in manifest.shards)
    print(f"{arguments.index}: {count} photos")
    for photo, reason in manifest.broken[:_BROKEN_SHOWN]:
        print(f"  left out: {photo.path}: {reason}")
    if len(manifest.broken) > _BROKEN_SHOWN:
        more = len(manifest.broken) - _BROKEN_SHOWN
        print(f"  and {more} more, listed in {arguments.index / MANIFEST}")
    print(f'next: python -m serving.retag {arguments.index} --classes "dog, red car, beach"')


if __name__ == "__main__":
    sys.exit(main())
