"""Indexes the photos of a folder with an exported model: `python -m serving.index`."""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from biam_tf.command_line import run_command
from serving.indexing.build_index import ENDINGS, index_photos
from serving.indexing.manifest import BROKEN

DESCRIPTION = """\
Runs an exported model on every photo below PHOTO_FOLDER and stores the vectors of its regions, as
16-bit floats, in the folder INDEX. `python -m serving.retag INDEX` then scores the photos against
any classes, in moments, without the model and without the photos. Of a model whose scores are no
products of regions and classes (its export says so) the features are stored, and retag runs the
model.

Run it again after the photos changed: new and changed ones are added, deleted ones are removed. An
interrupted run continues where it stopped. Unreadable photos are listed and left out. Each run
checks the files of the index: photos of damaged ones are indexed again.
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
    return run_command(parser, _command, argv, resumable=True)


def _command(arguments: argparse.Namespace) -> None:
    manifest = index_photos(arguments.model_dir, arguments.photo_folder, arguments.index)
    for file, reason in manifest.damaged:
        print(f"  {file} was damaged ({reason}); its photos were indexed again")
    count = sum(shard.count for shard in manifest.shards)
    how = ", as features: each search runs the model" if manifest.region_shape else ""
    print(f"{arguments.index}: {count} photos{how}")
    for photo, reason in manifest.broken[:_BROKEN_SHOWN]:
        print(f"  left out: {photo.path}: {reason}")
    if len(manifest.broken) > _BROKEN_SHOWN:
        more = len(manifest.broken) - _BROKEN_SHOWN
        print(f"  and {more} more, listed in {arguments.index / BROKEN}")
    print(f'next: python -m serving.retag {arguments.index} --classes "dog, red car, beach"')


if __name__ == "__main__":
    sys.exit(main())
