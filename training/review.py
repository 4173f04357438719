"""Finds training labels that are probably wrong or missing: `python -m training.review RUN`."""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from training.cli import run_command

DESCRIPTION = """\
Lists the training labels that the model doubts most: labels that are probably wrong, and classes
that photos show without the label.

A model agrees with what it was trained on, mistakes too. Therefore the training photos are divided
into --folds; for each, a short training (about half of the run's steps, on stored features where
the backbone is frozen) learns from the other photos and scores those of the fold. With 3 folds this
takes about 1.5 times as long as the run's training; the command says it first. A review that is
stopped goes on with the same command, and one with another --top trains nothing again.

RUN/review/index.html shows the photos, to look through and to mark what is wrong; doubts.csv is the
same list. Its column `corrected` takes present, absent or unknown (empty: not looked at).

--apply takes the corrected list and writes the data set's annotations.csv with the corrections, to
RUN/review/annotations.csv or --output. It changes no other file and replaces none. Train with it by
--set data.annotations=FILE.
"""

EXAMPLES = """\
examples:
  python -m training.review runs/my-photos
  python -m training.review runs/my-photos --top 1000 --folds 5
  python -m training.review runs/my-photos --apply ~/Downloads/corrected.csv
  python -m training.run --config runs/my-photos/config.yaml --set output=runs/corrected \\
      --set data.annotations=runs/my-photos/review/annotations.csv
"""

TOP = 200


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.review",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", metavar="RUN", type=pathlib.Path, help="folder of a trained run")
    parser.add_argument(
        "--top", type=int, default=TOP, metavar="N", help=f"labels to list (default: {TOP})"
    )
    parser.add_argument(
        "--folds", type=int, metavar="N", help="of the training photos, 2 to 10 (default: 3)"
    )
    parser.add_argument(
        "--apply", type=pathlib.Path, metavar="CSV", help="the corrected list, to write its labels"
    )
    parser.add_argument(
        "--output", type=pathlib.Path, metavar="CSV", help="the file that --apply writes"
    )
    return run_command(parser, _command, argv, resumable=True)


def _command(arguments: argparse.Namespace) -> None:
    from biam_tf.errors import UserError
    from biam_tf.runs import RunPaths

    RunPaths(arguments.run).require_whole()  # before TensorFlow is imported
    if arguments.apply is None and arguments.output is not None:
        raise UserError("--output names the file that --apply writes, which is not given")
    if arguments.apply is not None and arguments.folds is not None:
        raise UserError("--apply takes the list of a review and trains nothing: leave --folds out")
    if arguments.top < 1:
        raise UserError(f"--top {arguments.top}: expected at least 1")
    if arguments.apply is not None and not arguments.apply.is_file():
        raise UserError(f"--apply {arguments.apply}: no such file")

    from training.label_review.folds import FEWEST_FOLDS, FOLDS, MOST_FOLDS
    from training.label_review.review import apply_corrections, review_labels

    if arguments.apply is not None:
        apply_corrections(arguments.run, arguments.apply, arguments.output)
        return
    folds = FOLDS if arguments.folds is None else arguments.folds
    if not FEWEST_FOLDS <= folds <= MOST_FOLDS:
        raise UserError(f"--folds {folds}: expected {FEWEST_FOLDS} to {MOST_FOLDS}")
    review_labels(arguments.run, folds, arguments.top)


if __name__ == "__main__":
    sys.exit(main())
