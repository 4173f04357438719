"""Class names with their embeddings. How a name finds one: `biam_tf.embeddings.names`."""

import contextlib
import dataclasses
import functools
import os
import pathlib
import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence

import numpy as np

from biam_tf.embeddings.files import look_up_in_file, read_arrays, read_attribute_table
from biam_tf.embeddings.names import NameIndex, look_up, normalize, refuse_missing
from biam_tf.errors import UserError, did_you_mean
from biam_tf.errors import nearest_words as nearest_words  # public here, too
from biam_tf.files import replacing

GROUPS = ("seen", "unseen")

_NAMES_IN_AN_ERROR = 20


@dataclasses.dataclass(frozen=True, eq=False)
class Vocabulary:
    """The classes that an image is scored against.

    Attributes:
        names: C class names, all different, in Unicode's form NFC.
        embeddings: (C, d_a) float32, read-only; the rows are L2-normalized here, as in the paper.
        groups: "seen" or "unseen" for each class.

    Raises:
        UserError: names are empty or repeated, a group is neither seen nor unseen, the lengths
            differ, or embeddings are not finite or all zero.
    """

    names: tuple[str, ...]
    embeddings: np.ndarray
    groups: tuple[str, ...]

    def __post_init__(self) -> None:
        names = _checked_names(self.names)
        groups = tuple(map(str, self.groups))
        embeddings = np.asarray(self.embeddings)
        _require_as_many(names, embeddings, groups)
        for name, group in zip(names, groups, strict=True):
            if group not in GROUPS:
                raise UserError(f"vocabulary: class {name!r}: group {group!r}; use seen or unseen")
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "groups", groups)
        object.__setattr__(self, "embeddings", _unit_rows(embeddings, names))

    def __len__(self) -> int:
        return len(self.names)

    @functools.cached_property
    def index(self) -> NameIndex:
        """The names by which other spellings of them are looked up."""
        return NameIndex(self.names)

    @property
    def embedding_size(self) -> int:
        """Length d_a of a class embedding."""
        return self.embeddings.shape[1]

    @classmethod
    def from_word_vectors(
        cls, path: str | os.PathLike, names: Sequence[str], groups: Sequence[str] | None = None
    ) -> "Vocabulary":
        """Embeds class names with word vectors: GloVe, fastText's `.vec`, word2vec's `.bin`.

        For the forms see `biam_tf.embeddings.files.read_word_vectors`. A name is one of the
        file's words or the mean of several, by the rule of `biam_tf.embeddings.names`.

        Args:
            path: the file, read once; only the vectors that are needed are kept.
            names: C class names.
            groups: their groups; None: all seen.

        Raises:
            UserError: the file cannot be read or has a broken line (with its number), or names
                have no vector: all of them, each with the nearest known words.
        """
        names = _checked_names(names)
        looked_up = look_up_in_file(pathlib.Path(path), names)
        refuse_missing(
            names,
            looked_up.found,
            looked_up.known,
            f"{path}: no word vector",
            "correct these, leave them out, or see what python -m training.embed_classes finds",
        )
        with _errors_naming(path):
            return cls(names, looked_up.means, _groups_or_seen(groups, names))

    @classmethod
    def from_npz(
        cls,
        path: str | os.PathLike,
        names: Sequence[str] | None = None,
        groups: Sequence[str] | None = None,
    ) -> "Vocabulary":
        """Reads arrays `names` (C,), `embeddings` (C, d_a) and, optionally, `groups` (C,).

        Nothing is unpickled.

        Args:
            path: the file.
            names: classes to choose, in their order, by the rule of `biam_tf.embeddings.names`;
                None: all.
            groups: of the chosen classes; None: those of the file, or else seen.

        Raises:
            UserError: the file cannot be read, lacks an array or holds Python objects, or does
                not have some of the names; the embeddings of those are not finite or all zero.
        """
        path = pathlib.Path(path)
        return _read_npz(path).choose(names, groups, f"{path}: no embedding")

    @classmethod
    def from_attributes(
        cls,
        path: str | os.PathLike,
        names: Sequence[str] | None = None,
        groups: Sequence[str] | None = None,
    ) -> "Vocabulary":
        """Reads a CSV table: first column `name`, every other column one number of the embedding.

        `names` and `groups` are those of `from_npz`.

        Raises:
            UserError: the file cannot be read or does not have some of the names, or rows are
                broken: all of them, with their line numbers. Numbers that are not finite are
                only refused in the rows of the names.
        """
        path = pathlib.Path(path)
        table = _read_csv(path, allow_not_finite=names is not None)
        try:
            return table.choose(names, groups, f"{path}: no row")
        except UserError as error:
            if "not finite" in str(error):
                _read_csv(path)  # its error names the lines
            raise

    @classmethod
    def from_file(
        cls, path: str | os.PathLike, names: Sequence[str], groups: Sequence[str] | None = None
    ) -> "Vocabulary":
        """Embeds `names` from an .npz file, a .csv attribute table, or else word vectors.

        Word vectors are text unless the name ends in .bin or .bin.gz.
        """
        ending = pathlib.Path(path).suffix.lower()
        readers = {".npz": cls.from_npz, ".csv": cls.from_attributes}
        return readers.get(ending, cls.from_word_vectors)(path, names, groups)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Vocabulary":
        """Reads a file that `save` wrote; raises as `from_npz` does."""
        return cls.from_npz(path)

    def save(self, path: str | os.PathLike) -> None:
        """Writes `names`, `embeddings` and `groups` to an .npz file, whole or not at all.

        Raises:
            UserError: the file cannot be written.
        """
        with replacing(path) as partial, open(partial, "wb") as file:
            np.savez(
                file,
                names=np.array(self.names, dtype=str),
                embeddings=self.embeddings,
                groups=np.array(self.groups, dtype=str),
            )

    def subset(self, names: Iterable[str] | None = None, group: str | None = None) -> "Vocabulary":
        """Returns the classes `names`, in that order, or those of them that are in `group`.

        Args:
            names: names of these classes as they are written here; None: all.
            group: "seen" or "unseen"; None: both.

        Raises:
            UserError: a name is not among these classes, or the group is another.
        """
        if group is not None and group not in GROUPS:
            raise UserError(f"vocabulary: no group {group!r}; use seen or unseen")
        rows_by_name = self.index.rows
        chosen = self.names if names is None else tuple(map(normalize, names))
        for name in chosen:
            if name not in rows_by_name:
                raise UserError(f"vocabulary: no class {name!r}{did_you_mean(name, self.names)}")
        rows = [rows_by_name[name] for name in chosen]
        return self._rows([row for row in rows if group is None or self.groups[row] == group])

    def extended(self, other: "Vocabulary") -> "Vocabulary":
        """Returns these classes followed by those of another vocabulary that are not among them."""
        added = other.subset(name for name in other.names if name not in self.index.rows)
        return Vocabulary(
            self.names + added.names,
            np.concatenate([self.embeddings, added.embeddings]),
            self.groups + added.groups,
        )

    def _rows(self, rows: Sequence[int]) -> "Vocabulary":
        return Vocabulary(
            tuple(self.names[row] for row in rows),
            self.embeddings[np.asarray(rows, dtype=np.intp)],
            tuple(self.groups[row] for row in rows),
        )


