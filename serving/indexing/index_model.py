"""What an index needs of its model: embeddings of new names, and scores of stored features."""

import os
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from biam_tf.embeddings.files import look_up_in_file
from biam_tf.embeddings.names import look_up, normalize, refuse_missing
from biam_tf.errors import UserError, plain_message
from biam_tf.vocabulary import Vocabulary, read_table, require_embedding_size
from serving.indexing.manifest import IndexManifest
from serving.rpc.version_folders import takes_any_phrase

# Region features (B, h, w, channels), scene features (B, d_g) and class embeddings (C, d_a) to
# scores (B, C).
Rescore = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def embed_names(
    vocabulary: Vocabulary,
    manifest: IndexManifest,
    names: Sequence[str],
    word_vectors: str | os.PathLike | None,
) -> np.ndarray:
    """Returns the embeddings (C, d_a) of class names; see `PhotoIndex.embed`.

    Args:
        vocabulary: the classes of the index's model.
        manifest: of the index.
        names: C class names.
        word_vectors: file with embeddings of other names; None: there is none.

    Raises:
        UserError: lists the names without an embedding, each with the nearest known one.
    """
    known = vocabulary
    way_out = "correct these, or give word vectors for classes that are new to the model"
    if word_vectors is not None and not all(normalize(n) in known.index.rows for n in names):
        table = read_table(word_vectors)
        if table is None:
            return _embed_by_words(vocabulary, manifest, names, pathlib.Path(word_vectors))
        require_embedding_size(table, manifest.embedding_size, str(word_vectors))
        known, way_out = known.extended(table), "correct these or leave them out"
    found = [look_up(name, None, known.index) for name in names]
    model = pathlib.Path(manifest.model)
    if word_vectors is None and any(words.missing for words in found):
        if takes_any_phrase(model):
            return _embed_by_model(model, names)
    refuse_missing(names, found, known.names, "no embedding", way_out)
    return known.embeddings[[words.row for words in found if words.row is not None]]


def _embed_by_words(
    vocabulary: Vocabulary, manifest: IndexManifest, names: Sequence[str], path: pathlib.Path
) -> np.ndarray:
    looked_up = look_up_in_file(path, names, vocabulary.index)
    refuse_missing(names, looked_up.found, looked_up.known, f"{path}: no word vector")
    new = [i for i, words in enumerate(looked_up.found) if words.row is None]
    read = Vocabulary(tuple(names[i] for i in new), looked_up.means[new], ("unseen",) * len(new))
    require_embedding_size(read, manifest.embedding_size, str(path))
    embeddings = np.empty((len(names), read.embedding_size), np.float32)
    embeddings[new] = read.embeddings
    for i, words in enumerate(looked_up.found):
        if words.row is not None:
            embeddings[i] = vocabulary.embeddings[words.row]
    return embeddings


def _embed_by_model(model: pathlib.Path, names: Sequence[str]) -> np.ndarray:
    """Returns the answer of a model's signature `embed`, which takes any phrase."""
    import tensorflow as tf

    from biam_tf.text_operations import load_saved_model

    try:
        loaded = load_saved_model(model)
        found = loaded.signatures["embed"](class_names=tf.constant(list(names)))
        return found["class_embeddings"].numpy()
    except tf.errors.InvalidArgumentError as error:
        raise UserError(f"{model}: {plain_message(error.message)}") from None
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{model}: its signature 'embed' can't be used: {error}") from error


def rescorer(model: pathlib.Path, index: pathlib.Path) -> Rescore:
    """Returns the signature `rescore` of a model.

    Args:
        model: the version's folder.
        index: folder of the index, for the message.

    Raises:
        UserError: the model is gone, or has no such signature. The function raises one for classes
            that the model refuses.
    """
    import tensorflow as tf

    from biam_tf.text_operations import load_saved_model

    try:
        loaded = load_saved_model(model)
        rescore = loaded.signatures["rescore"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{index} stores features, because the scores of its model are no products; "
            f"{model} scores them, but can't be used: {error}"
        ) from error

    def head(regions: np.ndarray, scene: np.ndarray, classes: np.ndarray) -> np.ndarray:
        try:
            outputs = rescore(
                region_features=tf.constant(regions),
                scene_feature=tf.constant(scene),
                class_embeddings=tf.constant(classes),
            )
        except tf.errors.InvalidArgumentError as error:
            raise UserError(f"{model}: {plain_message(error.message)}") from None
        return outputs["scores"].numpy()

    head.loaded = loaded  # type: ignore[attr-defined] # its signature does not keep it
    return head
