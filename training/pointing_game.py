"""Checks that response maps point at their classes: `python -m training.pointing_game RUN`."""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from training.cli import run_command

DESCRIPTION = """\
For every test photo and every class on it, takes the region with the highest response to the class;
it is a hit if the region's center lies in one of the class's boxes (the pointing game of Zhang et
al., ECCV 2016). The data set must have the boxes as boxes.csv (image,class,x0,y0,x1,y1 in pixels),
as the drawn data set `scenes` does. Chance is the share of hits of a random region.
"""

EXAMPLES = """\
example:
  python -m training.run && python -m training.pointing_game runs/quickstart
"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.pointing_game",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "runs", nargs="+", type=pathlib.Path, metavar="RUN", help="folders of trained runs"
    )
    return run_command(parser, _command, argv)


def _command(arguments: argparse.Namespace) -> None:
    from biam_tf.runs import RunPaths

    for run in arguments.runs:
        RunPaths(run).require_whole()  # before TensorFlow is imported
    from training.scoring.localization import format_localization, measure_run

    print(format_localization({str(run): measure_run(run) for run in arguments.runs}))


if __name__ == "__main__":
    sys.exit(main())
