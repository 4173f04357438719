"""A matrix of scores that is kept in a temporary file if it is too large for memory.

Open Images' test set has 125,456 photos and 7,586 classes: 3.8 GB of scores. They are computed
photo by photo; average precision reads them class by class, F1@K photo by photo. The file therefore
consists of tiles of some photos and all classes, each stored class by class: a few classes are one
piece of every tile, and some photos are one tile. Nothing is mapped into memory; only what is asked
for is read.
"""

import contextlib
import errno
import math
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from biam_tf.errors import UserError
from biam_tf.files import size_in_words

# Bytes; larger matrices are kept in a file.
IN_MEMORY = 2**30
# Numbers per tile: 8 MB of float32.
_TILE = 2_000_000
# Photos transposed at a time, so that their part of a block of classes stays in the cache.
_STRIP = 256


class StoredScores:
    """Scores (N, C), float32, in a file that is deleted with this object.

    Rows are appended until there are N of them. Then `scores[i:j]` reads rows, `scores[:, c]`
    and `scores[:, i:j]` columns, as arrays.

    Attributes:
        shape: (N, C).
        tile: number of rows that are read and written together.
        nans: number of scores that are NaN.
    """

    ndim = 2
    dtype = np.dtype(np.float32)

    def __init__(self, images: int, classes: int) -> None:
        """Opens an empty file in the folder for temporary files (`TMPDIR`).

        Raises:
            UserError: the folder has too little space for the scores, or cannot be written to.
        """
        self.shape: tuple[int, ...] = (images, classes)
        self.tile = tile_of(images, classes)
        self.nans = 0
        self._stored = self._waiting = 0
        self._buffer = np.empty((self.tile, classes), self.dtype)
        with _naming_the_folder(self.nbytes):
            free = shutil.disk_usage(tempfile.gettempdir()).free
            if free < self.nbytes:
                raise OSError(errno.ENOSPC, f"{size_in_words(free)} are free")
            self._file = tempfile.TemporaryFile(prefix="scores-")

    @property
    def nbytes(self) -> int:
        """Size of all scores in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def size(self) -> int:
        """The number of all scores."""
        return math.prod(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def append(self, scores: ArrayLike) -> None:
        """Appends rows (n, C), float16 or float32.

        Raises:
            ValueError: for another number of classes, more than N rows in all, or a type that
                float32 cannot represent.
            UserError: the file cannot be written.
        """
        scores = np.asarray(scores)
        if scores.ndim != 2 or scores.shape[1] != self.shape[1]:
            raise ValueError(f"scores {scores.shape}: expected (n, {self.shape[1]})")
        if not np.can_cast(scores.dtype, self.dtype):
            raise ValueError(f"scores are stored as float32, which cannot represent {scores.dtype}")
        there = self._stored + self._waiting
        if there + len(scores) > len(self):
            raise ValueError(f"{there + len(scores)} rows of scores, expected {len(self)}")
        self.nans += int(np.isnan(scores).sum())
        while len(scores):
            expected = min(self.tile, len(self) - self._stored)
            taken = scores[: expected - self._waiting]
            self._buffer[self._waiting : self._waiting + len(taken)] = taken
            self._waiting += len(taken)
            scores = scores[len(taken) :]
            if self._waiting == expected:
                self._write_tile()

    def __getitem__(self, key: slice | tuple[slice, slice | int]) -> np.ndarray:
        if self._stored < len(self):
            there = self._stored + self._waiting
            raise ValueError(f"only {there} of {len(self)} rows of scores have been appended")
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

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        raise TypeError(
            f"{size_in_words(self.nbytes)} of scores in a file are not read into memory at once; "
            "read rows or columns of them"
        )

    def _write_tile(self) -> None:
        tile = by_class(self._buffer[: self._waiting])
        with _naming_the_folder(self.nbytes):
            self._file.write(tile.data.cast("B"))
            self._file.flush()
        self._stored += self._waiting
        self._waiting = 0
        if self._stored == len(self):
            self._buffer = self._buffer[:0].copy()

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
        offset = (first * self.shape[1] + column * rows) * self.dtype.itemsize
        view = into.data.cast("B")
        while view:
            # By offset, not from the file's position: several threads read.
            count = os.preadv(self._file.fileno(), [view], offset)
            if not count:
                raise OSError("the temporary file of scores ended early")
            view, offset = view[count:], offset + count


Scores = np.ndarray | StoredScores


def tile_of(images: int, classes: int) -> int:
    """Returns the number of rows that are read together."""
    return max(1, min(images, _TILE // max(1, classes)))


def collect_scores(batches: Iterable[np.ndarray], images: int, classes: int) -> Scores:
    """Returns the rows of all batches as one float32 matrix, in memory or (if large) in a file.

    Args:
        batches: (n, C) each, N rows in all.
        images: N.
        classes: C.

    Raises:
        ValueError: for other shapes.
        UserError: there is too little disk space for the file.
    """
    if 4 * images * classes > IN_MEMORY:
        stored = StoredScores(images, classes)
        for batch in batches:
            stored.append(batch)
        return stored
    scores, there = np.empty((images, classes), np.float32), 0
    for batch in batches:
        if there + len(batch) > images:
            raise ValueError(f"{there + len(batch)} rows of scores, expected {images}")
        scores[there : there + len(batch)] = batch
        there += len(batch)
    if there < images:
        raise ValueError(f"{there} rows of scores, expected {images}")
    return scores


def as_scores(scores: Scores | ArrayLike) -> Scores:
    """Returns scores in a file unchanged, all others as an array."""
    return scores if isinstance(scores, StoredScores) else np.asarray(scores)


def columns_of(scores: Scores, columns: np.ndarray) -> np.ndarray:
    """Returns the scores (N, c) of some classes, ascending."""
    if isinstance(scores, np.ndarray):
        return scores[:, columns]
    first, last = (int(columns[0]), int(columns[-1]) + 1) if len(columns) else (0, 0)
    if last - first <= 2 * len(columns):
        return scores[:, first:last][:, columns - first]
    return np.stack([scores[:, c] for c in columns.tolist()], axis=1)


def by_class(matrix: np.ndarray) -> np.ndarray:
    """Returns the transpose (C, N) of (N, C), with each class in contiguous memory."""
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
    """Turns failures to write into an error that names the folder and the space needed."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{size_in_words(needed)} of scores do not fit into {tempfile.gettempdir()} ({error}); "
            "set the environment variable TMPDIR to a folder with more space"
        ) from error
