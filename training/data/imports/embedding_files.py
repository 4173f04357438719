"""The two files of `training.embed_classes`: class embeddings, and what each name was found by."""

import collections
import json
import pathlib
from collections.abc import Collection, Sequence

import numpy as np

from biam_tf import __version__
from biam_tf.csv_files import csv_text
from biam_tf.embeddings.sources import SENTENCES, TEXT_TOWER, Embedded, Found, concatenate
from biam_tf.files import replacing, sha256_of, write_text, writing_to
from training.data.class_list import ClassList

_SHOWN = 20


def write_embeddings(
    path: pathlib.Path,
    classes: ClassList,
    parts: Sequence[Embedded],
    templates: Sequence[str],
    left_out: Collection[str],
) -> int:
    """Writes `names`, `embeddings`, `groups` if they are known, and `made`, a text of JSON.

    Args:
        path: the .npz file, written whole or not at all; its folder must exist.
        classes: the names that were embedded.
        parts: their embeddings by each source.
        templates: of sentence encoders.
        left_out: names that are not written.

    Returns:
        The length of an embedding.

    Raises:
        UserError: the file cannot be written.
    """
    kept = [row for row, name in enumerate(classes.names) if name not in left_out]
    rows = concatenate(parts)[kept]
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    arrays = {
        "names": np.array([classes.names[row] for row in kept], dtype=str),
        "embeddings": rows,
        "made": np.array(json.dumps(_provenance(parts, templates, classes), ensure_ascii=False)),
    }
    if classes.groups is not None:
        arrays["groups"] = np.array([classes.groups[row] for row in kept], dtype=str)
    with replacing(path) as partial:
        np.savez(partial, **arrays)
    return rows.shape[1]


def coverage_path(output: pathlib.Path) -> pathlib.Path:
    """Returns the path of the coverage table of the embeddings file `output`."""
    return output.with_suffix(".coverage.csv")


def write_coverage(path: pathlib.Path, parts: Sequence[Embedded]) -> None:
    """Writes one row per name and source: `name,source,found by,how,nearest`.

    The folder is made if it is missing.

    Raises:
        UserError: the file cannot be written.
    """
    rows = []
    for part in parts:
        for found in part.found:
            by = "" if found.missing else "; ".join(found.texts)
            how = f"missing: {', '.join(found.texts)}" if found.missing else found.how or "as it is"
            rows.append([found.name, part.source, by, how, ", ".join(found.nearest)])
    with writing_to(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, csv_text(["name", "source", "found by", "how", "nearest"], rows))


def describe_coverage(parts: Sequence[Embedded]) -> str:
    """Returns lines for the screen: how many names each source has, how, and which to check."""
    return "\n".join(line for part in parts for line in _lines(part))


def _lines(part: Embedded) -> list[str]:
    count = len(part.found) - len(part.missing)
    size = part.rows.shape[1]
    lines = [f"{part.source} ({part.kind}, {size} numbers): {count} of {len(part.found)} names"]
    ways = collections.Counter(found.how or "as it is" for found in part.found if not found.missing)
    lines += [f"  {count:6d}  {how}" for how, count in ways.most_common()]
    changed = [found for found in part.found if _should_be_checked(found)]
    lines += [f"    {found.name} → {' + '.join(found.texts)}" for found in changed[:_SHOWN]]
    lines += [f"    and {len(changed) - _SHOWN} more"] * (len(changed) > _SHOWN)
    if part.missing:
        lines += [f"  {len(part.missing):6d}  missing"]
        lines += [f"    {_missing_line(found)}" for found in part.missing[:_SHOWN]]
        lines += [f"    and {len(part.missing) - _SHOWN} more"] * (len(part.missing) > _SHOWN)
    return lines


def _should_be_checked(found: Found) -> bool:
    return not found.missing and any(
        step in found.how for step in ("singular", "plural", "divided", "accents", "grammar")
    )


def _missing_line(found: Found) -> str:
    missing = [text for text in found.texts if text != found.name]
    text = found.name + (f": no vector for {', '.join(missing)}" if missing else "")
    return text + (f" (nearest: {', '.join(found.nearest)})" if found.nearest else "")


def _provenance(parts: Sequence[Embedded], templates: Sequence[str], classes: ClassList) -> dict:
    sources = []
    for part in parts:
        facts: dict = {"source": part.source, "kind": part.kind, "numbers": part.rows.shape[1]}
        facts |= {"file": part.file.name, "sha256": sha256_of(part.file)}
        if part.kind in (SENTENCES, TEXT_TOWER):
            facts["templates"] = list(templates)
        if part.space is not None:
            facts["space"] = part.space
        sources.append(facts)
    made: dict = {"biam_tf": __version__, "sources": sources}
    if classes.descriptions:
        made["described"] = sorted(classes.descriptions)
    return made
