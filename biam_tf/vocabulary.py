"""Class names and their embeddings: the only place that knows word vectors."""

import contextlib
import dataclasses
import difflib
import os
import pathlib
import re
from collections.abc import Collection, Iterable, Iterator, Sequence

import numpy as np

from biam_tf.embeddings.files import read_arrays, read_attribute_table, read_word_vectors
from biam_tf.errors import UserError, did_you_mean

GROUPS = ("seen", "unseen")

_NAMES_IN_AN_ERROR = 20


@dataclasses.dataclass(frozen=True, eq=False)
class Vocabulary:
    """The classes an image is scored against, as data.

    Attributes:
        names: C class names, all different.
        embeddings: (C, d_a) float32, read-only. Rows are L2-normalized here, as in the paper,
            whatever length they are given with.
        groups: `"seen"` or `"unseen"` for each class.

    Raises:
        UserError: for names that are empty or repeated, other groups, lengths that don't fit,
            and embeddings that are not finite or all zero.
    """

    names: tuple[str, ...]
    embeddings: np.ndarray
    groups: tuple[str, ...]

    def __post_init__(self):
        _check_names(tuple(self.names))
        # str() because NumPy's strings are another type, which YAML does not know.
        names, groups = tuple(map(str, self.names)), tuple(map(str, self.groups))
        embeddings = np.asarray(self.embeddings)
        if embeddings.ndim != 2 or not len(names) == len(embeddings) == len(groups):
            raise UserError(
                f"vocabulary: {len(names)} names, {len(groups)} groups and embeddings of shape "
                f"{embeddings.shape} don't fit; expected one group and one row for each name"
            )
        for name, group in zip(names, groups, strict=True):
            if group not in GROUPS:
                raise UserError(f"vocabulary: class {name!r}: group {group!r}; use seen or unseen")
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "groups", groups)
        object.__setattr__(self, "embeddings", _unit_rows(embeddings, names))

    def __len__(self) -> int:
        return len(self.names)

    @property
    def embedding_size(self) -> int:
        """Length d_a of a class embedding."""
        return self.embeddings.shape[1]

    @classmethod
    def from_word_vectors(
        cls, path, names: Sequence[str], groups: Sequence[str] | None = None
    ) -> "Vocabulary":
        """Embeds class names with word vectors: GloVe, fastText's `.vec`, word2vec's `.bin`.

        For the forms see `read_word_vectors`. A name is
        looked up as it is, then in lower case; failing that it is the average of its words'
        raw vectors, where a word the file lacks is divided further at `-` and `_`. An id that
        tells names apart, as in `Drum (/m/026t6)`, is not looked up.

        The file is read once, line by line; only the vectors that are needed are kept.

        Args:
            path: the file.
            names: C class names.
            groups: their groups; None means all seen.

        Raises:
            UserError: for a file that can't be read or has a broken line (with its number),
                and for names without a vector: all of them, each with the nearest known words.
        """
        names = tuple(names)
        _check_names(names)
        looked_up, known, size = _look_up(path, names)
        embeddings, unknown = np.zeros((len(names), size)), []
        for row, (name, (found, missing)) in enumerate(zip(names, looked_up, strict=True)):
            if missing:
                unknown.append((name, missing))
            else:
                embeddings[row] = np.mean(found, axis=0)
        way_out = (
            "correct these, leave them out, or see what python -m training.embed_classes finds"
        )
        _refuse_unknown(unknown, known, f"{path}: no word vector", len(names), way_out)
        with _said_of(path):
            return cls(names, embeddings, _groups_or_seen(groups, names))

    @classmethod
    def from_npz(
        cls, path, names: Sequence[str] | None = None, groups: Sequence[str] | None = None
    ) -> "Vocabulary":
        """Reads arrays `names` (C,), `embeddings` (C, d_a) and, optionally, `groups` (C,).

        Never unpickles anything. `names` chooses classes and their order (each looked up as it
        is, then in lower case); None takes all. `groups` None takes the file's, else seen.

        Raises:
            UserError: for a file that can't be read, lacks an array or holds Python objects,
                and for names it doesn't have.
        """
        path = pathlib.Path(path)
        arrays = read_arrays(path)
        with _said_of(path):
            rows = cls(
                arrays["names"],
                arrays["embeddings"],
                _groups_or_seen(arrays.get("groups"), arrays["names"]),
            )
        return rows._choose(names, groups, f"{path}: no embedding")

    @classmethod
    def from_attributes(
        cls, path, names: Sequence[str] | None = None, groups: Sequence[str] | None = None
    ) -> "Vocabulary":
        """Reads a CSV table: first column `name`, every other column one number of the embedding.

        `names` and `groups` as for `from_npz`.

        Raises:
            UserError: for a file that can't be read, and for broken rows: all of them, with
                their line numbers.
        """
        path = pathlib.Path(path)
        table_names, rows = read_attribute_table(path)
        with _said_of(path):
            table = cls(table_names, rows, _groups_or_seen(None, table_names))
        return table._choose(names, groups, f"{path}: no row")

    @classmethod
    def from_file(
        cls, path, names: Sequence[str], groups: Sequence[str] | None = None
    ) -> "Vocabulary":
        """Embeds `names` from an .npz file, a .csv attribute table, or else word vectors.

        Word vectors are text unless the name ends in .bin or .bin.gz.
        """
        ending = pathlib.Path(path).suffix.lower()
        read = {".npz": cls.from_npz, ".csv": cls.from_attributes}
        return read.get(ending, cls.from_word_vectors)(path, names, groups)

    @classmethod
    def load(cls, path) -> "Vocabulary":
        """Reads what `save` wrote; the errors are those of `from_npz`."""
        return cls.from_npz(path)

    def save(self, path) -> None:
        """Writes the arrays `names`, `embeddings` and `groups` to an .npz file, all or nothing."""
        path = pathlib.Path(path)
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            with open(partial, "wb") as file:
                np.savez(
                    file,
                    names=np.array(self.names, dtype=str),
                    embeddings=self.embeddings,
                    groups=np.array(self.groups, dtype=str),
                )
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)

    def subset(self, names: Iterable[str] | None = None, group: str | None = None) -> "Vocabulary":
        """Returns the classes called `names`, in that order, and of them those of `group`.

        Raises:
            UserError: for a name or group that isn't there.
        """
        if group is not None and group not in GROUPS:
            raise UserError(f"vocabulary: no group {group!r}; use seen or unseen")
        rows_by_name = {name: row for row, name in enumerate(self.names)}
        chosen = self.names if names is None else tuple(names)
        for name in chosen:
            if name not in rows_by_name:
                raise UserError(f"vocabulary: no class {name!r}{did_you_mean(name, self.names)}")
        rows = [rows_by_name[name] for name in chosen]
        return self._rows([row for row in rows if group is None or self.groups[row] == group])

    def _rows(self, rows: Sequence[int]) -> "Vocabulary":
        return Vocabulary(
            tuple(self.names[row] for row in rows),
            self.embeddings[np.asarray(rows, dtype=np.intp)],
            tuple(self.groups[row] for row in rows),
        )

    def _choose(self, names, groups, problem: str) -> "Vocabulary":
        """The table's rows under the names asked for, in the caller's spelling and groups."""
        names = self.names if names is None else tuple(names)
        _check_names(names)
        rows_by_name = {name: row for row, name in enumerate(self.names)}
        rows = [_find(name, rows_by_name) for name in names]
        unknown = [(name, name) for name, row in zip(names, rows, strict=True) if row is None]
        _refuse_unknown(unknown, self.names, problem, len(names))
        if groups is None:
            groups = [self.groups[row] for row in rows]
        return Vocabulary(names, self.embeddings[np.asarray(rows, dtype=np.intp)], tuple(groups))


