"""Class names to embeddings, in the graph, by the rules of `biam_tf.vocabulary.Vocabulary`."""

import dataclasses
import pathlib

import numpy as np
import tensorflow as tf

from biam_tf.embeddings.files import read_all_word_vectors
from biam_tf.errors import UserError
from biam_tf.vocabulary import Vocabulary

_NAMES_IN_AN_ERROR = 20
_UNKNOWN = -1
# What str.split takes for space; without it a name would be divided at other places here.
_SPACES = (
    r"[\t-\r\x1c-\x20\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}"
    r"\x{3000}]+"
)


@dataclasses.dataclass(frozen=True)
class Embeddings:
    """What class names are looked up in.

    Attributes:
        vocabulary: names that are embedded as a whole.
        words: W words of which names may be made up; empty: none.
        word_vectors: (W, d_a) float32, as they stand in their file.
    """

    vocabulary: Vocabulary
    words: tuple[str, ...] = ()
    word_vectors: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.vocabulary) + len(self.words)

    @classmethod
    def read(cls, vocabulary: Vocabulary, path: str | pathlib.Path | None) -> "Embeddings":
        """Adds the entries of a file, if any, to a vocabulary, whose own names come first.

        Word vectors may be put together to names; the rows of an .npz file or of a .csv table
        are names already, as for `Vocabulary.from_file`.

        Raises:
            UserError: the file can't be read, or holds embeddings of another length.
        """
        if path is None:
            return cls(vocabulary)
        path = pathlib.Path(path)
        tables = {".npz": Vocabulary.from_npz, ".csv": Vocabulary.from_attributes}
        read_table = tables.get(path.suffix.lower())
        if read_table is None:
            words, vectors = read_all_word_vectors(path)
            _require_length(vectors.shape[1], vocabulary.embedding_size, path)
            return cls(vocabulary, words, vectors)
        table = read_table(path)
        _require_length(table.embedding_size, vocabulary.embedding_size, path)
        own = set(vocabulary.names)
        added = table.subset(name for name in table.names if name not in own)
        return cls(
            Vocabulary(
                vocabulary.names + added.names,
                np.concatenate([vocabulary.embeddings, added.embeddings]),
                vocabulary.groups + added.groups,
            )
        )


def _require_length(found: int, length: int, path: pathlib.Path) -> None:
    if found != length:
        raise UserError(
            f"{path}: its embeddings have {found} numbers, the run was trained with {length}; "
            "give the file that the run was trained with"
        )


