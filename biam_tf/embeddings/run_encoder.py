"""The sentence encoder that made a run's class embeddings, for names that the run does not know."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from biam_tf.embeddings.files import read_note
from biam_tf.embeddings.sources import (
    MINILM,
    PLACE,
    embed_by_sentences,
    encodes_sentences,
    require_templates,
)
from biam_tf.errors import UserError
from biam_tf.vocabulary import Vocabulary

if TYPE_CHECKING:
    from biam_tf.embeddings.sentence_encoder import SentenceEncoder

DEFAULT_TEMPLATE = f"a photo of {PLACE}"
_MINILM_SIZE = 384
# Names of the run that are embedded again, and the cosine that they must have with themselves:
# 1 but for rounding, also of files in 16 bits.
_PROBES = 16
_SAME = 0.9999


@dataclasses.dataclass(frozen=True)
class RunEncoder:
    """A sentence encoder and the texts that it reads.

    Attributes:
        encoder: the encoder.
        templates: its input texts, with `{name}` for the text of a class name; the vectors of
            several are averaged.
        source: "minilm" or its folder.
    """

    encoder: "SentenceEncoder"
    templates: tuple[str, ...]
    source: str

    @property
    def embedding_size(self) -> int:
        """Length of an embedding."""
        return self.encoder.model.output_shape[-1]

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
    recorded = _recorded(settings)
    texts = next((texts for _, texts in recorded if texts), None)
    chosen = tuple(templates or texts or (DEFAULT_TEMPLATE,))
    require_templates(chosen)
    if source is not None:
        if not encodes_sentences(source):
            raise UserError(f"{source}: no folder of a sentence encoder; give one, or {MINILM}")
        return _checked(source, chosen, vocabulary), None
    if recorded and texts is None:  # word vectors or a table
        return None, None
    if len(recorded) > 1:
        parts = ", ".join(source for source, _ in recorded)
        return None, f"the run's embeddings are those of {len(recorded)} sources in one ({parts})"
    if not recorded and (not len(vocabulary) or vocabulary.embedding_size != _MINILM_SIZE):
        return None, None
    try:
        return _checked(recorded[0][0] if recorded else MINILM, chosen, vocabulary), None
    except UserError as error:
        return None, str(error)


def _checked(source: str, templates: tuple[str, ...], vocabulary: Vocabulary) -> RunEncoder:
    """Reads an encoder that embeds the classes of a vocabulary as they are embedded there."""
    from biam_tf.embeddings.sentence_encoder import SentenceEncoder, minilm_folder

    encoder = SentenceEncoder.load(minilm_folder() if source == MINILM else source)
    found = RunEncoder(encoder, templates, source)
    size = vocabulary.embedding_size
    if found.embedding_size != size:
        raise UserError(
            f"{source}: its embeddings have {found.embedding_size} numbers, the run was trained "
            f"with {size}; give the encoder that the run was trained with"
        )
    if len(vocabulary):
        rows = np.unique(np.linspace(0, len(vocabulary) - 1, _PROBES).astype(int))
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


def _recorded(settings: Mapping[str, Any]) -> list[tuple[str, tuple[str, ...] | None]]:
    """Returns the sources of a run's embeddings, if they are known, and the texts of encoders."""
    file = settings.get("vocabulary", {}).get("word_vectors")
    note = None if file is None else read_note(pathlib.Path(file))
    if note is not None:
        try:
            return [
                (str(each["source"]), tuple(each["templates"]) if "templates" in each else None)
                for each in json.loads(note)["sources"]
            ]
        except (ValueError, KeyError, TypeError):
            return []
    head = settings.get("head", {})
    if source := head.get("name_vectors"):
        return [(str(source), (str(head.get("template") or DEFAULT_TEMPLATE),))]
    return []
