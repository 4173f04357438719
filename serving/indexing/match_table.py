"""The best matches of each photo or class, and tables of them in CSV or JSON files."""

import json
import pathlib
from collections.abc import Callable, Sequence
from typing import TextIO

import numpy as np

from biam_tf.files import replacing
from biam_tf.spreadsheets import SpreadsheetWriter

# A row's name and its best matches with their scores, best first.
Matches = list[tuple[str, list[tuple[str, float]]]]


def best_matches(
    scores: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    top: int,
    threshold: float | None = None,
) -> Matches:
    """Returns the best columns of each row with their scores, best first.

    Args:
        scores: (rows, columns).
        rows: names of the rows.
        columns: names of the columns.
        top: largest number of columns per row.
        threshold: leaves out lower scores; None for no limit.
    """
    top = min(top, len(columns))
    chosen = np.argpartition(-scores, top - 1, axis=1)[:, :top]
    values = np.take_along_axis(scores, chosen, axis=1)
    order = np.lexsort((chosen, -values), axis=1)
    chosen = np.take_along_axis(chosen, order, axis=1)
    values = np.take_along_axis(values, order, axis=1)
    found = []
    for name, own, own_values in zip(rows, chosen, values, strict=True):
        best = zip(own, own_values.tolist(), strict=True)
        kept = [(columns[c], v) for c, v in best if threshold is None or v >= threshold]
        found.append((name, kept))
    return found


def write_table(path: pathlib.Path, headings: tuple[str, str], matches: Matches) -> None:
    """Writes matches into a file whose ending is one of `WRITERS`.

    Args:
        path: the file.
        headings: what the rows and their matches are, such as "photo" and "tag".
        matches: the rows.

    Raises:
        UserError: the file can't be written.
    """
    with replacing(path) as partial:
        with open(partial, "w", encoding="utf-8", newline="") as file:
            WRITERS[path.suffix.lower()](file, headings, matches)


def _write_csv(file: TextIO, headings: tuple[str, str], matches: Matches) -> None:
    writer = SpreadsheetWriter(file)
    writer.writerow([*headings, "score"])
    for name, best in matches:
        writer.writerows((name, other, f"{score:.6g}") for other, score in best)


def _write_json(file: TextIO, headings: tuple[str, str], matches: Matches) -> None:
    outer, inner = headings
    rows = [
        {outer: name, f"{inner}s": [{inner: other, "score": score} for other, score in best]}
        for name, best in matches
    ]
    json.dump(rows, file, indent=1, ensure_ascii=False)


WRITERS: dict[str, Callable[[TextIO, tuple[str, str], Matches], None]] = {
    ".csv": _write_csv,
    ".json": _write_json,
}
