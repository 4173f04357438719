"""Embeds class names by word vectors, a table or a sentence encoder, and reports how.

`Vocabulary.from_file` looks names up by the same rule (`biam_tf.embeddings.names`) but refuses
missing ones; this is for making a file of embeddings once and checking what each name was found by.
"""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from biam_tf.embeddings.files import (
    look_up_in_file,
    read_arrays,
    read_attribute_table,
    read_note,
)
from biam_tf.embeddings.names import NameIndex, Words, look_up, readable
from biam_tf.errors import UserError, nearest_words
from biam_tf.legacy_formats.pickled_arrays import read_pickled_arrays
from biam_tf.vocabulary import Vocabulary

if TYPE_CHECKING:
    from biam_tf.embeddings.sentence_encoder import SentenceEncoder
    from biam_tf.embeddings.text_tower import TextTower

    TextEncoder = SentenceEncoder | TextTower

MINILM = "minilm"
PRESET_PREFIX = "keras_hub:"
AUTO = "auto"  # of a setting: the source is found by the other settings
PLACE = "{name}"
DEFAULT_TEMPLATE = f"a photo of {PLACE}"
SENTENCES = "sentence encoder"
TEXT_TOWER = "text encoder of an image-text model"

# Texts that describe a class, by its name.
Descriptions = Mapping[str, Sequence[str]]


def encodes_sentences(source: str) -> bool:
    """Returns whether a source is an encoder of texts, which takes templates."""
    return source == MINILM or is_text_tower(source) or pathlib.Path(source).is_dir()


def is_text_tower(source: str) -> bool:
    """Returns whether a source is the text side of an image-text model of KerasHub."""
    return source.startswith(PRESET_PREFIX)


def load_encoder(source: str) -> "TextEncoder":
    """Reads the encoder of texts that a source names.

    Raises:
        UserError: it cannot be read.
    """
    if is_text_tower(source):
        from biam_tf.embeddings.text_tower import TextTower

        return TextTower.load(source)
    from biam_tf.embeddings.sentence_encoder import SentenceEncoder, minilm_folder

    return SentenceEncoder.load(minilm_folder() if source == MINILM else source)


@dataclasses.dataclass(frozen=True)
class Found:
    """The result of looking one name up in one source.

    Attributes:
        name: the class name.
        texts: the words or sentences that were embedded; of a missing name, the unknown words.
        how: the steps of the rule that were needed; empty: none.
        missing: whether there is no embedding.
        nearest: similar known words, for a missing name.
    """

    name: str
    texts: tuple[str, ...]
    how: str = ""
    missing: bool = False
    nearest: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Embedded:
    """C names embedded by one source.

    Attributes:
        source: as it was given to `embed_names`.
        kind: of the source, in words.
        file: that the numbers come from.
        rows: (C, d) float64, of length 1; zeros for a missing name.
        found: C entries, what each name was found by.
        space: fingerprint of the space of an image-text model; None: of none.
    """

    source: str
    kind: str
    file: pathlib.Path
    rows: np.ndarray
    found: tuple[Found, ...]
    space: str | None = None

    @property
    def missing(self) -> tuple[Found, ...]:
        """The names without an embedding."""
        return tuple(found for found in self.found if found.missing)


def embed_names(
    source: str,
    names: Sequence[str],
    templates: Sequence[str],
    progress: Callable[[int], object] = lambda count: None,
    descriptions: Descriptions | None = None,
) -> Embedded:
    """Embeds names by one source.

    Args:
        source: "minilm", `keras_hub:PRESET`, the folder of a sentence encoder, or a file: .npz, a
            table .csv, or word vectors.
        names: C names.
        templates: input texts of an encoder, in which `{name}` is replaced by the name's text. The
            vectors of several, each of length 1, are averaged.
        progress: called with the number of texts that an encoder has just embedded.
        descriptions: texts that an encoder reads instead of the templates, for some of the names.

    Raises:
        UserError: the source cannot be read. A name without embedding is no error here.
    """
    if encodes_sentences(source):
        return _by_sentences(source, names, templates, progress, descriptions or {})
    path = pathlib.Path(source)
    if path.suffix.lower() == ".npz":
        arrays = read_arrays(path)
        rows = np.asarray(arrays["embeddings"], np.float64)
        return _by_table(source, "embeddings (.npz)", tuple(map(str, arrays["names"])), rows, names)
    if path.suffix.lower() == ".csv":
        table = read_attribute_table(path, allow_not_finite=True)
        return _by_table(source, "table of attributes", *table, names)
    return _by_words(source, names)


