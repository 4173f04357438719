"""Progress lines that read well both in a terminal and in a log file."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TextIO

from tqdm import tqdm

LOG_INTERVAL_SECONDS = 10.0
LOG_FORMAT = "{desc}: {n_fmt}/{total_fmt} ({percentage:.0f}%) {rate_fmt}, {remaining} left{postfix}"


def progress(
    total: int,
    label: str,
    unit: str,
    initial: int = 0,
    stream: TextIO | None = None,
    interval: float = LOG_INTERVAL_SECONDS,
    summed_up: bool = False,
) -> tqdm:
    """Returns a `tqdm` bar that rewrites one line in a terminal and adds few lines to a log file.

    Use it as a context manager; `update(n)` counts, `set_postfix_str("loss 0.31")` adds a text.

    Args:
        total: number of units.
        label: start of the line.
        unit: name of a unit, such as "photo".
        initial: units that were done before, when a run is resumed.
        stream: to write to; None: standard error.
        interval: seconds between two lines if `stream` is not a terminal.
        summed_up: whether the caller writes a line about the work when it is done, as about an
            epoch: a log file then gets lines of work that takes longer than `interval` alone.
    """
    stream = stream or sys.stderr
    unit = f" {unit}"
    if stream.isatty():
        return tqdm(
            total=total, desc=label, unit=unit, initial=initial, file=stream, dynamic_ncols=True
        )
    return tqdm(
        total=total,
        desc=label,
        unit=unit,
        initial=initial,
        file=_Lines(stream, interval if summed_up else 0.0),
        bar_format=LOG_FORMAT,
        mininterval=interval,
        miniters=1,
    )


@contextlib.contextmanager
def progress_of_total(label: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Yields a function of (units done, units in all), whose first call shows the line.

    It is for work that may turn out to be done already: without a call, no line is shown.
    """
    bars: list[tqdm] = []

    def working(done: int, total: int) -> None:
        if not bars:
            bars.append(progress(total, label, unit))
        bars[0].update(done - bars[0].n)

    yield working
    for bar in bars:
        bar.close()


class _Lines:
    """Writes every state of tqdm's line, which it rewrites with carriage returns, as a line.

    A log file would otherwise have one endless line, and `tail -f` would show nothing.
    """

    def __init__(self, stream: TextIO, quiet_seconds: float = 0.0) -> None:
        self._stream = stream
        self._shown = ""
        # Neither the start nor the end of short work is a line.
        self._quiet_seconds = quiet_seconds
        self._written_at = time.monotonic()

    def write(self, text: str) -> None:
        line = text.strip()
        # At its end a bar shows its last state again, with another rate.
        state = line.partition(")")[0] + line.partition(" left")[2]
        now = time.monotonic()
        if line and state != self._shown and now - self._written_at >= self._quiet_seconds:
            self._stream.write(line + "\n")
            self._shown, self._written_at = state, now

    def flush(self) -> None:
        self._stream.flush()
