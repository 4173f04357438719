"""Class names with their embeddings. How a name finds one: `biam_tf.embeddings.names`."""

import contextlib
import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

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
        if embeddings.ndim != 2 or not len(names) == len(embeddings) == len(groups):
            raise UserError(
                f"vocabulary: {len(names)} names, {len(groups)} groups and embeddings of shape "
                f"{embeddings.shape} do not match; expected one group and one row per name"
            )
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
                not have some of the names.
        """
        path = pathlib.Path(path)
        arrays = read_arrays(path)
        table_names = tuple(arrays["names"])
        table_groups = tuple(arrays["groups"]) if "groups" in arrays else None
        with _errors_naming(path):
            table = cls(
                table_names, arrays["embeddings"], _groups_or_seen(table_groups, table_names)
            )
        return table._choose(names, groups, f"{path}: no embedding")

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
                broken: all of them, with their line numbers.
        """
        path = pathlib.Path(path)
        table_names, rows = read_attribute_table(path)
        with _errors_naming(path):
            table = cls(table_names, rows, _groups_or_seen(None, table_names))
        return table._choose(names, groups, f"{path}: no row")

    @classmethod
    def from_file(
        cls, path: str | os.PathLike, names: Sequence[str], groups: Sequence[str] | None = None
    ) -> "Vocabulary":
        """Embeds `names` from an .npz file, a .csv attribute table, or else word vectors.

        Word vectors are text unless the name ends in .bin or .bin.gz.
        """
        read = _table_reader(path) or cls.from_word_vectors
        return read(path, names, groups)

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

    def _choose(
        self, names: Sequence[str] | None, groups: Sequence[str] | None, problem: str
    ) -> "Vocabulary":
        """Returns the rows of `names`, in the caller's spelling and groups."""
        names = self.names if names is None else _checked_names(names)
        found = [look_up(name, None, self.index) for name in names]
        refuse_missing(names, found, self.names, problem)
        rows = [words.row for words in found if words.row is not None]
        if groups is None:
            groups = [self.groups[row] for row in rows]
        return Vocabulary(names, self.embeddings[np.asarray(rows, dtype=np.intp)], tuple(groups))


def read_table(path: str | os.PathLike) -> Vocabulary | None:
    """Returns all classes of an .npz file or of a .csv table; None for a file of word vectors.

    Raises:
        UserError: the file cannot be read.
    """
    read = _table_reader(path)
    return None if read is None else read(path)


def names_without_embedding(path: str | os.PathLike, names: Sequence[str]) -> tuple[str, ...]:
    """Returns those of `names` that `Vocabulary.from_file` would refuse, in their order.

    Args:
        path: an .npz file, a .csv attribute table, or word vectors.
        names: class names.

    Raises:
        UserError: the file cannot be read.
    """
    table = read_table(path)
    if table is None:
        found = look_up_in_file(pathlib.Path(path), names).found
    else:
        found = tuple(look_up(name, None, table.index) for name in names)
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


def _table_reader(path: str | os.PathLike) -> Callable[..., Vocabulary] | None:
    readers = {".npz": Vocabulary.from_npz, ".csv": Vocabulary.from_attributes}
    return readers.get(pathlib.Path(path).suffix.lower())


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
    return (GROUPS[0],) * len(names) if groups is None else tuple(groups)


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
