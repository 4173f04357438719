"""Finds a learning rate: `python -m training.lr_range`."""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from training.cli import add_config_arguments, require_one_process, run_command

DESCRIPTION = """\
Tests a range of learning rates (Smith 2017) and suggests one.

Trains the model of a configuration for a few hundred steps, with its own data, loss and
optimizer, while the learning rate rises by the same factor at every step. Rates that are far too
small change nothing, good ones reduce the loss, too large ones increase it again; the test ends
when the smoothed loss is four times its lowest value.

The suggestion is the rate at which the smoothed loss is lowest. It is a cautious starting point:
the ranking loss grows with the scale of the scores, even while the ranking improves, and with a
warm-up several times that rate may do better. So the command for a sweep over the rate, 3 times and
10 times the rate is printed, too.

The weights are discarded; lr_range.csv and lr_range.png (which needs matplotlib, the extra
[report]) are written to --output. Stored features are used as in a run. The seed is training.seed.
"""

EXAMPLES = """\
examples:
  python -m training.lr_range --output runs/rates
  python -m training.lr_range --config configs/corel5k.yaml --steps 300 --to 0.1 \\
      --set data.directory=my-photos --set vocabulary.word_vectors=glove.6B.300d.txt \\
      --output runs/rates
"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.lr_range",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--output", type=pathlib.Path, required=True, metavar="DIR", help="folder for CSV and plot"
    )
    parser.add_argument(
        "--from", type=float, default=1e-6, dest="first", metavar="RATE", help="default: 1e-6"
    )
    parser.add_argument(
        "--to", type=float, default=1.0, dest="last", metavar="RATE", help="default: 1"
    )
    parser.add_argument("--steps", type=int, default=200, metavar="N", help="default: 200")
    add_config_arguments(parser)
    return run_command(parser, _command, argv)


def _command(arguments: argparse.Namespace) -> None:
    # Imported here, so that --help and wrong settings do not wait for TensorFlow.
    from biam_tf.errors import UserError
    from training.config import load_config

    if not 0 < arguments.first < arguments.last:
        raise UserError(
            f"--from {arguments.first:g} --to {arguments.last:g}: expected rates above 0, the "
            "first smaller than the last"
        )
    if arguments.steps < 20:
        raise UserError(f"--steps {arguments.steps}: expected at least 20, to smooth the loss")
    config = load_config(arguments.config, arguments.set)
    require_one_process(config, "a range test")

    from training.experiments.rate_range import ExponentialRise, suggest_rate

    options = [] if arguments.config is None else ["--config", arguments.config]
    for setting in arguments.set:
        options += ["--set", setting]
    rise = ExponentialRise(arguments.first, arguments.last, arguments.steps)
    suggest_rate(config, rise, arguments.output, options)


if __name__ == "__main__":
    sys.exit(main())
