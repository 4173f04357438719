"""Ctrl-C and SIGTERM: how a run is stopped without losing work, and its exit status."""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

from biam_tf.errors import TemporaryFailure


class Terminated(TemporaryFailure):
    """SIGTERM ended the work, as when a preemptible machine is taken away."""

    exit_status = 75  # EX_TEMPFAIL: try again later


class StopRequest:
    """Whether, and by which signal, this process was asked to stop."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    def error(self) -> BaseException:
        """Returns what to raise once everything is saved."""
        if self.signal == signal.SIGINT:
            return KeyboardInterrupt(
                "stopped by Ctrl-C; the work is saved: run the same command to continue"
            )
        asked = "SIGTERM" if self else "another worker"
        return Terminated(f"stopped by {asked}; run the same command to continue")


@contextlib.contextmanager
def terminating_cleanly() -> Iterator[None]:
    """Makes SIGTERM raise `Terminated`, so that files and locks are released as at Ctrl-C.

    A Ctrl-C says, too, that the same command continues.
    """

    def terminate(number: int, frame: FrameType | None) -> None:
        raise Terminated(
            "stopped by SIGTERM; run the same command to keep what is done and continue"
        )

    with _handling([signal.SIGTERM], terminate):
        try:
            yield
        except KeyboardInterrupt as error:
            raise KeyboardInterrupt(
                str(error)
                or "stopped by Ctrl-C; run the same command to keep what is done and continue"
            ) from None


@contextlib.contextmanager
def stopping_between_steps() -> Iterator[StopRequest]:
    """Yields a request that Ctrl-C or SIGTERM sets, for the training loop to check.

    A second signal has its usual effect at once.
    """
    request = StopRequest()

    def ask(number: int, frame: FrameType | None) -> None:
        request.signal = number
        signal.signal(number, previous[number])
        if number == signal.SIGINT:
            _say("\nstopping after this step, which is saved; Ctrl-C again stops at once\n")

    with _handling([signal.SIGINT, signal.SIGTERM], ask) as previous:
        yield request


def _say(text: str) -> None:
    """Writes to standard error from a signal handler, which may have interrupted a print."""
    with contextlib.suppress(OSError, ValueError):  # it is no file, or closed
        os.write(sys.stderr.fileno(), text.encode())


@contextlib.contextmanager
def _handling(
    numbers: Sequence[int], handler: Callable[[int, FrameType | None], None]
) -> Iterator[dict[int, Any]]:
    previous = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield previous
    finally:
        for number, before in previous.items():
            signal.signal(number, before)
