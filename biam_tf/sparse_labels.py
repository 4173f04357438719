"""Labels of many photos and classes in memory: only those that differ from most are stored.

Open Images has 9 million training photos, 7,186 seen classes, and about nine labels per photo:
65 GB as a matrix, a third of a gigabyte here.
"""

import functools
import hashlib
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from biam_tf.files import size_in_words

_COMPARISONS = (np.greater, np.greater_equal, np.less, np.less_equal, np.equal, np.not_equal)
# Passes over the entries that labels are made of.
_PASSES = 8
# Bytes; a dense part of more than that is a mistake of whoever asks for it.
DENSE_LIMIT = 4 * 2**30
# Rows, so that indices of their entries take some megabytes.
_SPAN = 2**18
_HASHED_DENSE = 2**34  # labels, 17 GB of bytes
_BLOCK = 2**24  # labels that are dense at a time


class SparseLabels(np.lib.mixins.NDArrayOperatorsMixin):
    """A matrix of labels (N, C), read like a NumPy array; immutable.

    Labels that are equal to `fill` are not stored. An index gives a dense array of its part, as
    `labels[:32]`, `labels[[4, 7]]` or `labels[:, :100]` do. `rows` and `columns` select without
    making it dense. Comparisons with a number (`labels > 0`) give a sparse matrix of bool, which
    has `sum`, `any` and `all`.

    Args:
        offsets: (N + 1,) int64; the labels of photo i are stored from `offsets[i]` to
            `offsets[i + 1]`.
        classes: (M,) unsigned integers, the class of each stored label, ascending in each photo.
        values: (M,) the stored labels.
        shape: (N, C).
        fill: all other labels.

    Attributes:
        shape: (N, C).
        dtype: of the labels, `int8` unless it is the result of a comparison.
        fill: the labels that are not stored.
    """

    ndim = 2

    def __init__(
        self,
        offsets: np.ndarray,
        classes: np.ndarray,
        values: np.ndarray,
        shape: tuple[int, int],
        fill: int,
    ):
        self.shape: tuple[int, int] = (int(shape[0]), int(shape[1]))
        self.dtype = values.dtype
        self.fill = values.dtype.type(fill)
        self._offsets, self._classes, self._values = offsets, classes, values

    @classmethod
    def of_entries(
        cls,
        rows: ArrayLike,
        classes: ArrayLike,
        values: ArrayLike,
        shape: tuple[int, int],
        fill: int,
    ) -> "SparseLabels":
        """Returns labels that are `fill` except for M entries; of a repeated one, the last counts.

        Args:
            rows: (M,) integers, the photos.
            classes: (M,) integers.
            values: (M,) int8.
            shape: (N, C).
            fill: all other labels.
        """
        rows, classes, values = np.asarray(rows), np.asarray(classes), np.asarray(values, np.int8)
        # Some photos at a time: sorting takes several times the memory of the entries.
        passes = max(1, min(_PASSES, len(rows) // _BLOCK, shape[0]))
        edges = np.linspace(0, shape[0], passes + 1).astype(np.int64)
        parts = []
        for first, last in itertools.pairwise(edges.tolist()):
            chosen = np.flatnonzero((rows >= first) & (rows < last))
            places = (rows[chosen] - first).astype(np.int64) * shape[1]
            places += classes[chosen].astype(np.int64)
            order = np.argsort(places, kind="stable")
            places = places[order]
            is_last = np.append(places[1:] != places[:-1], True)[: len(places)]
            own = values[chosen[order]]
            kept = is_last & (own != fill)
            counts = np.bincount(places[kept] // shape[1], minlength=last - first)
            parts.append(
                (counts, (places[kept] % shape[1]).astype(_index_type(shape[1])), own[kept])
            )
        return cls._joined(parts, shape, fill, np.int8)

    @classmethod
    def of_dense(cls, labels: np.ndarray, fill: int | None = None) -> "SparseLabels":
        """Returns those of a matrix (N, C) int8; `fill`: by default the most frequent number."""
        if fill is None:
            counts = np.zeros(256, np.int64)
            for block in _blocks(labels.shape):
                own = labels[block].astype(np.int8, copy=False).view(np.uint8)
                counts += np.bincount(own.ravel(), minlength=256)
            fill = int(np.int8(np.uint8(counts.argmax()).view(np.int8)))
        parts: list[tuple[np.ndarray, ...]] = []
        for block in _blocks(labels.shape):
            own = labels[block].astype(np.int8, copy=False)
            rows, classes = np.nonzero(own != fill)
            parts.append(
                (
                    np.bincount(rows, minlength=len(own)),
                    classes.astype(_index_type(labels.shape[1])),
                    own[rows, classes],
                )
            )
        return cls._joined(parts, labels.shape, fill, np.int8)

    @classmethod
    def _joined(
        cls, parts: list, shape: tuple[int, ...], fill: int, kind: DTypeLike
    ) -> "SparseLabels":
        """Labels of blocks of rows, each given as its counts per row, classes and values."""
        parts = parts or [(np.zeros(0, np.int64), np.zeros(0, np.uint16), np.zeros(0, kind))]
        counts, classes, values = (np.concatenate(own) for own in zip(*parts, strict=True))
        return cls(_offsets_of(counts), classes, values, (shape[0], shape[1]), fill)

    @property
    def nbytes(self) -> int:
        """Bytes of memory of the stored labels."""
        return self._offsets.nbytes + self._classes.nbytes + self._values.nbytes

    @property
    def size(self) -> int:
        """The number of all labels, N * C."""
        return self.shape[0] * self.shape[1]

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return (
            f"SparseLabels({self.shape[0]:,} x {self.shape[1]:,}, {self.fill} except for "
            f"{len(self._values):,})"
        )

    def rows(self, rows: ArrayLike) -> "SparseLabels":
        """Returns the labels of some photos, by positions (n,) or a mask (N,) of bool."""
        chosen = self._positions(rows, 0)
        parts = []
        for some in _spans(len(chosen)):
            entries, counts = _ranges(self._offsets, chosen[some])
            parts.append((counts, self._classes[entries], self._values[entries]))
        return self._joined(parts, (len(chosen), self.shape[1]), int(self.fill), self.dtype)

    def columns(self, columns: ArrayLike) -> "SparseLabels":
        """Returns the labels of some classes, by positions (c,) without repetition, or a mask."""
        chosen = self._positions(columns, 1)
        if np.array_equal(chosen, np.arange(self.shape[1])):
            return self
        place = np.full(self.shape[1], -1, np.int32)
        place[chosen] = np.arange(len(chosen), dtype=np.int32)
        is_sorted = bool((np.diff(chosen) > 0).all())
        parts = []
        for block in _spans(len(self)):
            first, last = self._offsets[block.start], self._offsets[block.stop]
            new = place[self._classes[first:last]]
            kept = np.flatnonzero(new >= 0)
            counts = np.diff(self._offsets[block.start : block.stop + 1])
            rows = np.repeat(np.arange(len(counts)), counts)[kept]
            new, values = new[kept], self._values[first:last][kept]
            if not is_sorted:
                order = np.lexsort((new, rows))
                new, values = new[order], values[order]
            parts.append(
                (
                    np.bincount(rows, minlength=len(counts)),
                    new.astype(_index_type(len(chosen))),
                    values,
                )
            )
        return self._joined(parts, (len(self), len(chosen)), int(self.fill), self.dtype)

    def nonzero(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the photos and classes of all labels that are not 0, photo by photo."""
        if self.fill == 0:
            rows = np.repeat(np.arange(len(self)), np.diff(self._offsets))
            kept = self._values != 0
            return rows[kept], self._classes[kept].astype(np.int64)
        found = [(np.zeros(0, np.int64),) * 2]
        for block, own in self.blocks():
            rows, classes = np.nonzero(own)
            found.append((block.start + rows, classes))
        rows, classes = map(np.concatenate, zip(*found, strict=True))
        return rows, classes

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Yields the labels of all photos, some of them at a time, as slices and dense arrays."""
        for block in _blocks(self.shape):
            yield block, self[block]

    def sum(self, axis: int | None = None) -> Any:
        """Returns the sum of all labels, of each class's (`axis=0`) or photo's (`axis=1`)."""
        if axis is None:
            return int(self.sum(axis=1).sum())
        apart = self._values.astype(np.int8) - np.int8(self.fill)
        totals = np.full(self.shape[1 - axis], self.shape[axis] * int(self.fill), np.int64)
        if axis == 1:
            for block in _spans(len(self)):
                offsets = self._offsets[block.start : block.stop + 1]
                own = np.cumsum(apart[offsets[0] : offsets[-1]], dtype=np.int64)
                totals[block] += np.diff(np.concatenate([[0], own])[offsets - offsets[0]])
            return totals
        for value in np.unique(apart).tolist():
            own = self._classes[apart == value]
            totals += value * np.bincount(own, minlength=len(totals))
        return totals

    def any(self, axis: int | None = None) -> Any:
        """Returns whether labels are not 0: any label, or any of each class or photo."""
        return (self != 0).sum(axis) > 0

    def all(self, axis: int | None = None) -> Any:
        """Returns whether labels are not 0: all labels, or all of each class or photo."""
        return (self == 0).sum(axis) == 0

    def tolist(self) -> list:
        """Returns the labels as lists, photo by photo."""
        return np.asarray(self).tolist()

    def count(self, value: int, axis: int) -> np.ndarray:
        """Returns how many labels are `value`: of each class (`axis=0`) or photo (`axis=1`)."""
        return (self == value).sum(axis)

    def unique(self) -> np.ndarray:
        """Returns the numbers that occur, ascending."""
        found = np.unique(self._values)
        return np.union1d(found, [self.fill]) if len(self._values) < self.size else found

    def update(self, digest: "hashlib._Hash") -> None:
        """Updates a `hashlib` object with all labels.

        With the bytes of the dense matrix, or from `_HASHED_DENSE` labels on, which would take
        minutes, with the photo, class and value of each label that is not the most frequent one.
        """
        if self.size < _HASHED_DENSE:
            for _, block in self.blocks():
                digest.update(np.ascontiguousarray(block).tobytes())
            return
        digest.update(f"{self.shape} {self.fill}".encode())
        for stored, kind in ((self._offsets, "<i8"), (self._classes, "<u4"), (self._values, "i1")):
            for start in range(0, len(stored), _BLOCK):
                digest.update(stored[start : start + _BLOCK].astype(kind).tobytes())

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        # A comparison with a number stays sparse; everything else is made of dense arrays.
        if method == "__call__" and ufunc in _COMPARISONS and self is inputs[0]:
            if np.isscalar(inputs[1]) and not options:
                values, fill = (ufunc(own, inputs[1]) for own in (self._values, self.fill))
                return SparseLabels(self._offsets, self._classes, values, self.shape, fill)
        dense = [np.asarray(x) if isinstance(x, SparseLabels) else x for x in inputs]
        return getattr(ufunc, method)(*dense, **options)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or self.dtype, copy=False)

    def __iter__(self) -> Iterator[np.ndarray]:
        return itertools.chain.from_iterable(block for _, block in self.blocks())

    def __getitem__(self, key: Any) -> Any:
        if not isinstance(key, tuple):
            return self._dense_rows(key)
        rows, columns = key
        if isinstance(rows, slice) and rows == slice(None):
            return self._dense_columns(columns)
        if isinstance(rows, slice) or (isinstance(rows, np.ndarray) and rows.dtype == bool):
            own = self._dense_rows(rows)
            return own[:, columns] if isinstance(rows, slice) else own[np.arange(len(own)), columns]
        if np.ndim(rows) == 0 or isinstance(columns, slice):
            return self._dense_rows(rows)[..., columns]
        # As NumPy has it, `labels[[3, 5], [0, 1]]` are the labels (3, 0) and (5, 1).
        rows, columns = np.broadcast_arrays(rows, columns)
        unique, place = np.unique(rows, return_inverse=True)
        return self._dense_rows(unique)[place.reshape(rows.shape), columns]

    def _dense_rows(self, key: Any) -> np.ndarray:
        if np.ndim(key) == 0 and not isinstance(key, slice):
            return self._dense_rows(np.array([key]))[0]
        rows = self._positions(key, 0)
        result = self._filled(len(rows), self.shape[1])
        if len(rows) and len(rows) == rows[-1] - rows[0] + 1 and (np.diff(rows) == 1).all():
            entries: Any = slice(self._offsets[rows[0]], self._offsets[rows[-1] + 1])
            counts = np.diff(self._offsets[rows[0] : rows[-1] + 2])
        else:
            entries, counts = _ranges(self._offsets, rows)
        result[np.repeat(np.arange(len(rows)), counts), self._classes[entries]] = self._values[
            entries
        ]
        return result

    def _dense_columns(self, key: Any) -> np.ndarray:
        if np.ndim(key) == 0 and not isinstance(key, slice):
            return self._dense_columns(np.array([key]))[:, 0]
        columns = self._positions(key, 1)
        offsets, rows, values = self._by_class
        # Stored class by class, as whoever ranks the photos of a class needs it.
        result = self._filled(len(columns), len(self))
        entries, counts = _ranges(offsets, columns)
        result[np.repeat(np.arange(len(columns)), counts), rows[entries]] = values[entries]
        return result.T

    @functools.cached_property
    def _by_class(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Offsets (C + 1,), rows (M,) and values (M,) of the labels, class by class."""
        order = np.argsort(self._classes, kind="stable")
        counts = np.bincount(self._classes, minlength=self.shape[1])
        rows = np.repeat(np.arange(len(self), dtype=np.int32), np.diff(self._offsets))
        return _offsets_of(counts), rows[order], self._values[order]

    def _positions(self, key: Any, axis: int) -> np.ndarray:
        """The positions (n,) of rows or columns that an index names."""
        size = self.shape[axis]
        if isinstance(key, slice):
            return (
                np.arange(size)[key] if key.step not in (None, 1) else np.arange(*key.indices(size))
            )
        key = np.asarray(key)
        if key.dtype == bool:
            if key.shape != (size,):
                raise IndexError(f"a mask of shape {key.shape} for {size} labels")
            return np.flatnonzero(key)
        if not key.size:
            return np.zeros(0, np.int64)
        if key.ndim != 1 or key.dtype.kind not in "iu":
            raise IndexError(f"labels have no index {key!r}")
        if key.min() < -size or key.max() >= size:
            raise IndexError(
                f"an index is out of bounds for {size} labels: {key.min()}, {key.max()}"
            )
        return np.where(key < 0, key + size, key) if key.min() < 0 else key

    def _filled(self, rows: int, columns: int) -> np.ndarray:
        if rows * columns > DENSE_LIMIT:
            raise ValueError(
                f"{rows:,} x {columns:,} labels take {size_in_words(rows * columns)} as a dense "
                "matrix; take fewer rows or columns at a time"
            )
        return np.full((rows, columns), self.fill, self.dtype)


Labels = np.ndarray | SparseLabels


def as_labels(labels: Labels | ArrayLike) -> Labels:
    """Returns sparse labels unchanged, all others as an array."""
    return labels if isinstance(labels, SparseLabels) else np.asarray(labels)


def as_sparse(labels: Labels | ArrayLike) -> SparseLabels:
    """Returns labels (N, C), given as sparse ones or as a matrix of any type, as sparse ones."""
    if isinstance(labels, SparseLabels):
        return labels
    return SparseLabels.of_dense(np.asarray(labels))


def _ranges(offsets: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The entries of some rows, one row after the other, and their number in each."""
    counts = offsets[1:][chosen] - offsets[:-1][chosen]
    ends = np.cumsum(counts)
    entries = np.arange(ends[-1] if len(ends) else 0)
    entries += np.repeat(offsets[:-1][chosen] - (ends - counts), counts)
    return entries, counts


def _offsets_of(counts: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])


def _index_type(classes: int) -> type:
    return np.uint16 if classes <= 2**16 else np.uint32


def _spans(rows: int) -> Iterator[slice]:
    """Slices of the rows of a sparse matrix, whose entries are indexed together."""
    return (slice(start, min(start + _SPAN, rows)) for start in range(0, rows, _SPAN))


def _blocks(shape: tuple[int, ...]) -> Iterator[slice]:
    """Slices of the rows, so that each has `_BLOCK` numbers."""
    size = max(1, _BLOCK // max(1, shape[1]))
    return (slice(start, min(start + size, shape[0])) for start in range(0, shape[0], size))
