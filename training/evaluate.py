"""Evaluates trained runs on labeled photos: `python -m training.evaluate RUN --data DIR`."""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from biam_tf.errors import UserError
from training.cli import run_command

DESCRIPTION = """\
Scores the photos of a folder data set (annotations.csv, classes.csv) with a trained run and writes
mAP and F1@K, with 95 % intervals, for unseen classes (ZSL), all classes (GZSL) and seen classes; F1
at the run's thresholds, if it has any; and the trade-off between seen and unseen classes.

The data set's classes.csv lists the classes that are scored. Seen are those that the run was
trained on, whatever group they have there; differences are named, and so are unseen classes that
are hardly other classes than trained ones. Classes that the run was not trained on take their
embeddings from the word vectors that it was trained with, or from --word-vectors; for a system that
scores only the classes it was trained on they are an error.

Several runs are evaluated on the same photos, and each is compared with the first one, with 95 %
intervals of a paired bootstrap. Runs whose data_manifest.json shows different training data are
refused, because the comparison would not be fair; with --allow-different-data the differences are
printed and the runs compared. Different class embeddings are not different data.
"""

EXAMPLES = """\
examples:
  python -m training.evaluate runs/quickstart --data data/scenes-3000-seed0 --output scenes.json
  python -m training.evaluate runs/my-photos --data other-photos --split val \\
      --word-vectors glove.6B.300d.txt --output other.json --contact-sheet other.png
  python -m training.evaluate runs/my-photos --data other-photos --output other.json \\
      --report other.html
  python -m training.evaluate runs/glove runs/minilm --data my-photos --output compared.json
"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.evaluate",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "runs", metavar="RUN", nargs="+", type=pathlib.Path, help="folders of trained runs"
    )
    parser.add_argument("--data", required=True, metavar="DIR", help="folder data set")
    parser.add_argument("--split", default="test", metavar="NAME", help="default: test")
    parser.add_argument(
        "--output", required=True, type=pathlib.Path, metavar="FILE", help="JSON file to write"
    )
    parser.add_argument(
        "--word-vectors",
        metavar="FILE",
        help="embeddings of the classes: GloVe text, .npz or an attribute table .csv "
        "(default: the run's own, then the file the run was trained with)",
    )
    parser.add_argument(
        "--contact-sheet",
        type=pathlib.Path,
        metavar="PNG",
        help="also draw some photos with their top tags and response maps",
    )
    parser.add_argument(
        "--report", type=pathlib.Path, metavar="HTML", help="also write a report, one file"
    )
    parser.add_argument(
        "--allow-different-data",
        action="store_true",
        help="print what differs between the runs' training data, and compare them",
    )
    return run_command(parser, _command, argv)


def _command(arguments: argparse.Namespace) -> None:
    # Mistakes that need no TensorFlow to be found.
    from biam_tf.runs import RunPaths
    from training.data.folder.reader import require_folder

    for option in ("contact_sheet", "report"):
        if getattr(arguments, option) is not None and len(arguments.runs) > 1:
            raise UserError(f"--{option.replace('_', '-')} needs exactly one run")
    for run in arguments.runs:
        RunPaths(run).require_whole()
    require_folder(arguments.data)

    from training.scoring.folder_evaluation import (
        LabeledPhotos,
        compare_on_folder,
        evaluate_on_folder,
    )

    photos = LabeledPhotos(arguments.data, arguments.split, arguments.word_vectors)
    if len(arguments.runs) == 1:
        (run,) = arguments.runs
        evaluate_on_folder(run, photos, arguments.output, arguments.contact_sheet, arguments.report)
        return
    compare_on_folder(arguments.runs, photos, arguments.output, arguments.allow_different_data)


if __name__ == "__main__":
    sys.exit(main())