@dataclasses.dataclass(frozen=True, eq=False)
class _Table:
    """The rows of a file, which are only checked where they are needed.

    Attributes:
        path: the file.
        names: C different names, in NFC.
        rows: (C, d_a) numbers.
        groups: C groups.
    """

    path: pathlib.Path
    names: tuple[str, ...]
    rows: np.ndarray
    groups: tuple[str, ...]

    def choose(
        self, names: Sequence[str] | None, groups: Sequence[str] | None, problem: str
    ) -> Vocabulary:
        """Returns the rows of `names` (None: all), in the caller's spelling and groups."""
        names = self.names if names is None else _checked_names(names)
        index = NameIndex(self.names)
        found = [look_up(name, None, index) for name in names]
        refuse_missing(names, found, self.names, problem)
        rows = [words.row for words in found if words.row is not None]
        if groups is None:
            groups = [self.groups[row] for row in rows]
        with _errors_naming(self.path):
            embeddings = self.rows[np.asarray(rows, dtype=np.intp)]
            return Vocabulary(names, embeddings, tuple(groups))

    def usable(self) -> Vocabulary:
        """Returns all classes whose numbers are finite and not all zero; warns of the others."""
        norms = np.linalg.norm(self.rows.astype(np.float64), axis=1)
        is_usable = np.isfinite(norms) & (norms > 0)
        if not is_usable.any():
            return self.choose(None, None, "")  # raises
        if not is_usable.all():
            left_out = [
                name for name, usable in zip(self.names, is_usable, strict=True) if not usable
            ]
            warnings.warn(
                f"{self.path}: embeddings that are not finite or all zero are left out: "
                f"{_listed(left_out)}",
                stacklevel=3,
            )
        return self.choose([self.names[row] for row in np.flatnonzero(is_usable)], None, "")


def _read_npz(path: pathlib.Path) -> _Table:
    arrays = read_arrays(path)
    with _errors_naming(path):
        names = _checked_names(arrays["names"])
        given = tuple(arrays["groups"]) if "groups" in arrays else None
        groups = _groups_or_seen(given, names)
        _require_as_many(names, arrays["embeddings"], groups)
    return _Table(path, names, arrays["embeddings"], groups)


