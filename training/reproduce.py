"""Tables of the paper on a data set of one's own: `python -m training.reproduce --table 3`."""

import argparse
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # read when TensorFlow is first imported

from training.cli import add_config_arguments, run_command

DESCRIPTION = """\
Trains every system of a table with several seeds and prints mean and spread on the test split.

Table 3 shows what each block adds: standard region features, region context alone, scene context
alone, and both (BiAM) as --config has it, in the form of the paper's equations and in that of the
authors' released code; beside them, BiAM with pooled features classified (the paper's figure 5).
All share the other settings of --config. Features are extracted once. Runs that are complete are
taken as they are, so that the same command goes on where it was stopped.
"""

EXAMPLES = """\
example:
  python -m training.reproduce --table 3 --seeds 3 --config configs/corel5k.yaml \\
      --set data.directory=data/corel5k --set vocabulary.word_vectors=glove.6B.100d.txt
"""


def main(argv=None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m training.reproduce",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--table", type=int, choices=[3], required=True, help="number in the paper")
    parser.add_argument(
        "--seeds", type=int, default=3, metavar="N", help="trainings of each system (default: 3)"
    )
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        default=pathlib.Path("runs/table3"),
        metavar="DIR",
        help="where the runs and the table go (default: runs/table3)",
    )
    add_config_arguments(parser)
    return run_command(parser, _command, argv)


def _command(arguments: argparse.Namespace) -> None:
    from biam_tf.errors import UserError
    from training.systems import run_systems, table_3, write_table

    if arguments.seeds < 1:
        raise UserError(f"--seeds {arguments.seeds}: expected at least 1")
    rows = run_systems(
        table_3(), arguments.config, arguments.set, arguments.output, arguments.seeds
    )
    print("\n" + write_table(rows, arguments.output))


if __name__ == "__main__":
    sys.exit(main())
