"""Trains a grid of settings and compares them: `python -m training.sweep`."""

import argparse
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # read when TensorFlow is first imported

from training.cli import add_config_arguments, require_one_process, run_command

DESCRIPTION = """\
Trains a run for every combination of the --grid values, with one or several seeds, and compares
them on the validation split.

The settings that --grid does not name come from --config and --set, the same for all. Features
of a frozen backbone are extracted once. Each run has a folder of its own below --output; runs
that are complete are taken as they are and a stopped one goes on, so that the same command
continues a sweep, and one with more values or seeds adds what is missing. A setting that cannot
be used is reported in its row while the others go on; a key that no run can use ends the sweep
before any work.

sweep.md and sweep.csv (every seed) hold the validation mAP of the epochs that were kept and the
test figures. Rows are sorted by validation alone. sweep.png shows the same: a line for one key,
a heat map for two, a ranking for more (needs matplotlib, the extra [report]).
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


def main(argv=None) -> int:
    """Runs the command line; returns the exit status: 1 where some of the runs failed."""
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
        help="a setting and the values to try; may be given many times",
    )
    parser.add_argument(
        "--seeds",
        type=int,
        default=1,
        metavar="N",
        help="trainings of each combination: the configured seed and those after it (default: 1)",
    )
    parser.add_argument(
        "--output", type=pathlib.Path, required=True, metavar="DIR", help="where everything goes"
    )
    parser.add_argument(
        "--sort-by",
        choices=["seen_mAP", "zsl_mAP", "gzsl_mAP"],
        help="validation figure that decides (default: training.select_on)",
    )
    add_config_arguments(parser)
    return run_command(parser, _command, argv)


def _command(arguments: argparse.Namespace) -> int:
    from biam_tf.errors import UserError
    from training.config import load_config
    from training.experiments.grid import expand, parse_grid

    if arguments.seeds < 1:
        raise UserError(f"--seeds {arguments.seeds}: expected at least 1")
    if any(setting.partition("=")[0].strip() == "output" for setting in arguments.set):
        raise UserError("--set output: every run has a folder below --output; leave this out")
    axes = parse_grid(arguments.grid)
    config = load_config(arguments.config, arguments.set)
    require_one_process(config, "a sweep")

    from training.experiments.sweep_report import best_line, draw_plot, ranked, write_files
    from training.experiments.trials import Comparison, run_trials
    from training.loop.stopping import terminating_cleanly
    from training.tables.plots import can_plot

    trials = expand(axes)
    comparison = Comparison(
        arguments.config, tuple(arguments.set), arguments.output, arguments.seeds
    )
    _check(trials, comparison)
    plot = arguments.output / "sweep.png"
    plotting = can_plot(plot)
    with terminating_cleanly():
        outcomes = run_trials(trials, comparison, go_on_after_errors=True)

    part = (arguments.sort_by or config.training.select_on).split("_", 1)[0]
    settings = ranked(outcomes, part)
    print("\n" + write_files(arguments.output, settings, axes, part))
    best = best_line(settings, part)
    if best:
        print(best)
    if plotting and draw_plot(plot, settings, axes, part):
        print(f"Look at {plot}")
    if all(outcome.error for outcome in outcomes):
        raise UserError(f"none of the {len(outcomes)} runs could be made: {outcomes[0].error}")
    return 1 if any(outcome.error for outcome in outcomes) else 0


def _check(trials, comparison) -> None:
    """Looks at all settings and folders before the first run.

    Raises:
        UserError: no run can be made with them (a misspelt key, say), or a folder is in use.
    """
    from biam_tf.errors import UserError
    from training.pipeline.run_folder import RunFolder

    first_error, usable = None, 0
    for trial in trials:
        for seed in comparison.seed_numbers():
            try:
                config = comparison.config_of(trial, seed)
            except UserError as error:
                first_error = first_error or error
                continue
            usable += 1
            RunFolder(pathlib.Path(config.output)).check_free_for(config)
    if not usable:
        raise first_error
    print(f"{len(trials)} settings, {comparison.seeds * len(trials)} runs", flush=True)


if __name__ == "__main__":
    sys.exit(main())
