"""A line that says how far long work has come, in a terminal and in a log file alike."""

import contextlib
import sys
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
) -> tqdm:
    """Returns a `tqdm` bar that rewrites one line in a terminal and writes few lines elsewhere.

    Use it as a context manager; `update(n)` counts, `set_postfix_str("loss 0.31")` adds a text.

    Args:
        total: how many units there are in all.
        label: what is being done, at the start of the line.
        unit: what is counted, such as "photo"; the rate is given in it.
        initial: units that were done before, by a run that is being resumed.
        stream: where to write; None is standard error.
        interval: seconds between two lines where `stream` is not a terminal.
    """
    stream = stream or sys.stderr
    settings = {"total": total, "desc": label, "unit": f" {unit}", "initial": initial}
    if stream.isatty():
        return tqdm(**settings, file=stream, dynamic_ncols=True)
    return tqdm(
        **settings,
        file=_Lines(stream),
        bar_format=LOG_FORMAT,
        mininterval=interval,
        miniters=1,
    )


@contextlib.contextmanager
def progress_of_total(label: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Gives a function of (units done, units in all), whose first call begins the line.

    For work that may turn out to be done already: no line is shown where nothing is called.
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
    """Turns the rewriting of one line, which tqdm does with carriage returns, into lines.

    A log file would otherwise hold one endless line, and `tail -f` would show none of it.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> None:
        line = text.strip()
        if line:
            self._stream.write(line + "\n")

    def flush(self) -> None:
        self._stream.flush()