def names_without_embedding(path: str | os.PathLike, names: Sequence[str]) -> tuple[str, ...]:
    """Returns those of `names` that `Vocabulary.from_file` would refuse, in their order.

    Args:
        path: an .npz file, a .csv attribute table, or word vectors.
        names: class names.

    Raises:
        UserError: the file can't be read.
    """
    path = pathlib.Path(path)
    read_table = {".npz": Vocabulary.from_npz, ".csv": Vocabulary.from_attributes}
    if path.suffix.lower() in read_table:
        known = dict.fromkeys(read_table[path.suffix.lower()](path).names, True)
        return tuple(name for name in names if _find(name, known) is None)
    looked_up, _, _ = _look_up(path, names)
    missing = (missing for _, missing in looked_up)
    return tuple(name for name, word in zip(names, missing, strict=True) if word is not None)


def missing_word(name: str, known: Collection[str]) -> str | None:
    """Returns the word of a class name that `known` lacks; None: it can be made of known words.

    The rule is that of `Vocabulary.from_word_vectors`: the name as it is or in lower case, else
    each of its words, which are divided at `-` and `_` where that is needed.

    Args:
        name: the class name.
        known: the words that have a vector, with a fast `in`.
    """
    return _vectors_of_name(name, _Membership(known))[1]


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


