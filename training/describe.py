"""Describes a data set before training: `python -m training.describe DATA`."""

import argparse
import pathlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from training.cli import add_config_arguments, run_command

if TYPE_CHECKING:
    from training.data.dataset import TaggingDataset

DESCRIPTION = """\
Describes a data set before anything is trained with it.

From its lists: photos, labels and unknown cells of each split; the number of labels per photo; the
frequency of each class; unseen classes that training photos are labeled with; classes that no photo
of a split shows; with --word-vectors, classes without an embedding.

From its photos, each opened once: those that cannot be read; and near-duplicates, within a split
and across splits. A test photo with a near-duplicate among the training photos makes a figure look
better than it is. Near-duplicates are found by a 64-bit perceptual hash, and confirmed by comparing
the photos in 8 x 8 shades of gray. --radius is the number of bits in which the hashes may differ: 4
finds copies in another size, compression or brightness; 10 (the default) also finds photos of one
scene taken one after the other. With more than 100,000 photos, a small radius saves time.

--output writes everything to a folder: description.md, .json and .html, class_frequency.csv and
.png (the extra [report]), duplicates.csv, and duplicates.png, which shows the pairs.
"""

EXAMPLES = """\
examples:
  python -m training.describe my-photos
  python -m training.describe my-photos --word-vectors glove.6B.300d.txt --output description
  python -m training.describe --config configs/corel5k.yaml --set data.directory=my-photos
"""

RADIUS, LARGEST_RADIUS = 10, 16


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.describe",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("data", metavar="DATA", nargs="?", help="a folder data set")
    add_config_arguments(
        parser,
        config="YAML settings of a run, whose data section is described",
        override="replace one setting of --config, e.g. data.directory=my-photos",
    )
    parser.add_argument(
        "--word-vectors",
        metavar="FILE",
        help="look the classes up in this file: word vectors, .npz or .csv "
        "(default: vocabulary.word_vectors of --config)",
    )
    parser.add_argument(
        "--output", type=pathlib.Path, metavar="FOLDER", help="also write it to this folder"
    )
    parser.add_argument(
        "--radius",
        type=int,
        default=RADIUS,
        metavar="BITS",
        help=f"0 to {LARGEST_RADIUS}; default: {RADIUS}",
    )
    parser.add_argument(
        "--lists-only", action="store_true", help="do not open the photos: much faster"
    )
    return run_command(parser, _command, argv)


def _command(arguments: argparse.Namespace) -> None:
    # Imported here, so that --help answers at once.
    from biam_tf.errors import UserError
    from training.description.outputs import write_description
    from training.description.sections import (
        describe,
        describe_unreadable,
        sections_of,
        to_markdown,
    )

    if not 0 <= arguments.radius <= LARGEST_RADIUS:
        raise UserError(f"--radius {arguments.radius}: expected 0 to {LARGEST_RADIUS}")
    dataset, word_vectors = _dataset(arguments)
    radius = None if arguments.lists_only else arguments.radius
    findings = describe(dataset, word_vectors, radius)
    title = str(dataset.directory)
    print(to_markdown(title, sections_of(findings, None, None), escapes=False))
    if arguments.output is not None:
        written = write_description(findings, title, arguments.output)
        print("\n".join(["Written:", *(f"  {path}" for path in written)]))
    if findings.unreadable:
        print(f"Warning: {describe_unreadable(findings)}")


def _dataset(arguments: argparse.Namespace) -> "tuple[TaggingDataset, str | None]":
    """Returns the data set, and the file of its word vectors or None."""
    from biam_tf.errors import UserError
    from training.data.folder.reader import read_folder

    if (arguments.data is None) == (arguments.config is None):
        raise UserError("give either the folder of a data set or --config FILE")
    if arguments.data is not None:
        if arguments.set:
            raise UserError("--set replaces settings of --config, which is not given")
        return read_folder(arguments.data, look_for_photos=False), arguments.word_vectors

    from training.config import load_config
    from training.data.registry import load_dataset

    config = load_config(arguments.config, arguments.set)
    dataset = load_dataset(config.data, look_for_photos=False)
    return dataset, arguments.word_vectors or config.vocabulary.word_vectors


if __name__ == "__main__":
    sys.exit(main())
