"""Writes class embeddings with a note of how they were made."""

import json
import os
import pathlib
from collections.abc import Collection, Sequence

import numpy as np

from biam_tf import __version__
from biam_tf.embeddings.sources import SENTENCES, Embedded, concatenate
from biam_tf.files import sha256_of, writing_to
from training.data.class_list import ClassList


def write_embeddings(
    path: pathlib.Path,
    classes: ClassList,
    parts: Sequence[Embedded],
    templates: Sequence[str],
    left_out: Collection[str],
) -> int:
    """Writes `names`, `embeddings`, `groups` where they are known, and `made`, a text of JSON.

    Args:
        path: the .npz file; written whole or not at all.
        classes: the names that were embedded.
        parts: what each source has for them.
        templates: of sentence encoders.
        left_out: names that are not written.

    Returns:
        The length of an embedding.
    """
    kept = [row for row, name in enumerate(classes.names) if name not in left_out]
    rows = concatenate(parts)[kept]
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    arrays = {
        "names": np.array([classes.names[row] for row in kept], dtype=str),
        "embeddings": rows,
        "made": np.array(json.dumps(_how(parts, templates), ensure_ascii=False)),
    }
    if classes.groups is not None:
        arrays["groups"] = np.array([classes.groups[row] for row in kept], dtype=str)
    aside = path.with_name(f".{path.name}.partial")
    with writing_to(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("wb") as file:
            np.savez(file, **arrays)
        os.replace(aside, path)
    return rows.shape[1]


def _how(parts: Sequence[Embedded], templates: Sequence[str]) -> dict:
    sources = []
    for part in parts:
        facts = {"source": part.source, "kind": part.kind, "numbers": part.rows.shape[1]}
        facts |= {"file": part.file.name, "sha256": sha256_of(part.file)}
        if part.kind == SENTENCES:
            facts["templates"] = list(templates)
        sources.append(facts)
    return {"biam_tf": __version__, "sources": sources}
