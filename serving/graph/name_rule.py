"""The text side of the rule for class names as TensorFlow operations.

`biam_tf.embeddings.names` describes the rule and holds its patterns. TensorFlow Serving has no
operation for NFC, so that names and words are compared in NFD here, which tells apart the same
ones. `decomposed` and `Decomposition` do that, in Python and in the graph.
"""

import functools
import sys
import unicodedata

import tensorflow as tf

from biam_tf.embeddings import names

_LETTERS = r"\p{L}+"
_ASCII = "[\\x00-\\x7f]*"


def decomposed(text: str) -> str:
    """Returns a text in Unicode's form NFD."""
    return unicodedata.normalize("NFD", text)


class Decomposition(tf.Module):
    """Brings strings into Unicode's form NFD, with the tables of Python's `unicodedata`."""

    def __init__(self):
        super().__init__()
        parts, classes = _parts_and_classes()
        with tf.init_scope():
            self._parts = tf.lookup.StaticHashTable(
                tf.lookup.KeyValueTensorInitializer(list(parts), list(parts.values())), ""
            )
            self._classes = tf.lookup.StaticHashTable(
                tf.lookup.KeyValueTensorInitializer(
                    list(classes), list(classes.values()), value_dtype=tf.int64
                ),
                0,
            )

    def __call__(self, texts: tf.Tensor) -> tf.Tensor:
        """Returns `texts` (N,) in NFD."""
        ascii_only = tf.reduce_all(tf.strings.regex_full_match(texts, _ASCII))
        return tf.cond(ascii_only, lambda: tf.identity(texts), lambda: self._decompose(texts))

    def _decompose(self, texts: tf.Tensor) -> tf.Tensor:
        letters = tf.strings.unicode_split(texts, "UTF-8")
        parts = self._parts.lookup(letters.values)
        parts = tf.where(parts == "", letters.values, parts)
        whole = tf.strings.reduce_join(letters.with_values(parts), axis=-1)
        letters = tf.strings.unicode_split(whole, "UTF-8")
        classes = self._classes.lookup(letters.values)
        # Accents stay behind their letter, which begins a run; each text begins one, too.
        runs = tf.cumsum(tf.cast(classes == 0, tf.int64)) + letters.value_rowids()
        order = tf.argsort(runs * 256 + classes, stable=True)
        return tf.strings.reduce_join(
            letters.with_values(tf.gather(letters.values, order)), axis=-1
        )


def lower(texts: tf.Tensor) -> tf.Tensor:
    """Returns `texts` in lower case."""
    return tf.strings.lower(texts, encoding="utf-8")


def cases(words: tf.Tensor) -> list[tf.Tensor]:
    """Returns `words` as they are written and in lower case."""
    return [words, lower(words)]


def without_id(texts: tf.Tensor) -> tf.Tensor:
    """Returns `texts` without an id of Open Images."""
    return tf.strings.regex_replace(texts, names.ID, "")


def words_of(texts: tf.Tensor) -> tf.RaggedTensor:
    """Returns the words between the spaces of `texts` (N,)."""
    return tf.strings.split(tf.strings.regex_replace(texts, names.SPACES, " "))


def readable(texts: tf.Tensor) -> tf.Tensor:
    """Returns the texts of class names, as `biam_tf.embeddings.names.readable` does."""
    found = texts
    for pattern, replacement in names.TEXT_STEPS:
        found = tf.strings.regex_replace(found, pattern, replacement)
    found = tf.strings.strip(tf.strings.regex_replace(found, names.SPACES, " "))
    divided = tf.strings.regex_replace(found, r"(\p{Ll}\p{M}*)(\p{Lu})", r"\1 \2")
    found = tf.where(tf.strings.regex_full_match(found, "[^ ]*"), divided, found)
    return tf.where(found == "", texts, found)


def table_keys(texts: tf.Tensor) -> tf.Tensor:
    """Returns the keys of texts of `readable`, as `biam_tf.embeddings.names.table_key` does."""
    return tf.strings.regex_replace(lower(texts), names.KEY_DIVIDERS, " ")


def phrases(texts: tf.Tensor) -> tf.Tensor:
    """Returns texts of `readable` as phrases of word2vec: `New_York`."""
    return tf.strings.regex_replace(texts, " ", "_")


def parts_as_written(words: tf.Tensor) -> tf.Tensor:
    """Returns `words` with spaces in the place of hyphens and underscores."""
    return tf.strings.strip(tf.strings.regex_replace(words, names.DIVIDERS, " "))


def inner_parts(words: tf.Tensor) -> tf.Tensor:
    """Returns `words` without a possessive s, with spaces for hyphens and apostrophes."""
    words = tf.strings.regex_replace(words, names.POSSESSIVE, "")
    return tf.strings.strip(tf.strings.regex_replace(words, names.INNER, " "))


def forms(words: tf.Tensor) -> list[tf.Tensor]:
    """Returns the spellings that `words` (N,) are tried by, best first; "" where there is none."""
    in_lower_case = lower(words)
    plain = tf.strings.regex_replace(in_lower_case, names.ACCENTS, "")
    letters = tf.strings.regex_full_match(plain, _LETTERS)
    found = [words, in_lower_case, plain]
    for changes, allowed in ((names.SINGULARS, True), (names.PLURALS, letters)):
        for whole, part, replacement in changes:
            changed = tf.strings.regex_replace(plain, part, replacement, replace_global=False)
            found.append(tf.where(allowed & _matches(plain, whole), changed, ""))
    return found


def is_grammar(words: tf.Tensor) -> tf.Tensor:
    """Tells which of `words` are left out where they are not known."""
    return _matches(lower(words), "|".join(sorted(names.GRAMMAR)))


def _matches(texts: tf.Tensor, pattern: str) -> tf.Tensor:
    return tf.strings.regex_full_match(texts, f"(?:{pattern})")


@functools.cache
def _parts_and_classes() -> tuple[dict[str, str], dict[str, int]]:
    """Returns what characters consist of, and the numbers that order accents behind a letter."""
    parts: dict[str, str] = {}
    classes: dict[str, int] = {}
    for code in range(128, sys.maxunicode + 1):
        character = chr(code)
        if 0xD800 <= code < 0xE000:  # half a character of UTF-16
            continue
        if (part := decomposed(character)) != character:
            parts[character] = part
        if number := unicodedata.combining(character):
            classes[character] = number
    return parts, classes
