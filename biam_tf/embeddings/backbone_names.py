"""Embeds the names of a backbone's classes in the space of a run's class embeddings.

A table of embeddings (`.npz`) holds the names of a data set, seldom those of a backbone's
classes. These are then embedded by the sources that the table says it was made from, which are
concatenated as there. A name that none of the sources has is left out; where one of several
sources lacks it, the mean of the other names stands in that part, which gives the name no
direction there.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np

from biam_tf.backbones.classifier import BackboneClasses, BackboneClassifier
from biam_tf.embeddings.sources import (
    AUTO,
    MINILM,
    SENTENCES,
    Embedded,
    embed_names,
    encodes_sentences,
    sources_of_table,
)
from biam_tf.errors import UserError
from biam_tf.vocabulary import Vocabulary, names_without_embedding, read_table

# Class names that are embedded a second time, to see whether the source is that of the others.
_PROBES = 20
# Mean cosine of the two embeddings of a name. Another template of MiniLM gives 0.73 and more,
# another encoder about 0.
_SAME_SOURCE = 0.6


@dataclasses.dataclass(frozen=True)
class NameSource:
    """A source of embeddings, and what it reads.

    Attributes:
        source: a source of `embed_names`.
        templates: what a sentence encoder reads, with `{name}` for the name.
    """

    source: str
    templates: tuple[str, ...]


def name_source(names: tuple[str, ...], name_vectors: str | None, word_vectors: str | None) -> str:
    """Returns where names of a backbone's classes are looked up.

    Args:
        names: the names.
        name_vectors: the source that the settings name; None: none.
        word_vectors: the file of the class embeddings; None: the data set's attributes.

    Returns:
        `name_vectors`, or else `word_vectors` if they have most of the names, or else minilm.
    """
    if name_vectors is not None:
        return name_vectors
    if word_vectors is None:
        return MINILM
    if encodes_sentences(word_vectors):
        return word_vectors
    if read_table(word_vectors) is None:
        return word_vectors
    missing = names_without_embedding(word_vectors, names)
    return word_vectors if len(missing) <= len(names) // 2 else MINILM


def name_sources(
    names: tuple[str, ...],
    name_vectors: str | None,
    word_vectors: str | None,
    template: str,
    templates: Sequence[str] = (),
) -> tuple[NameSource, ...]:
    """Returns where names of a backbone's classes are looked up: as `name_source`, or in several.

    Args:
        names: the names.
        name_vectors: the source that the settings name, or several, separated by `" + "`; None or
            "auto": none.
        word_vectors: the file of the class embeddings; None: the data set's attributes.
        template: what a sentence encoder reads, unless the file of the class embeddings says it.
        templates: of `word_vectors`, where that is an encoder. Defaults to none: `template`.

    Returns:
        `name_vectors`, or else `word_vectors` if they have most of the names, or the sources that
        these were made from, or else minilm.
    """
    if name_vectors not in (None, AUTO):
        return tuple(NameSource(each.strip(), (template,)) for each in name_vectors.split(" + "))
    source = name_source(names, None, word_vectors)
    if source == word_vectors and encodes_sentences(source):
        return (NameSource(source, tuple(templates) or (template,)),)
    if source == MINILM and word_vectors is not None:
        made_from = sources_of_table(pathlib.Path(word_vectors)) or [(MINILM, None)]
        return tuple(NameSource(each, texts or (template,)) for each, texts in made_from)
    return (NameSource(source, (template,)),)


def embed_backbone_classes(
    classifier: BackboneClassifier,
    vocabulary: Vocabulary,
    source: str | Sequence[NameSource],
    template: str,
    same_source: bool = False,
) -> BackboneClasses:
    """Returns a backbone's classes whose names have an embedding, with these.

    Args:
        classifier: of the backbone.
        vocabulary: the classes to score, whose embeddings must be of the same source.
        source: of the names' embeddings: a source of `embed_names`, or several, whose embeddings
            are concatenated.
        template: what a sentence encoder reads, with `{name}` for the name, where `source` is a
            text.
        same_source: whether the vocabulary's embeddings are known to be of this source. Defaults
            to `False`: a few of them are compared.

    Raises:
        UserError: a source cannot be read, is not that of the vocabulary, or has fewer than half
            of the names.
    """
    sources = (NameSource(source, (template,)),) if isinstance(source, str) else tuple(source)
    names = (*classifier.names, *(() if same_source else vocabulary.names[:_PROBES]))
    parts = [embed_names(each.source, names, each.templates) for each in sources]
    count, listed = len(classifier.names), listed_sources(sources)
    missing = np.array([[found.missing for found in part.found] for part in parts])
    length = sum(part.rows.shape[1] for part in parts)
    if length != vocabulary.embedding_size:
        raise UserError(
            f"head.name_vectors: {listed} embeds the names of the backbone's classes with {length} "
            f"numbers, the class embeddings have {vocabulary.embedding_size}; both must be of one "
            "source: set head.name_vectors to that of the class embeddings, or make these with "
            f"python -m training.embed_classes NAMES OUT.npz --source {sources[0].source}"
        )
    for part, lacks in zip(parts, missing[:, :count], strict=True):
        if lacks.sum() > count / 2:
            raise UserError(
                f"head.name_vectors: {part.source} has embeddings of only {count - lacks.sum()} of "
                f"the {count} names of the backbone's classes; use another source of class "
                "embeddings"
            )
    rows = np.concatenate([_with_means(part, count) for part in parts], axis=1)
    rows /= np.sqrt(len(parts))
    probed = np.logical_not(missing[:, count:].any(axis=0))
    _require_same_space(rows[count:], probed, vocabulary, listed, parts)
    kept = np.flatnonzero(~missing[:, :count].all(axis=0)).tolist()
    return BackboneClasses(classifier.subset(kept), rows[kept].astype(np.float32))


def listed_sources(sources: Sequence[NameSource]) -> str:
    """Returns the sources as `head.name_vectors` names them."""
    return " + ".join(each.source for each in sources)


def _with_means(part: Embedded, count: int) -> np.ndarray:
    """Returns the rows of a source; in place of missing ones, the mean of the first `count`."""
    missing = np.array([found.missing for found in part.found])
    rows = part.rows.copy()
    rows[missing] = rows[:count][~missing[:count]].mean(axis=0)
    return rows


def _require_same_space(
    rows: np.ndarray,
    known: np.ndarray,
    vocabulary: Vocabulary,
    listed: str,
    parts: Sequence[Embedded],
) -> None:
    """Raises a UserError if names that have both embeddings have different ones.

    Args:
        rows: embeddings of the first names of the vocabulary.
        known: for each of them whether all sources have it.
    """
    cosines = (rows * vocabulary.embeddings[: len(rows)]).sum(axis=1)[known]
    if len(cosines) and np.mean(cosines) < _SAME_SOURCE:
        kind = "encoder" if parts[0].kind == SENTENCES else "file"
        raise UserError(
            f"head.name_vectors: {listed} is another {kind} than that of the class embeddings: of "
            f"{len(cosines)} names, such as {vocabulary.names[0]!r}, the two embeddings have a "
            f"mean cosine of {np.mean(cosines):.2f}; set head.name_vectors to the source of the "
            "class embeddings"
        )


def is_same_file(source: str, word_vectors: str | None) -> bool:
    """Returns whether a source is the file of the class embeddings itself."""
    return word_vectors is not None and pathlib.Path(source) == pathlib.Path(word_vectors)