def sources_of_table(path: pathlib.Path) -> list[tuple[str, tuple[str, ...] | None]]:
    """Returns the sources that an `.npz` file of embeddings says it was made from.

    Each is a source of `embed_names`, and the templates of a sentence encoder, else None. The list
    is empty where the file says nothing.
    """
    note = read_note(path)
    if note is None:
        return []
    try:
        return [
            (str(each["source"]), tuple(each["templates"]) if "templates" in each else None)
            for each in json.loads(note)["sources"]
        ]
    except (ValueError, KeyError, TypeError):
        return []


def embed_names_by_pickle(path: str, row_names: Sequence[str], names: Sequence[str]) -> Embedded:
    """Embeds names by the arrays of a published pickle, without running it.

    Args:
        path: the pickle of an array (R, d), of a list of arrays that are concatenated, or of a
            dictionary from names to vectors.
        row_names: R names of the rows, not used with a dictionary; the first row of a repeated
            name is used.
        names: C names to look up among them.

    Raises:
        UserError: the pickle contains anything else, or another number of rows.
    """
    table = _table_in(read_pickled_arrays(path), row_names, path)
    return _by_table(path, "pickled arrays", *table, names)


def concatenate(parts: Sequence[Embedded]) -> np.ndarray:
    """Returns the concatenated rows of several sources, (C, d1 + d2 + …).

    The rows of each source have length 1, so that all sources have the same weight.
    """
    return np.concatenate([part.rows for part in parts], axis=1)


def _by_words(source: str, names: Sequence[str]) -> Embedded:
    path = pathlib.Path(source)
    looked_up = look_up_in_file(path, names)
    found = _found(names, looked_up.found, looked_up.known)
    return Embedded(source, "word vectors", path, _unit(looked_up.means, found, source), found)


def _by_table(
    source: str, kind: str, keys: Sequence[str], table: np.ndarray, names: Sequence[str]
) -> Embedded:
    if table.ndim != 2 or len(table) != len(keys):
        raise UserError(f"{source}: {len(keys)} names, but embeddings of shape {table.shape}")
    index = NameIndex(keys)
    looked_up = [look_up(name, None, index) for name in names]
    rows = np.zeros((len(names), table.shape[1]))
    for row, words in enumerate(looked_up):
        if words.row is not None:
            rows[row] = table[words.row]
    found = _found(names, looked_up, index.rows)
    return Embedded(source, kind, pathlib.Path(source), _unit(rows, found, source), found)


def _found(
    names: Sequence[str], looked_up: Sequence[Words], known: Collection[str]
) -> tuple[Found, ...]:
    found = []
    for name, words in zip(names, looked_up, strict=True):
        if words.missing:
            nearest = tuple(n for word in words.missing for n in nearest_words(word, known))
            found.append(Found(name, words.missing, "", True, nearest))
        else:
            found.append(Found(name, words.found, ", ".join(words.how)))
    return tuple(found)


def _by_sentences(
    source: str,
    names: Sequence[str],
    templates: Sequence[str],
    progress: Callable[[int], object],
    descriptions: Descriptions,
) -> Embedded:
    require_templates(templates)
    encoder = load_encoder(source)
    rows = embed_by_sentences(encoder, names, templates, progress, descriptions)
    found = tuple(_found_by_sentences(encoder, n, templates, descriptions) for n in names)
    rows[[each.missing for each in found]] = 0
    kind = TEXT_TOWER if is_text_tower(source) else SENTENCES
    rows = _unit(rows, found, source)
    return Embedded(source, kind, encoder.weights_file, rows, found, encoder.space)


def require_templates(templates: Sequence[str]) -> None:
    """Checks that there is a place for the name in each text that a sentence encoder reads.

    Raises:
        UserError: a text has none.
    """
    for template in templates:
        if PLACE not in template:
            raise UserError(
                f"--template {template!r}: has no {PLACE}; write for example 'a photo of {PLACE}'"
            )


def texts_of(
    name: str, templates: Sequence[str], descriptions: Descriptions | None = None
) -> tuple[str, ...]:
    """Returns the texts that an encoder reads for a class: its descriptions, or else templates.

    Args:
        name: the class.
        templates: with `{name}` for the name's text.
        descriptions: of some classes, in which `{name}` may stand, too.
    """
    text = readable(name)
    chosen = (descriptions or {}).get(name) or templates
    return tuple(template.replace(PLACE, text) for template in chosen)


