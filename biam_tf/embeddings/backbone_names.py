"""Embeds the names of a backbone's classes in the space of a run's class embeddings."""

import pathlib

import numpy as np

from biam_tf.backbones.classifier import BackboneClasses, BackboneClassifier
from biam_tf.embeddings.sources import MINILM, SENTENCES, Embedded, embed_names
from biam_tf.errors import UserError
from biam_tf.vocabulary import Vocabulary, names_without_embedding, read_table

# Class names that are embedded a second time, to see whether the source is that of the others.
_PROBES = 20
# Mean cosine of the two embeddings of a name. Another template of MiniLM gives 0.73 and more,
# another encoder about 0.
_SAME_SOURCE = 0.6


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
    if read_table(word_vectors) is None:
        return word_vectors
    missing = names_without_embedding(word_vectors, names)
    return word_vectors if len(missing) <= len(names) // 2 else MINILM


def embed_backbone_classes(
    classifier: BackboneClassifier,
    vocabulary: Vocabulary,
    source: str,
    template: str,
    same_source: bool = False,
) -> BackboneClasses:
    """Returns a backbone's classes whose names have an embedding, with these.

    Args:
        classifier: of the backbone.
        vocabulary: the classes to score, whose embeddings must be of the same source.
        source: of the names' embeddings: a source of `embed_names`.
        template: what a sentence encoder reads, with `{name}` for the name.
        same_source: whether the vocabulary's embeddings are known to be of this source. Defaults
            to `False`: a few of them are compared.

    Raises:
        UserError: the source cannot be read, is not that of the vocabulary, or has fewer than
            half of the names.
    """
    probes = () if same_source else vocabulary.names[:_PROBES]
    embedded = embed_names(source, (*classifier.names, *probes), [template])
    length = embedded.rows.shape[1]
    if length != vocabulary.embedding_size:
        raise UserError(
            f"head.name_vectors: {source} embeds the names of the backbone's classes with {length} "
            f"numbers, the class embeddings have {vocabulary.embedding_size}; both must be of one "
            "source: set head.name_vectors to that of the class embeddings, or make these with "
            f"python -m training.embed_classes NAMES OUT.npz --source {source}"
        )
    count = len(classifier.names)
    _require_same_space(embedded, count, vocabulary, source)
    rows = [row for row, found in enumerate(embedded.found[:count]) if not found.missing]
    if len(rows) < count / 2:
        raise UserError(
            f"head.name_vectors: {source} has embeddings of only {len(rows)} of the {count} names "
            "of the backbone's classes; use another source of class embeddings"
        )
    return BackboneClasses(classifier.subset(rows), embedded.rows[rows].astype(np.float32))


def _require_same_space(
    embedded: Embedded, start: int, vocabulary: Vocabulary, source: str
) -> None:
    """Raises a UserError if names that have both embeddings have different ones."""
    cosines = [
        float(embedded.rows[start + i] @ vocabulary.embeddings[i])
        for i, found in enumerate(embedded.found[start:])
        if not found.missing
    ]
    if cosines and np.mean(cosines) < _SAME_SOURCE:
        kind = "encoder" if embedded.kind == SENTENCES else "file"
        raise UserError(
            f"head.name_vectors: {source} is another {kind} than that of the class embeddings: of "
            f"{len(cosines)} names, such as {vocabulary.names[0]!r}, the two embeddings have a "
            f"mean cosine of {np.mean(cosines):.2f}; set head.name_vectors to the source of the "
            "class embeddings"
        )


def is_same_file(source: str, word_vectors: str | None) -> bool:
    """Returns whether a source is the file of the class embeddings itself."""
    return word_vectors is not None and pathlib.Path(source) == pathlib.Path(word_vectors)
