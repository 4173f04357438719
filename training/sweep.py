"""Trains a grid of settings and compares them: `python -m training.sweep`."""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from training.cli import add_config_arguments, require_one_process, run_command

DESCRIPTION = """\
Trains a run for every combination of the --grid values, with one or several seeds, and compares
them on the validation split.

All other settings come from --config and --set and are the same for all runs. Features of a
frozen backbone are extracted once. Each run has its own folder below --output. Complete runs are
reused and a stopped one is resumed, so the same command continues a sweep, and a command with more
values or seeds adds what is missing. A value that cannot be used is reported in its row, and the
other runs continue; a key that no run can use ends the sweep before any work.

sweep.md and sweep.csv (every seed) contain the validation mAP of the best epochs and the test
figures. Rows are sorted by validation alone. sweep.png shows the validation mAP as a line for one
key, a heat map for two, a ranking for more (needs matplotlib, the extra [report]).
"""

EXAMPLES = """\
examples:
  python -m training.sweep --grid head.num_heads=1,2,4,8 --output runs/heads
  python -m training.sweep --config configs/corel5k.yaml --seeds 3 \\
      --grid training.optimizer.learning_rate=1e-4,5e-4,1e-3 --grid head.top_k=5,10,20 \\
      --set data.directory=my-photos --set vocabulary.word_vectors=glove.6B.300d.txt \\
      --output runs/rate-and-k
A comma inside brackets or quotes belongs to a value: --grid 'some.list=[1, 2],[3, 4]'
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 1 if some of the runs failed."""
    parser = argparse.ArgumentParser(
        prog="python -m training.sweep",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--grid",
        metavar="KEY=VALUE,VALUE",
        action="append",
        required=True,
        help="a setting and the values to try; may be given several times",
    )
    parser.add_argument(
        "--seeds",
        type=int,
        default=1,
        metavar="N",
        help="runs per combination: with the configured seed and the next ones (default: 1)",
    )
    parser.add_argument(
        "--output", type=pathlib.Path, required=True, metavar="DIR", help="folder for all output"
    )
    parser.add_argument(
        "--sort-by",
        choices=["seen_mAP", "zsl_mAP", "gzsl_mAP"],
        help="validation figure to sort by (default: training.select_on)",
    )
    add_config_arguments(parser)
    return run_command(parser, _command, argv, resumable=True)


def _command(arguments: argparse.Namespace) -> int:
    from biam_tf.errors import UserError
    from training.config import load_config
    from training.experiments.grid import expand, parse_grid, require_usable

    if arguments.seeds < 1:
        raise UserError(f"--seeds {arguments.seeds}: expected at least 1")
    if any(setting.partition("=")[0].strip() == "output" for setting in arguments.set):
        raise UserError("--set output: every run has its own folder below --output; leave this out")
    axes = parse_grid(arguments.grid)
    config = load_config(arguments.config, arguments.set)
    require_one_process(config, "a sweep")
    require_usable(expand(axes), arguments.config, arguments.set)

    from training.experiments.grid_search import run_sweep
    from training.experiments.trials import Comparison

    comparison = Comparison(
        arguments.config, tuple(arguments.set), arguments.output, arguments.seeds
    )
    part = (arguments.sort_by or config.training.select_on).split("_", 1)[0]
    return 1 if run_sweep(axes, comparison, part) else 0


if __name__ == "__main__":
    sys.exit(main())