def _read_csv(path: pathlib.Path, allow_not_finite: bool = False) -> _Table:
    names, rows = read_attribute_table(path, allow_not_finite)
    with _errors_naming(path):
        names = _checked_names(names)
    return _Table(path, names, rows, _groups_or_seen(None, names))


def _read_table(path: str | os.PathLike) -> _Table | None:
    """Returns the rows of an .npz file or of a .csv table; None for a file of word vectors."""
    path = pathlib.Path(path)
    if path.suffix.lower() == ".npz":
        return _read_npz(path)
    return _read_csv(path, allow_not_finite=True) if path.suffix.lower() == ".csv" else None


def read_table(path: str | os.PathLike) -> Vocabulary | None:
    """Returns all classes of an .npz file or of a .csv table; None for a file of word vectors.

    Classes whose embeddings are not finite or all zero are left out, with a warning.

    Raises:
        UserError: the file cannot be read.
    """
    table = _read_table(path)
    return None if table is None else table.usable()


def names_without_embedding(path: str | os.PathLike, names: Sequence[str]) -> tuple[str, ...]:
    """Returns those of `names` that `Vocabulary.from_file` would refuse, in their order.

    Args:
        path: an .npz file, a .csv attribute table, or word vectors.
        names: class names.

    Raises:
        UserError: the file cannot be read.
    """
    table = _read_table(path)
    if table is None:
        found = look_up_in_file(pathlib.Path(path), names).found
    else:
        index = NameIndex(table.names)
        found = tuple(look_up(name, None, index) for name in names)
    return tuple(name for name, words in zip(names, found, strict=True) if words.missing)


def missing_word(name: str, known: Collection[str]) -> str | None:
    """Returns the first word of a class name that `known` lacks; None: `known` has all it needs.

    Args:
        name: the class name, looked up as `Vocabulary.from_word_vectors` does.
        known: the words that have a vector, in NFC, with a fast `in`.
    """
    return next(iter(look_up(name, known).missing), None)


def require_embedding_size(vocabulary: Vocabulary, size: int, where: str) -> None:
    """Checks that class embeddings have the length a model was made for.

    Args:
        vocabulary: the classes to score.
        size: embedding length d_a of the model.
        where: what the vocabulary comes from, e.g. a file's path; begins the message.

    Raises:
        UserError: if the lengths differ.
    """
    if vocabulary.embedding_size != size:
        raise UserError(
            f"{where}: class embeddings have {vocabulary.embedding_size} numbers, the model was "
            f"made for {size}; embed the classes with the word vectors it was trained with"
        )


def _require_as_many(names: Sequence[str], embeddings: np.ndarray, groups: Sequence[str]) -> None:
    if embeddings.ndim != 2 or not len(names) == len(embeddings) == len(groups):
        raise UserError(
            f"vocabulary: {len(names)} names, {len(groups)} groups and embeddings of shape "
            f"{embeddings.shape} do not match; expected one group and one row per name"
        )


def _checked_names(names: Iterable[str]) -> tuple[str, ...]:
    """Returns names in NFC; refuses empty and repeated ones."""
    names = tuple(names)
    strange = [name for name in names if not isinstance(name, str) or not name.strip()]
    if strange:
        raise UserError(f"vocabulary: a class name must be a non-empty string, not {strange[0]!r}")
    # str() because the strings of NumPy are another type, which YAML does not write.
    names = tuple(normalize(str(name)) for name in names)
    if len(set(names)) < len(names):
        repeated = sorted({name for name in names if names.count(name) > 1})
        raise UserError(f"vocabulary: class names must differ; repeated: {_listed(repeated)}")
    return names


def _groups_or_seen(groups: Sequence[str] | None, names: Sequence[str]) -> tuple[str, ...]:
    return (GROUPS[0],) * len(names) if groups is None else tuple(map(str, groups))


def _unit_rows(embeddings: np.ndarray, names: Sequence[str]) -> np.ndarray:
    embeddings = embeddings.astype(np.float64)
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    for problem, rows in (("not finite", ~np.isfinite(norms)), ("all zero", norms == 0)):
        if rows.any():
            bad = [names[int(row)] for row in np.flatnonzero(rows)]
            raise UserError(
                f"vocabulary: the embedding is {problem} for {_listed(bad)}; such a class can't "
                "be scored, correct it or leave it out"
            )
    # Rows that are unit vectors already stay the same to the last bit when saved and loaded.
    unit = np.where(np.abs(norms - 1) < 1e-6, embeddings, embeddings / norms).astype(np.float32)
    unit.setflags(write=False)
    return unit


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMES_IN_AN_ERROR
    listed = ", ".join(repr(str(name)) for name in names[:_NAMES_IN_AN_ERROR])
    return f"{listed} and {more} more" if more > 0 else listed


@contextlib.contextmanager
def _errors_naming(path: str | os.PathLike) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
