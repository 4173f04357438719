"""Work on slices of a large matrix, rows or columns, in threads on all CPUs.

NumPy lets other threads run while it sorts, compares, adds and copies.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from biam_tf.metrics.stored_scores import Scores, StoredScores, tile_of
from biam_tf.threads import usable_cpus

Result = TypeVar("Result")

# Bytes that evaluation takes beyond scores and labels, on all CPUs together, if at most half of the
# labels are positive; up to three times as much if all are.
WORKING_MEMORY = 200 * 2**20
# Scores processed at a time, at 48 bytes each: copies of them, precisions in 8 bytes, labels, and
# the ranks of positives. A block has at least one class or one image.
BLOCK_SIZE = WORKING_MEMORY // 48
# With more threads, a block would be fewer than four classes of Open Images' 125,456 test photos.
_MAX_THREADS = 8


def threads() -> int:
    """Returns the number of threads: one for each CPU this process may use, up to a limit."""
    return min(_MAX_THREADS, usable_cpus())


def column_blocks(shape: tuple[int, ...], block_size: int | None = None) -> Iterator[slice]:
    """Yields slices of the columns, so that all threads together have `block_size` scores.

    Args:
        shape: of the matrix.
        block_size: about; None: `BLOCK_SIZE`.
    """
    return _slices(shape[1], (block_size or BLOCK_SIZE) // threads() // max(1, shape[0]))


def row_blocks(scores: Scores, block_size: int | None = None) -> Iterator[slice]:
    """Yields slices of the rows likewise; of scores in a file, the rows that are read together."""
    if isinstance(scores, StoredScores):
        return _slices(len(scores), scores.tile)
    return _slices(len(scores), (block_size or BLOCK_SIZE) // threads() // max(1, scores.shape[1]))


def tiles(scores: Scores) -> Iterator[slice]:
    """Yields slices of the rows that are the same for scores in memory and in a file.

    Sums over them are equal to the last bit.
    """
    return _slices(len(scores), tile_of(*scores.shape))


def in_threads(function: Callable[[slice], Result], blocks: Iterable[slice]) -> list[Result]:
    """Returns the results of the function for all blocks, in their order."""
    blocks = list(blocks)
    if len(blocks) < 2:
        return [function(block) for block in blocks]
    with ThreadPoolExecutor(threads()) as pool:
        return list(pool.map(function, blocks))


def _slices(length: int, size: int) -> Iterator[slice]:
    size = max(1, size)
    return (slice(start, min(start + size, length)) for start in range(0, length, size))
