"""Timing: compared functions run in turns; peak memory is measured in separate processes."""

import json
import multiprocessing
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from biam_tf.errors import UserError


def in_turns(functions: Mapping[str, Callable], rounds: int) -> dict[str, list[float]]:
    """Returns the seconds of every call, after one unmeasured call of each function.

    Args:
        functions: Functions to compare, by name. Each returns when its work is done.
        rounds: Number of calls of each, in the order A B A B ..., so that changes of the machine's
            speed affect all functions equally.
    """
    for function in functions.values():
        function()
    seconds = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - start)
    return seconds


class RemoteObject:
    """An object in its own process, so that two compared objects share no threads or memory.

    A context manager; use `call` to call the methods of the object.

    Args:
        make: Function that creates the object in the process; must be importable.
        *args: Arguments of the function.
        **kwargs: Keyword arguments of the function.
    """

    def __init__(self, make: Callable, *args, **kwargs):
        self._name = getattr(make, "__name__", str(make))
        context = multiprocessing.get_context("spawn")
        self._here, there = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(there, make, args, kwargs), daemon=True
        )
        self._process.start()
        there.close()

    def __enter__(self) -> "RemoteObject":
        """Waits until the object exists and returns this."""
        self._receive()
        return self

    def __exit__(self, *_) -> None:
        """Stops the process."""
        self._here.close()
        self._process.join()

    def call(self, method: str, *args):
        """Calls a method of the object and returns its result."""
        self._here.send((method, args))
        return self._receive()

    def _receive(self):
        try:
            return self._here.recv()
        except EOFError as error:
            self._process.join()
            raise UserError(
                f"the process of {self._name}: {ending(self._process.exitcode or 0)}; what it said "
                "is above"
            ) from error


def _serve(connection, make: Callable, args, kwargs) -> None:
    made = make(*args, **kwargs)
    connection.send(None)
    while True:
        try:
            method, arguments = connection.recv()
        except EOFError:
            return
        connection.send(getattr(made, method)(*arguments))


def ratios(slower: Sequence[float], faster: Sequence[float]) -> str:
    """Returns the ratios of all rounds as text: the median and, in brackets, the range."""
    each = [slow / fast for slow, fast in zip(slower, faster, strict=True)]
    return f"{statistics.median(each):.2f} ({min(each):.2f}-{max(each):.2f})"


class Stopwatch:
    """Measures the seconds of named laps; starts when it is created."""

    def __init__(self):
        self.laps: dict[str, float] = {}
        self.skip()

    def lap(self, name: str) -> None:
        """Records the seconds since the last lap and starts the next one."""
        self.laps[name] = time.perf_counter() - self._since
        self.skip()

    def skip(self) -> None:
        """Starts the next lap without recording."""
        self._since = time.perf_counter()


def seconds_and_range(seconds: Sequence[float]) -> str:
    """Returns the median in seconds and, in brackets, the range, as text."""
    return f"{statistics.median(seconds):.2f} s ({min(seconds):.2f}-{max(seconds):.2f})"


def milliseconds(seconds: Sequence[float]) -> str:
    """Returns the median in milliseconds as text."""
    median = 1e3 * statistics.median(seconds)
    return f"{median:.0f} ms" if median >= 100 else f"{median:.3g} ms"


def ending(status: int) -> str:
    """Returns how a process ended, in words: its exit status, or the signal that ended it."""
    if status >= 0:
        return f"exit status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"ended by {name}"


def in_own_process(
    module: str,
    arguments: Sequence[str],
    memory_limit: int | None = None,
    seconds: float | None = None,
    keras_backend: str | None = None,
) -> dict:
    """Runs `python -m MODULE ARGUMENTS` and returns the JSON object of its last line.

    Args:
        module: Module of the command.
        arguments: Arguments of the command.
        memory_limit: Address space of the process in bytes; None for no limit.
        seconds: Time after which it is ended; None for no limit.
        keras_backend: Backend of Keras in the process; None for the one that is set.

    Raises:
        UserError: The process failed; the message contains the end of its standard error.
    """
    command = [sys.executable, "-m", module, *arguments]
    if memory_limit is not None:
        command = ["prlimit", f"--as={memory_limit}", *command]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    if keras_backend is not None:
        environment["KERAS_BACKEND"] = keras_backend
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=seconds
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(f"{' '.join(command)}: did not end within {seconds:.0f} s") from error
    if done.returncode:
        raise UserError(f"{' '.join(command)}: {ending(done.returncode)}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])
