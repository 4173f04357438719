"""Options and checks that the commands of training share."""

import argparse
from typing import TYPE_CHECKING

from biam_tf.command_line import run_command
from biam_tf.errors import UserError

if TYPE_CHECKING:  # --help answers at once, without NumPy
    from training.config import RunConfig

__all__ = ["add_config_arguments", "require_one_process", "run_command"]


def add_config_arguments(
    parser: argparse.ArgumentParser,
    config: str = "YAML settings of the run: a file, or the name of one that comes with the "
    "project, such as recommended or corel5k (default: the quickstart's)",
    override: str = "replace one setting, e.g. training.epochs=5; may be given many times",
) -> None:
    """Adds the options `--config FILE` and `--set KEY=VALUE`.

    Args:
        parser: of the command.
        config: help text of `--config`.
        override: help text of `--set`.
    """
    parser.add_argument("--config", metavar="FILE|NAME", help=config)
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help=override,
    )


def require_one_process(config: "RunConfig", command: str) -> None:
    """Raises a UserError if a command that works in one process is given `multi_worker`."""
    if config.strategy == "multi_worker":
        raise UserError(
            f"strategy: multi_worker: {command} works in one process; give it "
            "--set strategy=mirrored (all devices of this machine) or --set strategy=default"
        )
