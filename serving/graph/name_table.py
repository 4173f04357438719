"""Class names to embeddings in the graph, by the rule of `biam_tf.embeddings.names`."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import tensorflow as tf

from biam_tf.embeddings.files import read_all_word_vectors
from biam_tf.embeddings.names import NameIndex
from biam_tf.embeddings.run_encoder import JoinedSources, RunEncoder, WordVectors
from biam_tf.embeddings.sources import is_text_tower
from biam_tf.errors import UserError
from biam_tf.vocabulary import Vocabulary, read_table
from serving.graph import name_rule as rule
from serving.graph.phrase_encoder import PhraseEncoder

if TYPE_CHECKING:  # needs KerasHub
    from serving.graph.text_tower import TowerEncoder

_NAMES_IN_AN_ERROR = 20
_UNKNOWN = -1

Lookup = Callable[[tf.Tensor], tf.Tensor]


@dataclasses.dataclass(frozen=True)
class Embeddings:
    """What class names are looked up in.

    Attributes:
        vocabulary: names that are embedded as a whole.
        words: W words of which names may be made up; empty: none.
        word_vectors: (W, d_a) float32, as they stand in their file.
        encoder: embeds all names that are not in the vocabulary, alone or together with files of
            word vectors; None: there is none. There are no words beside it.
    """

    vocabulary: Vocabulary
    words: tuple[str, ...] = ()
    word_vectors: np.ndarray | None = None
    encoder: RunEncoder | JoinedSources | None = None

    def __bool__(self) -> bool:
        return bool(len(self.vocabulary) or self.words or self.encoder)

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
        table = read_table(path)
        if table is None:
            words, vectors = read_all_word_vectors(path)
            _require_length(vectors.shape[1], vocabulary.embedding_size, path)
            return cls(vocabulary, words, vectors)
        _require_length(table.embedding_size, vocabulary.embedding_size, path)
        return cls(vocabulary.extended(table))


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
        listed: names whose rows `look_up` returns, those of the run's thresholds.
        file: name of the list of words.
    """

    def __init__(
        self,
        embeddings: Embeddings,
        folder: pathlib.Path,
        listed: Sequence[str] = (),
        file: str = "words.txt",
    ):
        super().__init__()
        vocabulary = embeddings.vocabulary
        self._decompose = rule.Decomposition()
        self._names = _WholeNames(vocabulary.index)
        same = tuple(listed) == vocabulary.names
        self._listed = self._names if same else _WholeNames(NameIndex(listed))
        # Rows of the vocabulary, then those of the words.
        self._words, self._first_word = None, len(vocabulary)
        vectors = vocabulary.embeddings
        if embeddings.words:
            path = folder / file
            words = "".join(f"{rule.decomposed(word)}\n" for word in embeddings.words)
            path.write_bytes(words.encode())
            initializer = tf.lookup.TextFileInitializer(
                str(path),
                tf.string,
                tf.lookup.TextFileIndex.WHOLE_LINE,
                tf.int64,
                tf.lookup.TextFileIndex.LINE_NUMBER,
                vocab_size=len(embeddings.words),
            )
            with tf.init_scope():
                self._words = tf.lookup.StaticHashTable(initializer, _UNKNOWN)
            vectors = np.concatenate([vectors, embeddings.word_vectors])
        self._vectors = tf.Variable(vectors, trainable=False)
        self._others: list[_Phrases | NameTable] = []
        for number, part in enumerate(embeddings.encoder.parts if embeddings.encoder else ()):
            if isinstance(part, WordVectors):
                self._others.append(_table_of_words(part, folder, f"words{number}.txt"))
            else:
                self._others.append(_Phrases(part))

    @property
    def encoder_bytes(self) -> int:
        """About how much of an export is the sentence encoder."""
        return sum(part.encoder_bytes for part in self._others)

    def __call__(self, class_names: tf.Tensor) -> tf.Tensor:
        """Returns the embeddings (C, d_a) as `look_up` does."""
        return self.look_up(class_names)[0]

    def look_up(self, class_names: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns embeddings (C, d_a), float32 and of length 1, of `class_names` (C,), and rows.

        The rows (C,), int64, are those of the listed names; -1: a name is not listed.

        Raises:
            tf.errors.InvalidArgumentError: when it runs, for names without an embedding; the
                message lists them.
        """
        class_names = _require_utf8(class_names)
        spelled = _spelled(self._decompose(class_names))
        return self.embed(spelled, _labels(class_names)), self._listed(spelled)

    def embed(self, spelled: "_Spelled", labels: tf.Tensor) -> tf.Tensor:
        """Returns the embeddings (C, d_a) of C names; errors name them by their labels (C,)."""
        _, bare, texts = spelled
        rows = self._names(spelled, None if self._words is None else self._lookup_words)
        whole = rows >= 0
        if self._others:
            return self._with_others(rows, spelled, labels)
        if self._words is None:
            problems = tf.boolean_mask(labels, ~whole)
            checked = _require_none(problems, "no such class; this model knows only its own names")
            with tf.control_dependencies([checked]):
                return _unit_rows(tf.gather(self._vectors, rows), labels)
        parts = self._find_words(tf.where(whole, "", bare), tf.where(whole, "", texts))
        lacking = tf.strings.join(
            [tf.gather(labels, parts.owners), " (the word ", parts.words, ")"]
        )
        empty = ~whole & ~parts.any(tf.ones_like(parts.rows, tf.bool))
        problems = tf.concat(
            [tf.boolean_mask(lacking, parts.rows < 0), tf.boolean_mask(labels, empty)], axis=0
        )
        with tf.control_dependencies([_require_none(problems, "no word vector")]):
            rows = tf.concat([tf.boolean_mask(rows, whole), parts.rows], axis=0)
            owners = tf.concat([tf.where(whole)[:, 0], parts.owners], axis=0)
        means = tf.math.unsorted_segment_mean(
            tf.gather(self._vectors, tf.maximum(rows, 0)), owners, tf.size(labels)
        )
        return _unit_rows(means, labels)

    def _with_others(self, rows: tf.Tensor, spelled: "_Spelled", labels: tf.Tensor) -> tf.Tensor:
        """The table's rows, and for names that it lacks what the other sources make of them."""
        known, others = tf.where(rows >= 0), tf.where(rows < 0)
        own = tf.gather(self._vectors, tf.gather_nd(rows, known))
        size = self._vectors.shape[1]

        def embed_others() -> tf.Tensor:
            theirs = _Spelled(*(tf.gather_nd(texts, others) for texts in spelled))
            its_labels = tf.gather_nd(labels, others)
            parts = [part.embed(theirs, its_labels) for part in self._others]
            return tf.concat(parts, axis=1) / len(parts) ** 0.5

        embedded = tf.cond(
            tf.size(others) > 0, embed_others, lambda: tf.zeros([0, size], tf.float32)
        )
        shape = [tf.size(rows, tf.int64), size]
        return tf.scatter_nd(known, own, shape) + tf.scatter_nd(others, embedded, shape)

    def _lookup_words(self, words: tf.Tensor) -> tf.Tensor:
        assert self._words is not None
        rows = self._words.lookup(words)
        return tf.where(rows < 0, rows, rows + self._first_word)

    def _find_words(self, bare: tf.Tensor, texts: tf.Tensor) -> "_Parts":
        """Steps 3 to 5 of the rule, for names that are not ""; missing parts have row -1."""
        as_written = self._find_parts(bare, rule.cases, rule.parts_as_written)
        written = as_written.any(as_written.rows >= 0) & ~as_written.any(as_written.rows < 0)
        phrases = tf.where(written, "", rule.phrases(texts))
        rows = _first_known([self._lookup_words(spelling) for spelling in rule.cases(phrases)])
        is_phrase = rows >= 0
        numbers = tf.range(tf.size(bare, tf.int64))
        phrase = _Parts(numbers, phrases, rows, tf.size(bare))
        of_text = self._find_parts(
            tf.where(written | is_phrase, "", texts), rule.forms, rule.inner_parts
        )
        left_out = (of_text.rows < 0) & rule.is_grammar(of_text.words)
        others = of_text.any(~left_out)
        return _concatenated(
            as_written.chosen(tf.gather(written, as_written.owners)),
            phrase.chosen(is_phrase),
            of_text.chosen(~(left_out & tf.gather(others, of_text.owners))),
        )

    def _find_parts(
        self,
        names: tf.Tensor,
        spell: Callable[[tf.Tensor], list[tf.Tensor]],
        divide: Callable[[tf.Tensor], tf.Tensor],
    ) -> "_Parts":
        """Finds the words of names; one that is not known is divided, unless nothing is left."""

        def find(words: tf.Tensor) -> tf.Tensor:
            return _first_known([self._lookup_words(spelling) for spelling in spell(words)])

        words = rule.words_of(names)
        divided = divide(words.values)
        kept = (find(words.values) >= 0) | (divided == "")
        parts = tf.strings.split(tf.where(kept, words.values, divided))
        owners = tf.gather(words.value_rowids(), parts.value_rowids())
        return _Parts(owners, parts.values, find(parts.values), tf.size(names))


def _phrases(encoder: RunEncoder) -> "PhraseEncoder | TowerEncoder":
    """Returns a copy of an encoder of texts for a graph."""
    if not is_text_tower(encoder.source):
        return PhraseEncoder(encoder)
    from serving.graph.text_tower import TowerEncoder

    return TowerEncoder(encoder)


class _Phrases(tf.Module):
    """Names embedded by a sentence encoder in the graph."""

    def __init__(self, encoder: RunEncoder):
        super().__init__()
        self._phrases = _phrases(encoder)

    @property
    def encoder_bytes(self) -> int:
        return self._phrases.stored_bytes

    def embed(self, spelled: "_Spelled", labels: tf.Tensor) -> tf.Tensor:
        embedded, blank = self._phrases(spelled.texts)
        problems = tf.boolean_mask(labels, blank)
        with tf.control_dependencies([_require_none(problems, "a name without letters or signs")]):
            return tf.identity(embedded)


def _table_of_words(part: WordVectors, folder: pathlib.Path, file: str) -> NameTable:
    words, vectors = read_all_word_vectors(part.path)
    nothing = Vocabulary((), np.zeros((0, vectors.shape[1]), np.float32), ())
    return NameTable(Embeddings(nothing, words, vectors), folder, file=file)


class _Spelled(NamedTuple):
    """Names, each (C,): decomposed, then without an id of Open Images, then as text."""

    names: tf.Tensor
    bare: tf.Tensor
    texts: tf.Tensor


def _spelled(names: tf.Tensor) -> _Spelled:
    bare = rule.without_id(names)
    return _Spelled(names, bare, rule.readable(bare))


class _WholeNames(tf.Module):
    """Steps 1 and 2 of the rule: rows of whole names, -1 for others."""

    def __init__(self, index: NameIndex):
        super().__init__()
        self._names = _table(index.rows)
        self._keys = _table(index.rows_by_key)

    def __call__(self, spelled: _Spelled, also: Lookup | None = None) -> tf.Tensor:
        """Returns the rows (C,); `also` is asked for every spelling of step 1, too."""
        lookups = [self._names.lookup] if also is None else [self._names.lookup, also]
        rows = [
            lookup(spelling)
            for name in (spelled.names, spelled.bare)
            for spelling in rule.cases(name)
            for lookup in lookups
        ]
        rows += [self._names.lookup(spelling) for spelling in rule.cases(spelled.texts)]
        return _first_known([*rows, self._keys.lookup(rule.table_keys(spelled.texts))])


class _Parts(NamedTuple):
    """Words of C names: the name of each, its text, its row (-1: not known), and C."""

    owners: tf.Tensor
    words: tf.Tensor
    rows: tf.Tensor
    count: tf.Tensor

    def any(self, flags: tf.Tensor) -> tf.Tensor:
        """Tells of each name whether one of its words has the flag."""
        return tf.math.unsorted_segment_max(tf.cast(flags, tf.int32), self.owners, self.count) > 0

    def chosen(self, flags: tf.Tensor) -> "_Parts":
        """Returns the words that have the flag."""
        owners, words, rows = (tf.boolean_mask(part, flags) for part in self[:3])
        return _Parts(owners, words, rows, self.count)


def _concatenated(*parts: _Parts) -> _Parts:
    owners, words, rows = (tf.concat([p[i] for p in parts], axis=0) for i in range(3))
    return _Parts(owners, words, rows, parts[0].count)


def _first_known(rows: Sequence[tf.Tensor]) -> tf.Tensor:
    """Returns the first of several tensors of rows that is not -1, for each element."""
    found = rows[-1]
    for other in reversed(rows[:-1]):
        found = tf.where(other >= 0, other, found)
    return found


def _table(rows: Mapping[str, int]) -> tf.lookup.StaticHashTable:
    found = {rule.decomposed(name): row for name, row in rows.items()}
    found[""] = _UNKNOWN  # a table must not be empty
    with tf.init_scope():
        initializer = tf.lookup.KeyValueTensorInitializer(
            list(found), list(found.values()), tf.string, tf.int64
        )
        return tf.lookup.StaticHashTable(initializer, _UNKNOWN)


def _labels(class_names: tf.Tensor) -> tf.Tensor:
    """`class_names[i] name` for each."""
    indices = tf.strings.as_string(tf.range(tf.size(class_names)))
    return tf.strings.join(["class_names[", indices, "] ", class_names])


def _require_utf8(class_names: tf.Tensor) -> tf.Tensor:
    valid = tf.strings.unicode_transcode(class_names, "UTF-8", "UTF-8", errors="replace")
    broken = tf.boolean_mask(_labels(valid), valid != class_names)
    with tf.control_dependencies([_require_none(broken, "not UTF-8")]):
        return tf.identity(class_names)


def _unit_rows(embeddings: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    norms = tf.norm(tf.cast(embeddings, tf.float64), axis=1, keepdims=True)
    zero = tf.boolean_mask(labels, norms[:, 0] <= 0)
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
