"""The best matches of each photo or class, and tables of them in CSV or JSON files."""

import json
import pathlib
from collections.abc import Callable, Sequence
from typing import TextIO

import numpy as np

from biam_tf.class_calibration import ClassCalibration, Selection, Tag
from biam_tf.files import replacing
from biam_tf.spreadsheets import SpreadsheetWriter

# A row's name and its best matches, best first.
Matches = list[tuple[str, list[Tag]]]

# Of probabilities while matches are chosen.
_BLOCK_VALUES = 2**22


def best_classes(
    scores: np.ndarray,
    photos: Sequence[str],
    classes: Sequence[str],
    selection: Selection,
    calibration: ClassCalibration | None,
) -> Matches:
    """Returns the best classes of each photo, best first.

    Args:
        scores: (photos, classes).
        photos: their names.
        classes: their names.
        selection: which classes are given, and how many of them.
        calibration: of the classes; None: there is none.

    Raises:
        UserError: the selection needs a calibration, and there is none.
    """
    found = []
    rows_at_a_time = max(1, _BLOCK_VALUES // max(1, len(classes)))
    for start in range(0, len(photos), rows_at_a_time):
        own = scores[start : start + rows_at_a_time]
        answer = _answer(own, calibration)
        chosen = _best(own, selection.decide(own, *answer), selection)
        for row, (photo, best) in enumerate(zip(photos[start:], chosen, strict=False)):
            its = [None if part is None else part[row, best] for part in answer]
            tags = selection.tags([classes[c] for c in best], own[row, best], *its)
            found.append((photo, tags))
    return found


def best_photos(
    scores: np.ndarray,
    photos: Sequence[str],
    classes: Sequence[str],
    selection: Selection,
    calibration: ClassCalibration | None,
) -> Matches:
    """Returns the best photos of each class, best first; the arguments are of `best_classes`."""
    found = []
    for c, name in enumerate(classes):
        its = None if calibration is None else calibration.of(c)
        own = np.ascontiguousarray(scores[:, c])
        found.append((name, selection.tags(photos, own, *_answer(own, its))))
    return found


def _answer(
    scores: np.ndarray, calibration: ClassCalibration | None
) -> tuple[np.ndarray | None, np.ndarray | None]:
    if calibration is None:
        return None, None
    return calibration.probabilities(scores), calibration.decide(scores)


def _best(scores: np.ndarray, given: np.ndarray | None, selection: Selection) -> np.ndarray:
    """Returns the columns (rows, top) among which the best of each row are, ascending."""
    ranked = scores
    if selection.leaves_out and given is not None:
        ranked = np.where(given, scores, -np.inf)
    best = np.argsort(-ranked, axis=1, kind="stable")[:, : selection.top]
    return np.sort(best, axis=1)


def write_table(
    path: pathlib.Path, headings: tuple[str, str], matches: Matches, calibrated: bool = False
) -> None:
    """Writes matches into a file whose ending is one of `WRITERS`.

    Args:
        path: the file.
        headings: what the rows and their matches are, such as "photo" and "tag".
        matches: the rows.
        calibrated: whether to write the probability and whether a class reaches its threshold.

    Raises:
        UserError: the file can't be written.
    """
    with replacing(path) as partial:
        with open(partial, "w", encoding="utf-8", newline="") as file:
            WRITERS[path.suffix.lower()](file, headings, matches, calibrated)


def _write_csv(file: TextIO, headings: tuple[str, str], matches: Matches, full: bool) -> None:
    writer = SpreadsheetWriter(file)
    writer.writerow([*headings, "score", *(["probability", "present"] * full)])
    for name, best in matches:
        for tag in best:
            row: list[object] = [name, tag.name, f"{tag.score:.6g}"]
            if full:
                row += ["" if tag.probability is None else f"{tag.probability:.6g}", tag.present]
            writer.writerow(row)


def _write_json(file: TextIO, headings: tuple[str, str], matches: Matches, full: bool) -> None:
    outer, inner = headings
    rows = []
    for name, best in matches:
        its = []
        for tag in best:
            values = {inner: tag.name, "score": tag.score}
            if full:
                values |= {"probability": tag.probability, "present": tag.present}
            its.append(values)
        rows.append({outer: name, f"{inner}s": its})
    json.dump(rows, file, indent=1, ensure_ascii=False)


WRITERS: dict[str, Callable[[TextIO, tuple[str, str], Matches, bool], None]] = {
    ".csv": _write_csv,
    ".json": _write_json,
}
