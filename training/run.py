"""Trains a tagger: `python -m training.run`, with no argument the quickstart."""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from biam_tf.errors import UserError
from training.cli import add_config_arguments, require_one_process, run_command

DESCRIPTION = """\
Trains a zero-shot tagger and evaluates it on classes that it was not trained on.

Without arguments: the quickstart. It draws pictures of colored shapes, trains on some combinations
of color, texture and shape, and is evaluated on the others. The same command resumes a run that
was stopped; for a complete run, it prints the metrics again.
"""

EXAMPLES = """\
exit status:
  0    the run is complete; with --dry-run: memory and disk suffice
  1    only with --dry-run: they do not
  2    a setting, the data or the disk cannot be used: see the message
  69   another worker of the run is gone     } the same command
  75   stopped by SIGTERM, work saved        } continues where
  130  stopped by Ctrl-C, work saved         } it was stopped

examples:
  python -m training.run
  python -m training.run --dry-run
  python -m training.run --profile 20
  python -m training.run --config configs/corel5k.yaml \\
      --set data.directory=my-photos --set vocabulary.word_vectors=glove.6B.300d.txt
  python -m training.run --config configs/corel5k.yaml \\
      --set head.preset=released --set training.seed=1 --set output=runs/released-1
"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.run",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="trial run on a sample: build everything, train a few steps and evaluate a few "
        "photos in a temporary folder, and print time, memory and disk that the whole run takes; "
        "exit status 1 if memory or disk do not suffice",
    )
    parser.add_argument(
        "--profile",
        type=int,
        metavar="N",
        help="profile N training steps after the first few; print and store the time of each "
        "operation",
    )
    add_config_arguments(parser)
    return run_command(parser, _command, argv, resumable=True)


def _command(arguments: argparse.Namespace) -> int:
    if arguments.profile is not None and arguments.profile < 1:
        raise UserError(f"--profile {arguments.profile}: use at least 1 step")
    if arguments.profile is not None and arguments.dry_run:
        raise UserError(
            "--profile needs a run: leave out --dry-run, which takes its own measurements"
        )

    # Imported here, so that --help answers at once, without TensorFlow.
    from training.config import load_config

    config = load_config(arguments.config, arguments.set)

    from biam_tf.runs import RunPaths
    from training.data.registry import require_directory

    if not RunPaths(pathlib.Path(config.output)).metrics.exists():
        require_directory(config.data)

    from training.loop.stopping import terminating_cleanly

    with terminating_cleanly():
        if arguments.dry_run:
            require_one_process(config, "a dry run")

            from training.dry_run.measurement import dry_run

            return 0 if dry_run(config) else 1

        from training.pipeline.whole_run import run

        run(config, arguments.profile, next_commands=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
