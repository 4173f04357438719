"""A sweep: all trials of a grid are checked, trained, ranked and reported."""

import pathlib
from collections.abc import Sequence

from biam_tf.errors import UserError
from training.experiments.grid import GridKey, expand
from training.experiments.sweep_report import best_line, draw_plot, ranked, write_files
from training.experiments.trials import Comparison, Trial, run_trials
from training.loop.stopping import terminating_cleanly
from training.pipeline.run_folder import RunFolder
from training.tables.plots import can_plot


def run_sweep(axes: Sequence[GridKey], comparison: Comparison, part: str) -> int:
    """Trains what is missing of a sweep, writes its files and prints its table.

    Args:
        axes: of the grid.
        comparison: what all trials have in common.
        part: "seen", "zsl" or "gzsl", whose validation mAP decides.

    Returns:
        The number of runs that failed.

    Raises:
        UserError: no setting is usable, a folder is in use, or all runs failed.
    """
    trials = expand(axes)
    check_trials(trials, comparison)
    plot = comparison.output / "sweep.png"
    plotting = can_plot(plot)
    with terminating_cleanly():
        outcomes = run_trials(trials, comparison, continue_after_errors=True)
    settings = ranked(outcomes, part)
    print("\n" + write_files(comparison.output, settings, axes, part))
    best = best_line(settings, part)
    if best:
        print(best)
    if plotting and draw_plot(plot, settings, axes, part):
        print(f"Look at {plot}")
    errors = [outcome.error for outcome in outcomes if outcome.error]
    if len(errors) == len(outcomes):
        raise UserError(f"all {len(outcomes)} runs failed: {errors[0]}")
    return len(errors)


def check_trials(trials: Sequence[Trial], comparison: Comparison) -> None:
    """Checks all settings and folders before the first run.

    Raises:
        UserError: no setting is usable (a key is misspelled, say), or a folder is in use.
    """
    errors, usable = [], 0
    for trial in trials:
        for seed in comparison.seed_numbers():
            try:
                config = comparison.config_of(trial, seed)
            except UserError as error:
                errors.append(error)
                continue
            usable += 1
            RunFolder(pathlib.Path(config.output)).check_free_for(config)
    if not usable:
        raise errors[0]
    print(f"{len(trials)} settings, {comparison.seeds * len(trials)} runs", flush=True)
