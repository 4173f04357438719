"""Scores of a split too large for memory: a matrix that lies in a temporary file.

Open Images' test set has 125,456 photos and 7,586 classes: 3.8 GB of scores. They come photo by
photo, average precision reads them class by class and F1@K photo by photo again. The file
therefore holds tiles of some photos and all classes, in each the classes one after the other: a
few classes are one piece of every tile, some photos are a tile. Nothing is mapped into memory; what
is read is what is asked for.
"""

import contextlib
import errno
import math
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator

import numpy as np

from biam_tf.errors import UserError

# Larger matrices are kept in a file.
IN_MEMORY = 2**30
# Numbers of a tile: 8 MB of float32.
_TILE = 2_000_000
# Photos transposed at a time: their part of a block of classes stays in the cache.
_STRIP = 256


class StoredScores:
    """Scores (N, C), float32, in a file that goes when this object does.

    Rows are appended until there are N of them. Then `scores[i:j]` gives rows, `scores[:, c]`
    and `scores[:, i:j]` columns, all as arrays.

    Attributes:
        shape: (N, C).
        tile: how many rows are read and written together.
        nans: how many scores are NaN.
    """

    ndim = 2
    dtype = np.dtype(np.float32)

    def __init__(self, images: int, classes: int):
        """Opens an empty file in the folder for temporary files (`TMPDIR`).

        Raises:
            UserError: the folder has no room for the scores, or cannot be written to.
        """
        self.shape = (images, classes)
        self.tile = max(1, min(images, _TILE // max(1, classes)))
        self.nans = 0
        self._stored = self._waiting = 0
        self._buffer = np.empty((self.tile, classes), self.dtype)
        with _naming_the_folder(self.nbytes):
            free = shutil.disk_usage(tempfile.gettempdir()).free
            if free < self.nbytes:
                raise OSError(errno.ENOSPC, f"{free / 1e9:.1f} GB are free")
            self._file = tempfile.TemporaryFile(prefix="scores-")

    @property
    def nbytes(self) -> int:
        """The bytes of all scores."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def size(self) -> int:
        """The number of all scores."""
        return math.prod(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def append(self, scores) -> None:
        """Appends rows (n, C), float16 or float32.

        Raises:
            ValueError: they are of another number of classes, more than N in all, or numbers that
                float32 does not hold.
            UserError: the file cannot be written, for want of room.
        """
        scores = np.asarray(scores)
        if scores.ndim != 2 or scores.shape[1] != self.shape[1]:
            raise ValueError(f"scores {scores.shape} don't fit: expected (n, {self.shape[1]})")
        if not np.can_cast(scores.dtype, self.dtype):
            raise ValueError(f"scores are kept as float32, which does not hold {scores.dtype}")
        there = self._stored + self._waiting
        if there + len(scores) > len(self):
            raise ValueError(
                f"{there + len(scores)} rows of scores, but {len(self)} were announced"
            )
        self.nans += int(np.isnan(scores).sum())
        while len(scores):
            expected = min(self.tile, len(self) - self._stored)
            taken = scores[: expected - self._waiting]
            self._buffer[self._waiting : self._waiting + len(taken)] = taken
            self._waiting += len(taken)
            scores = scores[len(taken) :]
            if self._waiting == expected:
                self._write_tile()

    def __getitem__(self, key) -> np.ndarray:
        if self._stored < len(self):
            there = self._stored + self._waiting
            raise ValueError(f"only {there} of {len(self)} rows of scores are there yet")
        if isinstance(key, slice):
            return self._rows(*_bounds(key, len(self)))
        if isinstance(key, tuple) and len(key) == 2 and key[0] == slice(None):
            columns = key[1]
            if isinstance(columns, slice):
                return self._columns(*_bounds(columns, self.shape[1])).T
            if isinstance(columns, (int, np.integer)):
                c = int(columns) + (self.shape[1] if columns < 0 else 0)
                if not 0 <= c < self.shape[1]:
                    raise IndexError(f"column {columns} of {self.shape[1]}")
                return self._columns(c, c + 1)[0]
        raise TypeError(
            "scores in a file are read by scores[i:j], scores[:, c] or scores[:, i:j], "
            f"not by {key!r}"
        )

    def __array__(self, dtype=None, copy=None):
        raise TypeError(
            f"{self.nbytes / 1e9:.1f} GB of scores are in a file because they are not to be in "
            "memory at once; read rows or columns of them"
        )

    def _write_tile(self) -> None:
        tile = by_class(self._buffer[: self._waiting])
        with _naming_the_folder(self.nbytes):
            self._file.write(memoryview(tile).cast("B"))
            self._file.flush()
        self._stored += self._waiting
        self._waiting = 0
        if self._stored == len(self):
            self._buffer = None

    def _rows(self, start: int, stop: int) -> np.ndarray:
        result = np.empty((stop - start, self.shape[1]), self.dtype)
        for first, rows in self._tiles(start, stop):
            tile = np.empty((self.shape[1], rows), self.dtype)
            self._read(tile, first, rows, 0)
            low, high = max(start, first), min(stop, first + rows)
            result[low - start : high - start] = tile[:, low - first : high - first].T
        return result

    def _columns(self, start: int, stop: int) -> np.ndarray:
        """Returns (stop - start, N)."""
        result = np.empty((stop - start, len(self)), self.dtype)
        for first, rows in self._tiles(0, len(self)):
            piece = np.empty((stop - start, rows), self.dtype)
            self._read(piece, first, rows, start)
            result[:, first : first + rows] = piece
        return result

    def _tiles(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """The first row and the number of rows of each tile that has rows start to stop."""
        for first in range(start // self.tile * self.tile, stop, self.tile):
            yield first, min(self.tile, len(self) - first)

    def _read(self, into: np.ndarray, first: int, rows: int, column: int) -> None:
        if not into.size:
            return
        place = (first * self.shape[1] + column * rows) * self.dtype.itemsize
        view = memoryview(into).cast("B")
        while view:
            # By place, not by the file's position: several threads read.
            count = os.preadv(self._file.fileno(), [view], place)
            if not count:
                raise OSError("the temporary file of scores ended early")
            view, place = view[count:], place + count


Scores = np.ndarray | StoredScores


def collect_scores(batches: Iterable[np.ndarray], images: int, classes: int) -> Scores:
    """Returns the rows of all batches as one matrix, float32, in memory or (if large) in a file.

    Args:
        batches: (n, C) each, N rows in all.
        images: N.
        classes: C.

    Raises:
        ValueError: they have other shapes.
        UserError: there is no room for the file.
    """
    if 4 * images * classes > IN_MEMORY:
        stored = StoredScores(images, classes)
        for batch in batches:
            stored.append(batch)
        return stored
    scores, there = np.empty((images, classes), np.float32), 0
    for batch in batches:
        if there + len(batch) > images:
            raise ValueError(f"{there + len(batch)} rows of scores, but {images} were announced")
        scores[there : there + len(batch)] = batch
        there += len(batch)
    if there < images:
        raise ValueError(f"{there} rows of scores, but {images} were announced")
    return scores


def as_scores(scores) -> Scores:
    """Returns scores as they are if they lie in a file, else as an array."""
    return scores if isinstance(scores, StoredScores) else np.asarray(scores)


def by_class(matrix: np.ndarray) -> np.ndarray:
    """Returns the transpose (C, N) of (N, C) with each class in contiguous memory."""
    if matrix.T.flags.c_contiguous:
        return matrix.T
    result = np.empty(matrix.shape[::-1], matrix.dtype)
    for start in range(0, len(matrix), _STRIP):
        result[:, start : start + _STRIP] = matrix[start : start + _STRIP].T
    return result


def _bounds(key: slice, length: int) -> tuple[int, int]:
    start, stop, step = key.indices(length)
    if step != 1:
        raise TypeError(f"scores in a file are read in steps of 1, not {step}")
    return start, max(start, stop)


@contextlib.contextmanager
def _naming_the_folder(needed: int) -> Iterator[None]:
    """Turns failures of writing into an error that says where room is needed, and how much."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{needed / 1e9:.1f} GB of scores do not fit into {tempfile.gettempdir()} ({error}); "
            "name a folder with room in the environment variable TMPDIR"
        ) from error
