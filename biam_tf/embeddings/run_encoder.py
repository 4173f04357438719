"""The sentence encoder that made a run's class embeddings, for names that the run does not know."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from biam_tf.embeddings.files import look_up_in_file, read_note
from biam_tf.embeddings.names import refuse_missing
from biam_tf.embeddings.sources import (
    AUTO,
    DEFAULT_TEMPLATE,
    MINILM,
    embed_by_sentences,
    encodes_sentences,
    load_encoder,
    require_templates,
    sources_of_table,
)
from biam_tf.errors import UserError
from biam_tf.vocabulary import Vocabulary

if TYPE_CHECKING:
    from biam_tf.embeddings.sources import TextEncoder

_MINILM_SIZE = 384
# Names of the run that are embedded again, and the cosine that they must have with themselves:
# 1 but for rounding, also of files in 16 bits.
_PROBES = 16
_SAME = 0.9999
# Endings of files that embed whole names.
TABLES = (".npz", ".csv")


@dataclasses.dataclass(frozen=True)
class RunEncoder:
    """An encoder of texts and the texts that it reads.

    Attributes:
        encoder: the encoder.
        templates: its input texts, with `{name}` for the text of a class name; the vectors of
            several are averaged.
        source: "minilm", `keras_hub:PRESET` or its folder.
    """

    encoder: "TextEncoder"
    templates: tuple[str, ...]
    source: str

    @property
    def embedding_size(self) -> int:
        """Length of an embedding."""
        return self.encoder.embedding_size

    @property
    def parts(self) -> "tuple[RunEncoder, ...]":
        """The sources of an embedding, as of `JoinedSources`: this one."""
        return (self,)

    @property
    def sentences(self) -> "RunEncoder":
        """The sentence encoder among them."""
        return self

    @property
    def words(self) -> "tuple[WordVectors, ...]":
        """The files of word vectors among them."""
        return ()

    def embed(self, names: Sequence[str]) -> np.ndarray:
        """Returns the embeddings (C, d_a) of C class names, float32, of length 1.

        Raises:
            UserError: names have nothing that the encoder reads, such as spaces alone.
        """
        blank = [name for name in names if not self.encoder.reads(name)]
        if blank:
            raise UserError(f"{blank[0]!r} is no class name: {self.source} reads nothing in it")
        return embed_by_sentences(self.encoder, names, self.templates).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class WordVectors:
    """A file of word vectors, one of several sources of a run's embeddings.

    Attributes:
        path: the file.
    """

    path: pathlib.Path

    def embed(self, names: Sequence[str]) -> np.ndarray:
        """Returns the embeddings (C, d) of C class names, float64, of length 1.

        Raises:
            UserError: the file cannot be read, or words of names are not in it.
        """
        looked_up = look_up_in_file(self.path, names)
        refuse_missing(names, looked_up.found, looked_up.known, f"{self.path}: no word vector")
        means = np.asarray(looked_up.means, np.float64)
        return means / np.linalg.norm(means, axis=1, keepdims=True)


@dataclasses.dataclass(frozen=True)
class JoinedSources:
    """Several sources of a run, one of them a sentence encoder; their embeddings are concatenated.

    A name needs an embedding in each of them: one whose words have no vector is refused, as half of
    an embedding would be that of another class.

    Attributes:
        parts: in their order.
    """

    parts: tuple[RunEncoder | WordVectors, ...]

    @property
    def sentences(self) -> RunEncoder:
        """The sentence encoder."""
        return next(part for part in self.parts if isinstance(part, RunEncoder))

    @property
    def words(self) -> tuple[WordVectors, ...]:
        """The files of word vectors."""
        return tuple(part for part in self.parts if isinstance(part, WordVectors))

    def embed(self, names: Sequence[str]) -> np.ndarray:
        """Returns the embeddings (C, d_a) of C class names, float32, of length 1.

        Raises:
            UserError: names have no embedding in one of the sources.
        """
        rows = np.concatenate([part.embed(names) for part in self.parts], axis=1)
        return (rows / np.sqrt(len(self.parts))).astype(np.float32)


def encoder_of_run(
    settings: Mapping[str, Any],
    vocabulary: Vocabulary,
    source: str | None = None,
    templates: Sequence[str] | None = None,
) -> tuple[RunEncoder | JoinedSources | None, str | None]:
    """Returns the sentence encoder of a run, checked on the run's own classes.

    If a sentence encoder and word vectors made the embeddings together, both are returned.

    Args:
        settings: of the run, by section and key.
        vocabulary: its classes.
        source: "minilm" or the folder of an encoder; None for the one that made the vocabulary:
            as the run's settings or its file of embeddings say, else all-MiniLM-L6-v2 if it is
            installed and gives the same embeddings.
        templates: its input texts; None for those that are recorded, else "a photo of {name}".

    Returns:
        The encoder, None where there is none; and why it is missing, None where nothing says that
        a sentence encoder made the vocabulary.

    Raises:
        UserError: `source` is given, but cannot be read or does not embed the run's classes as
            the run does.
    """
    recorded, described = _recorded(settings), _described(settings)
    texts = next((texts for _, texts in recorded if texts), None)
    chosen = tuple(templates or texts or (DEFAULT_TEMPLATE,))
    require_templates(chosen)
    if source is not None and not encodes_sentences(source):
        raise UserError(f"{source}: no folder of a sentence encoder; give one, or {MINILM}")
    if source is None and recorded and texts is None:  # word vectors or a table
        return None, None
    fits = len(vocabulary) and vocabulary.embedding_size == _MINILM_SIZE
    if source is None and not recorded and not fits:
        return None, None
    try:
        if len(recorded) > 1 and texts is not None:
            return _joined(recorded, source, chosen, vocabulary, described), None
        place = source or (recorded[0][0] if recorded else MINILM)
        encoder = RunEncoder(load_encoder(place), chosen, place)
        _check(encoder, encoder.embedding_size, vocabulary, place, chosen, described)
        return encoder, None
    except UserError as error:
        if source is not None:
            raise
        return None, str(error)


def _joined(
    recorded: Sequence[tuple[str, tuple[str, ...] | None]],
    source: str | None,
    templates: tuple[str, ...],
    vocabulary: Vocabulary,
    described: frozenset[str],
) -> JoinedSources:
    """Returns the sources that made the embeddings of a vocabulary together."""
    listed = ", ".join(name for name, _ in recorded)
    of = f"the run's embeddings are those of {len(recorded)} sources in one ({listed})"
    if sum(texts is not None for _, texts in recorded) > 1:
        raise UserError(f"{of}, several of which are sentence encoders")
    parts: list[RunEncoder | WordVectors] = []
    for name, texts in recorded:
        if texts is not None:
            place = source or name
            parts.append(RunEncoder(load_encoder(place), templates, place))
            continue
        path = pathlib.Path(name)
        if not path.is_file():
            raise UserError(f"{of}, and {name} is not there; bring it back")
        if path.suffix.lower() in TABLES:
            raise UserError(f"{of}, and the table {name} embeds its own names only")
        parts.append(WordVectors(path))
    joined = JoinedSources(tuple(parts))
    first = vocabulary.names[:1]
    size = joined.embed(first).shape[1] if first else vocabulary.embedding_size
    _check(joined, size, vocabulary, listed, templates, described)
    return joined


def _check(
    found: RunEncoder | JoinedSources,
    size: int,
    vocabulary: Vocabulary,
    source: str,
    templates: tuple[str, ...],
    described: frozenset[str],
) -> None:
    """Raises a UserError unless classes of a vocabulary are embedded as they are embedded there.

    Classes that are `described`, by texts other than the templates, are not compared.
    """
    if size != vocabulary.embedding_size:
        raise UserError(
            f"{source}: its embeddings have {size} numbers, the run was trained with "
            f"{vocabulary.embedding_size}; give the encoder that the run was trained with"
        )
    named = [row for row, name in enumerate(vocabulary.names) if name not in described]
    if not named:
        return
    rows = np.unique(np.asarray(named)[np.linspace(0, len(named) - 1, _PROBES).astype(int)])
    names = [vocabulary.names[row] for row in rows]
    cosines = (found.embed(names) * vocabulary.embeddings[rows]).sum(axis=1)
    worst = int(np.argmin(cosines))
    if cosines[worst] < _SAME:
        read = " and ".join(map(repr, templates))
        raise UserError(
            f"{source} with the text {read} did not make the run's embeddings: that of "
            f"{names[worst]!r} has cosine {cosines[worst]:.3f} with the run's; name the "
            "encoder and the texts (--template) that the run's classes were embedded with"
        )


def _note(settings: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Returns how a run's file of embeddings was made; None: there is no such note."""
    file = settings.get("vocabulary", {}).get("word_vectors")
    note = None if file is None or encodes_sentences(file) else read_note(pathlib.Path(file))
    if note is None:
        return None
    try:
        made = json.loads(note)
        return made if isinstance(made, dict) else {}
    except ValueError:
        return {}


def _described(settings: Mapping[str, Any]) -> frozenset[str]:
    """Returns the classes of a run that are embedded by descriptions."""
    described = (_note(settings) or {}).get("described") or ()
    return frozenset(map(str, described))


def _recorded(settings: Mapping[str, Any]) -> list[tuple[str, tuple[str, ...] | None]]:
    """Returns the sources of a run's embeddings, if they are known, and the texts of encoders."""
    vocabulary = settings.get("vocabulary", {})
    source = vocabulary.get("word_vectors")
    if source is not None and encodes_sentences(source):
        return [(str(source), tuple(vocabulary.get("templates") or (DEFAULT_TEMPLATE,)))]
    if source is not None and read_note(pathlib.Path(source)) is not None:
        return sources_of_table(pathlib.Path(source))
    head = settings.get("head", {})
    source = head.get("name_vectors")
    if source and source != AUTO:
        template = str(head.get("template") or DEFAULT_TEMPLATE)
        return [(each.strip(), (template,)) for each in str(source).split(" + ")]
    return []
