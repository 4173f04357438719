"""Writes a run's report again, without training: `python -m training.report RUN`."""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from training.cli import run_command

DESCRIPTION = """\
Evaluates a trained run again and writes its report, one HTML file.

The data set and stored features are those of the run's config.yaml. Without --output, the page and
the contact sheet in the run's folder are replaced. A run without thresholds, made by an older
version, gets them. Nothing else changes.
"""

EXAMPLES = """\
examples:
  python -m training.report runs/quickstart
  python -m training.report runs/quickstart --output quickstart.html
"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.report",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", metavar="RUN", type=pathlib.Path, help="folder of a trained run")
    parser.add_argument(
        "--output", type=pathlib.Path, metavar="HTML", help="write the page to this file instead"
    )
    return run_command(parser, _command, argv)


def _command(arguments: argparse.Namespace) -> None:
    from biam_tf.runs import RunPaths

    RunPaths(arguments.run).require_whole()  # before TensorFlow is imported
    from training.scoring.final_evaluation import evaluate_again

    evaluate_again(arguments.run, arguments.output)


if __name__ == "__main__":
    sys.exit(main())
