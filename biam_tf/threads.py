"""Work in threads: results that are taken in order, and the CPUs there are for them."""

import collections
import concurrent.futures
import os
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


def usable_cpus() -> int:
    """Returns the number of CPUs that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def in_order(
    function: Callable[[In], Out], values: Iterable[In], threads: int, ahead: int
) -> Iterator[Out]:
    """Yields `function(value)` of values in their order, a few of which are computed ahead.

    Unlike `Executor.map`, it takes values as they are needed, and drops the others on an error.

    Args:
        function: called in threads.
        values: its arguments.
        threads: number of threads.
        ahead: largest number of results that are computed or wait to be taken.
    """
    waiting: collections.deque[concurrent.futures.Future[Out]] = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        try:
            for value in values:
                waiting.append(pool.submit(function, value))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
