"""The best matches of each photo or class, and tables of them in CSV or JSON files."""

import json
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TextIO

import numpy as np

from biam_tf.class_calibration import ClassCalibration, Selection, Tag
from biam_tf.files import replacing
from biam_tf.spreadsheets import SpreadsheetWriter

# A row's name and its best matches, best first.
Matches = Iterable[tuple[str, list[Tag]]]
# First row and scores (n, C) of some photos; NaN where they are not known.
Blocks = Iterable[tuple[int, np.ndarray]]

# Of probabilities while matches are chosen.
_BLOCK_VALUES = 2**22
_ROWS_AT_A_TIME = 256


def best_classes(
    blocks: Blocks,
    photos: Sequence[str],
    classes: Sequence[str],
    selection: Selection,
    calibration: ClassCalibration | None,
) -> Iterator[tuple[str, list[Tag]]]:
    """Yields the best classes of each photo, best first, block after block.

    Args:
        blocks: scores; photos with NaN are left out.
        photos: names of all photos.
        classes: names of the classes.
        selection: which classes are given, and how many of them.
        calibration: of the classes; None: there is none.

    Raises:
        UserError: the selection needs a calibration, and there is none.
    """
    rows_at_a_time = max(1, _BLOCK_VALUES // max(1, len(classes)))
    for first, scores in blocks:
        whole = np.flatnonzero(np.isfinite(scores).all(axis=1))
        for start in range(0, len(whole), rows_at_a_time):
            rows = whole[start : start + rows_at_a_time]
            own = scores[rows]
            answer = _answer(own, calibration)
            chosen = _best(own, selection.decide(own, *answer), selection)
            for row, best in enumerate(chosen):
                its = [None if part is None else part[row, best] for part in answer]
                tags = selection.tags([classes[c] for c in best], own[row, best], *its)
                yield photos[first + int(rows[row])], tags


def best_photos(
    found: Iterable[tuple[np.ndarray, np.ndarray]],
    photos: Sequence[str],
    classes: Sequence[str],
    selection: Selection,
    calibration: ClassCalibration | None,
) -> Iterator[tuple[str, list[Tag]]]:
    """Yields the best photos of each class, best first; other arguments are of `best_classes`.

    Args:
        found: for each class rows (n,) and scores (n,), best first, at least those that the
            selection gives; `best_rows` finds them.
    """
    for c, (name, (rows, scores)) in enumerate(zip(classes, found, strict=True)):
        its = None if calibration is None else calibration.of(c)
        names = [photos[int(row)] for row in rows[: selection.top]]
        own = np.ascontiguousarray(scores[: selection.top])
        yield name, selection.tags(names, own, *_answer(own, its))


def best_rows(blocks: Blocks, classes: int, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns rows (n,) and scores (n,) of the best photos of each class, best first.

    Of equal scores the lower row is first. Only `count` photos of each class are kept in memory.

    Args:
        blocks: scores, in the order of the rows; photos with NaN are left out.
        classes: number of classes C.
        count: number of photos, at most.
    """
    step = max(count, _ROWS_AT_A_TIME)
    scores = np.full((count, classes), -np.inf, np.float32)
    rows = np.full((count, classes), -1, np.int64)
    for first, block in blocks:
        new = np.isfinite(block).all(axis=1) & (block > scores[-1]).any(axis=1)
        places = np.flatnonzero(new)
        for start in range(0, len(places), step):
            own = places[start : start + step]
            joined = np.concatenate([scores, block[own]])
            numbers = np.broadcast_to((first + own)[:, None], (len(own), classes))
            order = np.argsort(-joined, axis=0, kind="stable")[:count]
            scores = np.take_along_axis(joined, order, axis=0)
            rows = np.take_along_axis(np.concatenate([rows, numbers]), order, axis=0)
    whole = rows >= 0
    return [(rows[whole[:, c], c], scores[whole[:, c], c]) for c in range(classes)]


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
        with open(partial, "w", encoding="utf-8", newline="", errors="backslashreplace") as file:
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
    file.write("[")
    for number, (name, best) in enumerate(matches):
        its = []
        for tag in best:
            values = {inner: tag.name, "score": tag.score}
            if full:
                values |= {"probability": tag.probability, "present": tag.present}
            its.append(values)
        file.write(",\n" if number else "\n")
        json.dump({outer: name, f"{inner}s": its}, file, indent=1, ensure_ascii=False)
    file.write("\n]\n")


WRITERS: dict[str, Callable[[TextIO, tuple[str, str], Matches, bool], None]] = {
    ".csv": _write_csv,
    ".json": _write_json,
}