def _check_names(names: Sequence[str]) -> None:
    strange = [name for name in names if not isinstance(name, str) or not name.strip()]
    if strange:
        raise UserError(f"vocabulary: a class name must be a non-empty string, not {strange[0]!r}")
    if len(set(names)) < len(names):
        repeated = sorted({name for name in names if names.count(name) > 1})
        raise UserError(f"vocabulary: class names must differ; repeated: {_listed(repeated)}")


def _groups_or_seen(groups: Sequence[str] | None, names: Sequence[str]) -> tuple[str, ...]:
    return (GROUPS[0],) * len(names) if groups is None else tuple(groups)


def _unit_rows(embeddings: np.ndarray, names: Sequence[str]) -> np.ndarray:
    embeddings = embeddings.astype(np.float64)
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    for problem, rows in (("not finite", ~np.isfinite(norms)), ("all zero", norms == 0)):
        if rows.any():
            bad = [names[row] for row in np.flatnonzero(rows)]
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


def _refuse_unknown(
    unknown: Sequence[tuple[str, str]],
    known: Collection[str],
    problem: str,
    asked: int,
    way_out: str = "correct these or leave them out",
) -> None:
    """Raises one error for all `unknown`, pairs of a class name and the word it fails on."""
    if not unknown:
        return
    lines = []
    for name, word in unknown[:_NAMES_IN_AN_ERROR]:
        nearest = ", ".join(map(repr, nearest_words(word, known)))
        lines.append(
            f"  {name!r}"
            + (f": the word {word!r}" if word != name else "")
            + (f" (nearest: {nearest})" if nearest else "")
        )
    if len(unknown) > _NAMES_IN_AN_ERROR:
        lines.append(f"  and {len(unknown) - _NAMES_IN_AN_ERROR} more")
    raise UserError(
        f"{problem} for {len(unknown)} of {asked} class names; {way_out}:\n" + "\n".join(lines)
    )


def nearest_words(word: str, known: Collection[str]) -> list[str]:
    """Returns up to three of the `known` words, of which there may be millions, nearest first."""
    # Comparing with each of a million words takes minutes; a misspelling nearly always keeps
    # its first letter or its ending, and about its length.
    word = word.lower()
    likely = {
        other
        for other in known
        if abs(len(other) - len(word)) <= 2
        and (other[:1].lower() == word[:1] or other[-3:].lower() == word[-3:])
    }
    return difflib.get_close_matches(word, sorted(likely), n=3, cutoff=0.65)


def _find(name: str, table: dict):
    found = table.get(name)
    return table.get(name.lower()) if found is None else found


def _look_up(
    path: str | os.PathLike, names: Sequence[str]
) -> tuple[list[tuple[list[np.ndarray], str | None]], Collection[str], int]:
    """Returns `_vectors_of_name` of each name, all words of the file, and the vectors' length."""
    spoken = [_spoken(name) for name in names]
    wanted = {spelling for name in spoken for spelling in _spellings(name)}
    vectors, known, size = read_word_vectors(pathlib.Path(path), wanted)
    return [_vectors_of_name(name, vectors) for name in spoken], known, size


def _spoken(name: str) -> str:
    """The name without an id of Open Images behind it."""
    return re.sub(r" \(/[mg]/\w+\)$", "", name)


def _pieces(word: str) -> list[str]:
    return [piece for piece in re.split("[-_]+", word) if piece]


def _spellings(name: str) -> Iterator[str]:
    for part in (name, *name.split(), *(piece for word in name.split() for piece in _pieces(word))):
        yield part
        yield part.lower()


def _vectors_of_name(name: str, vectors: dict) -> tuple[list[np.ndarray], str | None]:
    """The vectors a name is the average of, or the word that is missing."""
    whole = _find(name, vectors)
    if whole is not None:
        return [whole], None
    found = []
    for word in name.split():
        for part in [word] if _find(word, vectors) is not None else _pieces(word) or [word]:
            vector = _find(part, vectors)
            if vector is None:
                return [], part
            found.append(vector)
    return found, None


class _Membership:
    """Words to look up where it is enough to know whether they are there."""

    def __init__(self, known: Collection[str]):
        self._known = known

    def get(self, word: str) -> bool | None:
        return True if word in self._known else None


@contextlib.contextmanager
def _said_of(path: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
