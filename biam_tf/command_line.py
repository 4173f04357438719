"""Runs a command line; a user's mistake becomes one clear message."""

import argparse
import sys
import traceback
from collections.abc import Callable, Sequence

from biam_tf.errors import TemporaryFailure, UserError

USER_ERROR = 2
INTERRUPTED = 130


def run_command(
    parser: argparse.ArgumentParser,
    command: Callable[[argparse.Namespace], int | None],
    argv: Sequence[str] | None = None,
) -> int:
    """Parses `argv`, runs `command` and returns the exit status of the process.

    A `UserError` is printed to standard error and gives status 2, a `TemporaryFailure` is printed
    and gives its own status, Ctrl-C gives status 130. The option `--debug`, added here, shows the
    traceback. All other exceptions are bugs or broken machines and keep their traceback. Options
    cannot be abbreviated: an abbreviation could become ambiguous when options are added.

    Args:
        parser: of the command's own options.
        command: called with the parsed arguments; returns the exit status, None for 0.
        argv: arguments; None: those of the process.
    """
    parser.allow_abbrev = False
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    arguments = parser.parse_args(argv)
    try:
        return command(arguments) or 0
    except UserError as error:
        if arguments.debug:
            traceback.print_exc()
        else:
            print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    except TemporaryFailure as error:
        if arguments.debug:
            traceback.print_exc()
        print(error, file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        if arguments.debug:
            traceback.print_exc()
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
