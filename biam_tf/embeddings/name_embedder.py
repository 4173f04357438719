"""Embeds the class names that a model is asked for, one after another, in its own space."""

import functools
import pathlib
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from biam_tf.embeddings.files import look_up_in_file
from biam_tf.embeddings.names import look_up, normalize, readable, refuse_missing
from biam_tf.embeddings.run_encoder import encoder_of_run
from biam_tf.errors import UserError
from biam_tf.vocabulary import Vocabulary, read_table

# Names whose embeddings are kept in memory: 150 MB of 384 numbers each.
_KEPT_NAMES = 100_000

# Function of names to embeddings (C, d_a); raises a `UserError` that lists those without one.
Embed = Callable[[Sequence[str]], np.ndarray]


class NameEmbedder:
    """Class names to embeddings; threads may share it.

    Args:
        vocabulary: the model's own classes, which come first.
        embed_others: embeds all other names.
    """

    def __init__(self, vocabulary: Vocabulary, embed_others: Embed):
        self._vocabulary = vocabulary
        self._embed_others = embed_others
        self._others: dict[str, np.ndarray] = {}
        self._added: dict[str, np.ndarray] = {}
        self._lock = threading.Lock()

    def add(self, classes: Vocabulary) -> None:
        """Makes the names of other classes known, which replace earlier ones of the same names.

        Raises:
            UserError: a name is among the model's own, or the embeddings have another length.
        """
        size = self._vocabulary.embedding_size
        if classes.embedding_size != size:
            raise UserError(
                f"classes: embeddings of {classes.embedding_size} numbers, where the model takes "
                f"{size}; embeddings learned from photos fit the model that learned them"
            )
        self.require_new(classes.names)
        with self._lock:
            self._added |= dict(zip(classes.names, classes.embeddings, strict=True))

    def require_new(self, names: Iterable[str]) -> None:
        """Raises a `UserError` if a name is empty or among the model's own classes."""
        for name in _checked(list(names)):
            if look_up(name, None, self._vocabulary.index).row is not None:
                raise UserError(f"classes: {name!r} is a class of the model; use another name")

    def __call__(self, names: Sequence[str]) -> np.ndarray:
        """Returns the embeddings (C, d_a) of C names, float32, of length 1.

        Raises:
            UserError: there are no names, one is empty, or some have no embedding.
        """
        names = _checked(names)
        index = self._vocabulary.index
        own = {name: look_up(name, None, index).row for name in dict.fromkeys(names)}
        with self._lock:
            known = self._others | self._added
        missing = [name for name, row in own.items() if row is None and name not in known]
        if missing:
            rows = np.asarray(self._embed_others(missing), np.float64)
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            found = dict(zip(missing, rows.astype(np.float32), strict=True))
            known |= found
            with self._lock:
                if len(self._others) + len(found) > _KEPT_NAMES:
                    self._others.clear()
                self._others |= dict(list(found.items())[:_KEPT_NAMES])
        result = np.empty((len(names), self._vocabulary.embedding_size), np.float32)
        for position, name in enumerate(names):
            row = own[name]
            result[position] = known[name] if row is None else self._vocabulary.embeddings[row]
        return result


def _checked(names: Sequence[str]) -> list[str]:
    names = [names] if isinstance(names, str) else list(names)
    if not names:
        raise UserError("classes: there are none; name at least one")
    for number, name in enumerate(names, start=1):
        if not isinstance(name, str) or not any(map(_is_visible, readable(name))):
            raise UserError(
                f"classes: number {number} of {len(names)} is {name!r}; a class needs a name"
            )
    return [normalize(name) for name in names]


def _is_visible(character: str) -> bool:
    return character.isprintable() and not character.isspace()


def embed_by_settings(settings: Mapping[str, Any], vocabulary: Vocabulary) -> Embed | None:
    """Returns what embeds names that are not in a model's vocabulary, as its settings say.

    That is the file of word vectors that it was trained with, if it still exists, or the sentence
    encoder that made the vocabulary, if that is installed.

    Args:
        settings: of the run, by section and key.
        vocabulary: its classes.

    Returns:
        The function; None: neither is available.
    """
    path = settings.get("vocabulary", {}).get("word_vectors")
    if path is not None and pathlib.Path(path).is_file():
        table = read_table(path)
        if table is None:
            return functools.partial(_by_words, pathlib.Path(path), vocabulary.embedding_size)
        if table.embedding_size == vocabulary.embedding_size:
            encode = _encode_as_the_run(settings, vocabulary)
            return functools.partial(_by_table, pathlib.Path(path), table, encode)
    return _encode_as_the_run(settings, vocabulary)


def _encode_as_the_run(settings: Mapping[str, Any], vocabulary: Vocabulary) -> Embed | None:
    encoder, _ = encoder_of_run(settings, vocabulary)
    return None if encoder is None else encoder.embed


def _by_words(path: pathlib.Path, size: int, names: Sequence[str]) -> np.ndarray:
    looked_up = look_up_in_file(path, names)
    refuse_missing(names, looked_up.found, looked_up.known, f"{path}: no word vector")
    if looked_up.means.shape[1] != size:
        raise UserError(
            f"{path}: its vectors have {looked_up.means.shape[1]} numbers, the model takes {size}"
        )
    return looked_up.means


def _by_table(
    path: pathlib.Path, table: Vocabulary, encode: Embed | None, names: Sequence[str]
) -> np.ndarray:
    """Looks names up in a table; those that it lacks go to the encoder that made it."""
    found = [look_up(name, None, table.index) for name in names]
    missing = [row for row, words in enumerate(found) if words.row is None]
    if missing and encode is None:
        refuse_missing(names, found, table.names, f"{path}: no embedding")
    rows = np.empty((len(names), table.embedding_size))
    for row, words in enumerate(found):
        if words.row is not None:
            rows[row] = table.embeddings[words.row]
    if missing and encode is not None:
        rows[missing] = encode([names[row] for row in missing])
    return rows
