"""Work on large matrices in blocks, on all CPUs: slices of rows or columns, and threads for them.

NumPy lets other threads run while it sorts, compares, adds and copies.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from biam_tf.metrics.stored_scores import Scores, StoredScores

Result = TypeVar("Result")

# What evaluation takes beyond scores and labels, on all CPUs together, where at most half of the
# labels are positive; up to three times as much where all are.
WORKING_MEMORY = 200 * 2**20
# Numbers worked on at a time: scores, copies of them, precisions in 8 bytes, labels, and the places
# of positives. A block has one class or one image at least.
NUMBERS = WORKING_MEMORY // 48
# With more of them, four classes of Open Images' 125,456 test photos would be no block any more.
_MOST_THREADS = 8


def threads() -> int:
    """Returns how many threads work: one for each CPU this process may use, up to a limit."""
    affinity = getattr(os, "sched_getaffinity", None)
    return min(_MOST_THREADS, len(affinity(0)) if affinity else os.cpu_count() or 1)


def column_blocks(shape: tuple[int, int], numbers: int) -> Iterator[slice]:
    """Cuts the columns of a matrix so that all threads together work on about `numbers` of it."""
    return _slices(shape[1], numbers // threads() // max(1, shape[0]))


def row_blocks(scores: Scores, numbers: int) -> Iterator[slice]:
    """Cuts the rows likewise; rows in a file as they are read together."""
    if isinstance(scores, StoredScores):
        return _slices(len(scores), scores.tile)
    return _slices(len(scores), numbers // threads() // max(1, scores.shape[1]))


def in_threads(function: Callable[[slice], Result], blocks: Iterable[slice]) -> list[Result]:
    """Returns what the function gives for each block, in their order."""
    blocks = list(blocks)
    if len(blocks) < 2:
        return [function(block) for block in blocks]
    with ThreadPoolExecutor(threads()) as pool:
        return list(pool.map(function, blocks))


def _slices(length: int, size: int) -> Iterator[slice]:
    size = max(1, size)
    return (slice(start, min(start + size, length)) for start in range(0, length, size))