class NameTable(tf.Module):
    """Looks class names up in a graph that can be saved.

    Args:
        embeddings: what there is to find.
        folder: where the list of words is written; saving the graph copies it.
    """

    def __init__(self, embeddings: Embeddings, folder: pathlib.Path):
        super().__init__()
        vocabulary = embeddings.vocabulary
        self._size = vocabulary.embedding_size
        self._names = self._words = None
        if len(vocabulary):
            names = tf.constant(vocabulary.names)
            rows = tf.range(len(vocabulary), dtype=tf.int64)
            initializer = tf.lookup.KeyValueTensorInitializer(names, rows)
            self._names = tf.lookup.StaticHashTable(initializer, _UNKNOWN)
            self._embeddings = tf.Variable(vocabulary.embeddings, trainable=False)
        if embeddings.words:
            path = folder / "words.txt"
            path.write_bytes("".join(f"{word}\n" for word in embeddings.words).encode())
            initializer = tf.lookup.TextFileInitializer(
                str(path),
                tf.string,
                tf.lookup.TextFileIndex.WHOLE_LINE,
                tf.int64,
                tf.lookup.TextFileIndex.LINE_NUMBER,
            )
            self._words = tf.lookup.StaticHashTable(initializer, _UNKNOWN)
            self._word_vectors = tf.Variable(embeddings.word_vectors, trainable=False)

    def __call__(self, class_names: tf.Tensor) -> tf.Tensor:
        """Returns the embeddings (C, d_a), float32 and of length 1, of `class_names` (C,).

        Raises:
            tf.errors.InvalidArgumentError: when it runs, for names without an embedding; the
                message lists them.
        """
        class_names = _require_utf8(class_names)
        name_rows, word_rows = self._rows(class_names)
        whole = (name_rows >= 0) | (word_rows >= 0)
        embeddings = tf.where(
            (name_rows >= 0)[:, None],
            self._gather("_names", "_embeddings", name_rows),
            self._gather("_words", "_word_vectors", word_rows),
        )
        if self._words is None:
            problems = tf.boolean_mask(_places(class_names), ~whole)
            checked = _require_none(problems, "no such class; this model knows only its own names")
            with tf.control_dependencies([checked]):
                return _unit_rows(embeddings, class_names)
        means, problems = self._means_of_words(class_names, ~whole)
        with tf.control_dependencies([_require_none(problems, "no word vector")]):
            return _unit_rows(tf.where(whole[:, None], embeddings, means), class_names)

    def _rows(self, names: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Rows among the names and among the words: as it is, else in lower case, else -1."""
        lower = tf.strings.lower(names, encoding="utf-8")
        found = [self._lookup("_names", names), self._lookup("_words", names)]
        unknown = (found[0] < 0) & (found[1] < 0)
        in_lower_case = [self._lookup("_names", lower), self._lookup("_words", lower)]
        return tuple(tf.where(unknown, *pair) for pair in zip(in_lower_case, found, strict=True))

    def _word_row(self, words: tf.Tensor) -> tf.Tensor:
        row = self._lookup("_words", words)
        lower = self._lookup("_words", tf.strings.lower(words, encoding="utf-8"))
        return tf.where(row < 0, lower, row)

    def _lookup(self, table: str, names: tf.Tensor) -> tf.Tensor:
        table = getattr(self, table)
        if table is None:
            return tf.fill(tf.shape(names), tf.constant(_UNKNOWN, tf.int64))
        return table.lookup(names)

    def _gather(self, table: str, matrix: str, rows: tf.Tensor) -> tf.Tensor:
        if getattr(self, table) is None:
            return tf.zeros((tf.size(rows), self._size))
        return tf.gather(getattr(self, matrix), tf.maximum(rows, 0))

    def _means_of_words(self, class_names, needed):
        """The mean (C, d_a) of the word vectors of `needed` names, and what is wrong with them."""
        texts = tf.where(needed, class_names, "")
        words = tf.strings.split(tf.strings.strip(tf.strings.regex_replace(texts, _SPACES, " ")))
        # A word the table lacks is divided at hyphens and underscores, unless it is all of those.
        pieces = tf.strings.strip(tf.strings.regex_replace(words.values, "[-_]+", " "))
        kept = (self._word_row(words.values) >= 0) | tf.equal(pieces, "")
        parts = tf.strings.split(tf.where(kept, words.values, pieces))
        owner = tf.gather(words.value_rowids(), parts.value_rowids())  # row of the part's name
        rows = self._word_row(parts.values)
        count = tf.shape(class_names, tf.int64)[0]
        vectors = tf.gather(self._word_vectors, tf.maximum(rows, 0))
        means = tf.math.unsorted_segment_mean(vectors, owner, count)

        places = _places(class_names)
        lacking = tf.strings.join([tf.gather(places, owner), " (the word ", parts.values, ")"])
        empty = needed & tf.equal(words.row_lengths(), 0)
        problems = [tf.boolean_mask(lacking, rows < 0), tf.boolean_mask(places, empty)]
        return means, tf.concat(problems, axis=0)


def _places(class_names: tf.Tensor) -> tf.Tensor:
    """`class_names[i] name` for each."""
    indices = tf.strings.as_string(tf.range(tf.size(class_names)))
    return tf.strings.join(["class_names[", indices, "] ", class_names])


def _require_utf8(class_names: tf.Tensor) -> tf.Tensor:
    valid = tf.strings.unicode_transcode(class_names, "UTF-8", "UTF-8", errors="replace")
    broken = tf.boolean_mask(_places(valid), valid != class_names)
    with tf.control_dependencies([_require_none(broken, "not UTF-8")]):
        return tf.identity(class_names)


def _unit_rows(embeddings: tf.Tensor, class_names: tf.Tensor) -> tf.Tensor:
    norms = tf.norm(tf.cast(embeddings, tf.float64), axis=1, keepdims=True)
    zero = tf.boolean_mask(_places(class_names), norms[:, 0] <= 0)
    with tf.control_dependencies([_require_none(zero, "the word vectors add up to zero")]):
        unit = tf.cast(tf.cast(embeddings, tf.float64) / norms, tf.float32)
    return tf.where(tf.abs(norms - 1) < 1e-6, embeddings, unit)  # as `Vocabulary` keeps them


def _require_none(problems: tf.Tensor, what: str) -> tf.Operation:
    listed = tf.strings.reduce_join(problems[:_NAMES_IN_AN_ERROR], separator=", ")
    more = tf.maximum(tf.size(problems) - _NAMES_IN_AN_ERROR, 0)
    more = tf.where(more > 0, tf.strings.join([" and ", tf.strings.as_string(more), " more"]), "")
    return tf.debugging.Assert(
        tf.equal(tf.size(problems), 0), [tf.strings.join([listed, more, ": ", what])]
    )
