"""Runs a command line; a user's mistake becomes one clear message."""

import argparse
import errno
import io
import os
import pathlib
import re
import shlex
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from biam_tf.errors import TemporaryFailure, UserError, nearest_names
from biam_tf.library_messages import quiet_libraries

USER_ERROR = 2
INTERRUPTED = 130
STOPPED = "stopped by Ctrl-C"
CONTINUE = "; what is done is kept: run the same command to continue"
# Errors of the operating system about paths and disks that a user can do something about.
_UNUSABLE = frozenset(
    (
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EEXIST,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.ENAMETOOLONG,
    )
)


def run_command(
    parser: argparse.ArgumentParser,
    command: Callable[[argparse.Namespace], int | None],
    argv: Sequence[str] | None = None,
    resumable: bool = False,
) -> int:
    r"""Parses `argv`, runs `command` and returns the exit status of the process.

    A `UserError` is printed to standard error and gives status 2; so is a file or folder that must
    not be written, a full disk, and a file where a folder should be. A `TemporaryFailure` is
    printed and gives its own status, Ctrl-C gives status 130. All other exceptions are bugs or
    broken machines and keep their traceback. Options cannot be abbreviated: an abbreviation could
    become ambiguous when options are added.

    Messages of libraries are held back (`quiet_libraries`). The option `--debug`, added here, shows
    them, and the traceback of every error.

    What the terminal cannot show is printed as `\xe9` or `\U0001f600`. Arguments that
    begin with `~` or `~user` are paths in that home folder.

    Args:
        parser: of the command's own options.
        command: called with the parsed arguments; returns the exit status, None for 0.
        argv: arguments; None: those of the process.
        resumable: whether the same command continues after Ctrl-C, which then says so. Defaults to
            `False`.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    parser.allow_abbrev = False
    _name_as_started(parser)
    parser.add_argument(
        "--debug",
        action="store_true",
        help="show the traceback of an error and all messages of libraries",
    )
    argv = list(sys.argv[1:] if argv is None else argv)
    _refuse_unknown_options(parser, argv)
    arguments = parser.parse_args(argv)
    for name, value in vars(arguments).items():
        setattr(arguments, name, _with_home(value))
    try:
        return _run_quietly(command, arguments)
    except UserError as error:
        if arguments.debug:
            traceback.print_exc()
        else:
            print(f"error: {_as_started(str(error))}", file=sys.stderr)
        return USER_ERROR
    except OSError as error:
        if arguments.debug or error.errno not in _UNUSABLE:
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(
            f"error: {where}{error.strerror}; give another path, or allow writing there",
            file=sys.stderr,
        )
        return USER_ERROR
    except TemporaryFailure as error:
        if arguments.debug:
            traceback.print_exc()
        print(error, file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt as error:
        if arguments.debug:
            traceback.print_exc()
        print(str(error) or (STOPPED + CONTINUE if resumable else STOPPED), file=sys.stderr)
        return INTERRUPTED


def _refuse_unknown_options(parser: argparse.ArgumentParser, argv: Sequence[str]) -> None:
    """Exits with one line that names an unknown option and the nearest one.

    `argparse` prints all options, and a missing argument before a misspelled option.
    """
    known = {*_options(parser)}
    for argument in argv:
        if argument == "--":  # what follows are no options
            break
        option = argument.partition("=")[0]
        # As in argparse, a text with a space is a value.
        if option.startswith("--") and " " not in argument and option not in known:
            nearest = nearest_names(option, known, count=1)
            hint = f"did you mean {nearest[0]}?" if nearest else "--help shows its options"
            print(f"error: {parser.prog} has no option {option}; {hint}", file=sys.stderr)
            raise SystemExit(USER_ERROR)


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for subparser in action.choices.values():
                yield from _options(subparser)


# Subcommand of `biam` by module, if the process was started as `biam`.
_subcommands: dict[str, str] = {}


def start_as(commands: Mapping[str, str]) -> None:
    """Makes help texts, errors and commands to paste say `biam NAME`, as the user started it.

    Args:
        commands: module by name of the subcommand.
    """
    _subcommands.update({module: name for name, module in commands.items()})


def _as_started(text: str) -> str:
    """Returns `text` with `python -m MODULE` as `biam NAME` if the process was started so."""
    return re.sub(r"python -m ([\w.]*\w)", lambda found: _started_name(found[1], found[0]), text)


def _started_name(module: str, otherwise: str) -> str:
    name = _subcommands.get(module) or _subcommands.get(f"{module}.__main__")
    return f"biam {name}" if name else otherwise


def _name_as_started(parser: argparse.ArgumentParser) -> None:
    parser.prog = _as_started(parser.prog)
    parser.description = parser.description and _as_started(parser.description)
    parser.epilog = parser.epilog and _as_started(parser.epilog)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for subparser in action.choices.values():
                _name_as_started(subparser)
        elif action.help:
            action.help = _as_started(action.help)


def command_to_paste(module: str, *arguments: str | os.PathLike) -> str:
    """Returns a command line for a shell in this folder that runs in this environment.

    Args:
        module: of the command, such as `training.evaluate`.
        arguments: of the command; quoted where the shell needs it.
    """
    words = [_program(sys.executable or "python", "python"), "-m", module]
    biam = pathlib.Path(sys.argv[0])
    if module in _subcommands and biam.stem == "biam":
        words = [_program(str(biam), "biam"), _subcommands[module]]
    return shlex.join([*words, *map(str, arguments)])


def _program(path: str, name: str) -> str:
    """Returns the shortest way to write the program at `path` in a shell in this folder."""
    if shutil.which(name) == path:  # the environment is activated
        return name
    is_below = pathlib.Path(path).is_relative_to(pathlib.Path.cwd())
    return os.path.relpath(path) if is_below else path


def until_stopped() -> Callable[[], None]:
    """Returns a function that waits for Ctrl-C or SIGTERM, which end no process from now on.

    A signal that comes before the function is called ends its waiting, too.
    """
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())

    def wait() -> None:
        # Any thread may receive a signal, but the main thread handles it, and a wait without a time
        # limit would not end for that.
        while not stopped.wait(1.0):
            pass

    return wait


def _run_quietly(
    command: Callable[[argparse.Namespace], int | None], arguments: argparse.Namespace
) -> int:
    """Runs a command without the messages of libraries, which only other errors bring back."""
    with quiet_libraries(is_quiet=not arguments.debug):
        try:
            return command(arguments) or 0
        except (UserError, TemporaryFailure, OSError, KeyboardInterrupt) as error:
            expected = error
    raise expected


def _with_home(value: Any) -> Any:
    """Returns an argument with `~` or `~user` at its beginning replaced by that home folder."""
    if isinstance(value, (str, pathlib.Path)):
        return type(value)(os.path.expanduser(value))
    return [_with_home(member) for member in value] if isinstance(value, list) else value
