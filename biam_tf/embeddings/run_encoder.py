"""The sentence encoder that made a run's class embeddings, for names that the run does not know."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from biam_tf.embeddings.files import read_note
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

    def embed(self, names: Sequence[str]) -> np.ndarray:
        """Returns the embeddings (C, d_a) of C class names, float32, of length 1.

        Raises:
            UserError: names have nothing that the encoder reads, such as spaces alone.
        """
        blank = [name for name in names if not self.encoder.reads(name)]
        if blank:
            raise UserError(f"{blank[0]!r} is no class name: {self.source} reads nothing in it")
        return embed_by_sentences(self.encoder, names, self.templates).astype(np.float32)


def encoder_of_run(
    settings: Mapping[str, Any],
    vocabulary: Vocabulary,
    source: str | None = None,
    templates: Sequence[str] | None = None,
) -> tuple[RunEncoder | None, str | None]:
    """Returns the sentence encoder of a run, checked on the run's own classes.

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
    if source is not None:
        if not encodes_sentences(source):
            raise UserError(f"{source}: no folder of a sentence encoder; give one, or {MINILM}")
        return _checked(source, chosen, vocabulary, described), None
    if recorded and texts is None:  # word vectors or a table
        return None, None
    if len(recorded) > 1:
        parts = ", ".join(source for source, _ in recorded)
        return None, f"the run's embeddings are those of {len(recorded)} sources in one ({parts})"
    if not recorded and (not len(vocabulary) or vocabulary.embedding_size != _MINILM_SIZE):
        return None, None
    try:
        chosen_source = recorded[0][0] if recorded else MINILM
        return _checked(chosen_source, chosen, vocabulary, described), None
    except UserError as error:
        return None, str(error)


def _checked(
    source: str, templates: tuple[str, ...], vocabulary: Vocabulary, described: frozenset[str]
) -> RunEncoder:
    """Reads an encoder that embeds the classes of a vocabulary as they are embedded there.

    Classes that are `described`, by texts other than the templates, are not compared.
    """
    found = RunEncoder(load_encoder(source), templates, source)
    size = vocabulary.embedding_size
    if found.embedding_size != size:
        raise UserError(
            f"{source}: its embeddings have {found.embedding_size} numbers, the run was trained "
            f"with {size}; give the encoder that the run was trained with"
        )
    named = [row for row, name in enumerate(vocabulary.names) if name not in described]
    if named:
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
    return found


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