def embed_by_sentences(
    encoder: "TextEncoder",
    names: Sequence[str],
    templates: Sequence[str],
    progress: Callable[[int], object] = lambda count: None,
    descriptions: Descriptions | None = None,
) -> np.ndarray:
    """Returns the embeddings (C, d) of C names by an encoder of texts, float64, of length 1.

    Args:
        encoder: the encoder.
        names: C class names.
        templates: its input texts, in which `{name}` is replaced by the name's text. The vectors
            of several, each of length 1, are averaged.
        progress: called with the number of texts that were just embedded.
        descriptions: texts that are read instead of the templates, for some of the names.
    """
    texts = [texts_of(name, templates, descriptions) for name in names]
    owners = np.repeat(np.arange(len(names)), [len(own) for own in texts])
    encoded = encoder.encode([text for own in texts for text in own], progress)
    rows = np.zeros((len(names), encoder.embedding_size))
    np.add.at(rows, owners, encoded.astype(np.float64))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _found_by_sentences(
    encoder: "TextEncoder", name: str, templates: Sequence[str], descriptions: Descriptions
) -> Found:
    if not encoder.reads(readable(name)):
        return Found(name, (name,), "", True)
    texts = texts_of(name, templates, descriptions)
    how = ["as text"] * (readable(name) != name) + ["descriptions"] * bool(descriptions.get(name))
    how += ["truncated"] * any(map(encoder.truncates, texts))
    return Found(name, texts, ", ".join(how))


def vocabulary_of(
    source: str,
    names: Sequence[str],
    groups: Sequence[str] | None = None,
    templates: Sequence[str] = (DEFAULT_TEMPLATE,),
    descriptions: Descriptions | None = None,
) -> Vocabulary:
    """Embeds the classes of a data set by a file, as `Vocabulary.from_file` does, or an encoder.

    Args:
        source: a file, or an encoder of texts: `keras_hub:PRESET`, "minilm" or a folder.
        names: C class names.
        groups: their groups; None: all seen.
        templates: what an encoder reads, see `embed_names`.
        descriptions: texts that it reads instead, for some of the names.

    Raises:
        UserError: the source cannot be read, or a class has no embedding.
    """
    if not encodes_sentences(source):
        return Vocabulary.from_file(source, names, groups)
    embedded = embed_names(source, names, templates, descriptions=descriptions)
    if embedded.missing:
        listed = ", ".join(repr(found.name) for found in embedded.missing[:20])
        raise UserError(f"{source}: reads nothing in the names {listed}; rename these classes")
    return Vocabulary(tuple(names), embedded.rows, tuple(groups or ("seen",) * len(names)))


def _unit(rows: np.ndarray, found: Sequence[Found], source: str) -> np.ndarray:
    """Returns rows of length 1; rows of missing names stay zero."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    for row, length in enumerate(lengths[:, 0]):
        if not found[row].missing and not 0 < length < np.inf:
            problem = "all zero" if length == 0 else "not finite"
            raise UserError(f"{source}: the embedding of {found[row].name!r} is {problem}")
    return rows / np.where(lengths > 0, lengths, 1.0)


def _table_in(
    value: object, row_names: Sequence[str], path: str
) -> tuple[tuple[str, ...], np.ndarray]:
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise UserError(f"{path}: a dictionary whose keys are not all names")
        row_names, value = tuple(value), list(value.values())
        parts = [np.atleast_2d(_numbers(entry, path)) for entry in value]
    else:
        arrays = value if isinstance(value, (list, tuple)) else [value]
        parts = [_numbers(array, path) for array in arrays]
    if not parts or any(part.ndim != 2 or part.shape[1] != parts[0].shape[1] for part in parts):
        shapes = ", ".join(str(part.shape) for part in parts[:5])
        raise UserError(f"{path}: expected arrays (names, numbers) of one length, found {shapes}")
    rows = np.concatenate(parts)
    if len(rows) != len(row_names):
        counts = " + ".join(str(len(part)) for part in parts[:5])
        raise UserError(
            f"{path}: holds {len(rows)} rows ({counts}), but {len(row_names)} names are given for "
            "them; name the lists that its rows stand for, in their order, with --row-names"
        )
    return tuple(row_names), rows


def _numbers(value: object, path: str) -> np.ndarray:
    if not isinstance(value, (np.ndarray, list, tuple)):
        raise UserError(f"{path}: holds a {type(value).__name__} where numbers were expected")
    try:
        return np.asarray(value, np.float64)
    except (ValueError, TypeError):
        raise UserError(f"{path}: holds something else than numbers") from None
