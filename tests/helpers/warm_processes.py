"""Commands in processes of their own that need not import TensorFlow first.

A server process imports the packages once, runs no operation and forks for each command
(`multiprocessing`'s forkserver). The command has its own process, environment, streams, signals and
exit status; only the start of Python and the imports, about five seconds, are left out.
"""

import importlib
import multiprocessing
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from typing import TextIO

from graph_optimizer import optimize_graphs

PRELOADED = ["training.pipeline.whole_run"]


class WarmProcess:
    """`python -m MODULE ARGUMENTS`, with the interface of `subprocess.Popen` that tests use.

    Attributes:
        stdout: what it prints, as a text file.
        errors: the lines of its standard error so far, read all the time, so that it never waits
            for that.
    """

    def __init__(
        self, module: str, arguments: Sequence[object], environment: Mapping[str, str] | None = None
    ):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        pipes = [context.Pipe(duplex=False) for _ in range(2)]
        given = [str(argument) for argument in arguments]
        writers = [writer for _, writer in pipes]
        command = (module, given, dict(environment or {}), os.getcwd(), *writers)
        # Daemons end with this process, if a test that failed has left them.
        self._process = context.Process(target=_run, args=command, daemon=True)
        self._process.start()
        for writer in writers:
            writer.close()
        self.stdout, stderr = (os.fdopen(os.dup(reader.fileno())) for reader, _ in pipes)
        self.errors: list[str] = []
        self._reader = threading.Thread(target=_read_all, args=(stderr, self.errors), daemon=True)
        self._reader.start()

    @property
    def returncode(self) -> int | None:
        """The exit status, or minus the number of the signal that ended it; None: it runs."""
        return self._process.exitcode

    def kill(self) -> None:
        self._process.kill()

    def terminate(self) -> None:
        self._process.terminate()

    def communicate(self) -> tuple[str, str]:
        """Returns the rest of what it prints, and all its errors, when it has ended."""
        with self.stdout:
            output = self.stdout.read()
        self._reader.join()
        self._process.join()
        return output, "".join(self.errors)


def run(module: str, *arguments: object) -> str:
    """Runs a command that must succeed; returns what it prints."""
    process = WarmProcess(module, arguments)
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    return output


def _read_all(stream: TextIO, lines: list[str]) -> None:
    with stream:
        lines.extend(stream)


def _run(
    module: str,
    arguments: list[str],
    environment: dict[str, str],
    folder: str,
    stdout: Connection,
    stderr: Connection,
) -> None:
    for stream, connection in ((1, stdout), (2, stderr)):
        os.dup2(connection.fileno(), stream)
        connection.close()
    # The server's own were made for other files.
    sys.stdout = open(1, "w", closefd=False)
    sys.stderr = open(2, "w", buffering=1, closefd=False)
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = [module, *arguments]
    optimize_graphs(False)  # as in the process of the tests, for equal sums
    sys.exit(importlib.import_module(module).main(arguments))
