"""What every command line here shares: one clear message for the user's mistakes."""

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

    A `UserError` becomes its message on standard error and status 2, a `TemporaryFailure` its
    message and its own status, Ctrl-C becomes status 130. With `--debug` (added here) they show
    the traceback. Everything else is a bug or a
    broken machine and keeps its traceback. Options are not abbreviated: what stands for one of
    them today might stand for another when the command has more.
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
