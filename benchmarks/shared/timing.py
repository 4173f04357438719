"""Fair timings: what is compared runs in turns, in one run; peaks of memory in own processes."""

import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from biam_tf.errors import UserError


def in_turns(functions: Mapping[str, Callable], rounds: int) -> dict[str, list[float]]:
    """Returns the seconds of every call; each function is called once before, unmeasured.

    Args:
        functions: what is compared, by name. Each returns when its work is done.
        rounds: calls of each, A B A B ..., so that a drift of the machine meets all alike.
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


class Elsewhere:
    """An object in a process of its own, so that two sides share no threads and no memory.

    A context manager; its methods are called with `call`.

    Args:
        make: function that makes it there; found by its module and name.
        *args: of the function.
        **kwargs: of the function.
    """

    def __init__(self, make: Callable, *args, **kwargs):
        context = multiprocessing.get_context("spawn")
        self._here, there = context.Pipe()
        self._process = context.Process(
            target=_answer, args=(there, make, args, kwargs), daemon=True
        )
        self._process.start()
        there.close()

    def __enter__(self) -> "Elsewhere":
        """Returns itself, when the object is made."""
        self._receive()
        return self

    def __exit__(self, *_) -> None:
        """Ends the process."""
        self._here.close()
        self._process.join()

    def call(self, method: str, *args):
        """Calls a method there and returns what it returns."""
        self._here.send((method, args))
        return self._receive()

    def _receive(self):
        try:
            return self._here.recv()
        except EOFError as error:
            raise UserError("a process of the benchmark ended; its error stands above") from error


def _answer(connection, make: Callable, args, kwargs) -> None:
    made = make(*args, **kwargs)
    connection.send(None)
    while True:
        try:
            method, arguments = connection.recv()
        except EOFError:
            return
        connection.send(getattr(made, method)(*arguments))


def ratios(slower: Sequence[float], faster: Sequence[float]) -> str:
    """Returns how many times faster, round by round: the median and, in brackets, the range."""
    each = [slow / fast for slow, fast in zip(slower, faster, strict=True)]
    return f"{statistics.median(each):.2f} ({min(each):.2f}-{max(each):.2f})"


class Stopwatch:
    """The seconds between one lap and the next, by name; runs from when it is made."""

    def __init__(self):
        self.laps: dict[str, float] = {}
        self.skip()

    def lap(self, name: str) -> None:
        """Notes the seconds since the lap before."""
        self.laps[name] = time.perf_counter() - self._since
        self.skip()

    def skip(self) -> None:
        """Starts the next lap from now."""
        self._since = time.perf_counter()


def seconds_and_range(seconds: Sequence[float]) -> str:
    """Returns the median and, in brackets, the range, as seconds."""
    return f"{statistics.median(seconds):.2f} s ({min(seconds):.2f}-{max(seconds):.2f})"


def milliseconds(seconds: Sequence[float]) -> str:
    """Returns the median of some seconds, as milliseconds."""
    median = 1e3 * statistics.median(seconds)
    return f"{median:.0f} ms" if median >= 100 else f"{median:.3g} ms"


def in_own_process(module: str, arguments: Sequence[str], memory_limit: int | None = None) -> dict:
    """Runs `python -m MODULE ARGUMENTS` and returns the JSON object of its last line.

    Args:
        module: with the command.
        arguments: of the command.
        memory_limit: bytes of address space it may take; `None` for no limit.

    Raises:
        UserError: it did not end well; the message has the end of what it wrote.
    """
    command = [sys.executable, "-m", module, *arguments]
    if memory_limit is not None:
        command = ["prlimit", f"--as={memory_limit}", *command]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    )
    if done.returncode:
        raise UserError(
            f"{' '.join(command)} ended with status {done.returncode}:\n{done.stderr[-2000:]}"
        )
    return json.loads(done.stdout.splitlines()[-1])
