"""Reads the label files of Open Images, about a gigabyte of CSV, in blocks with NumPy.

A row is `000060e3121c7305,verification,/m/06ht1,1`. Nothing is quoted, so fields are found by the
positions of commas and line ends, for hundreds of thousands of rows at once.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from training.data.problems import Problems

HEADER = b"ImageID,Source,LabelName,"
CHUNK_BYTES = 8 << 20
ID_DIGITS = 16
COLUMNS = 4
LONGEST_CLASS, LONGEST_NUMBER = 24, 12

_NIBBLES = np.full(256, 255, np.uint8)
for _digit, _code in enumerate(b"0123456789abcdef"):
    _NIBBLES[_code] = _digit


@dataclasses.dataclass(frozen=True)
class LabelRows:
    """Valid rows of a label file.

    Attributes:
        rows: (R,) int, row numbers in the file, starting at 1 for the header.
        photos: (R,) uint64, photo ids.
        classes: (R,) bytes, class ids.
        confidences: (R,) float32, from 0 to 1.
    """

    rows: np.ndarray
    photos: np.ndarray
    classes: np.ndarray
    confidences: np.ndarray


def read_label_rows(
    path: pathlib.Path, problems: Problems, progress: Callable[[int], None] | None = None
) -> Iterator[LabelRows]:
    """Yields the rows of a label file in blocks, in the order of the file.

    Args:
        path: the file.
        problems: collects the invalid rows, which are left out.
        progress: called with the number of bytes read since the last call.
    """
    first = 2
    with path.open("rb") as file:
        header = file.readline()
        if not header.startswith(HEADER) or header.count(b",") != COLUMNS - 1:
            shown = header.decode("utf-8", "replace").strip()
            problems.add(
                path.name, 1, f"expected ImageID,Source,LabelName,Confidence, got {shown!r}"
            )
            return
        if progress:
            progress(len(header))
        rest = b""
        while chunk := file.read(CHUNK_BYTES):
            whole, newline, rest = (rest + chunk).rpartition(b"\n")
            if newline:
                block, count = _decode(whole + newline, first, path.name, problems)
                yield block
                first += count
            if progress:
                progress(len(chunk))
        if rest.strip():
            yield _decode(rest + b"\n", first, path.name, problems)[0]


def parse_ids(ids: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Returns photo ids as uint64, and a mask of those that are 16 hexadecimal digits."""
    padded = np.array([b"", *ids], dtype=np.bytes_)[1:]
    good = np.char.str_len(padded) == ID_DIGITS
    digits = padded.astype(f"S{ID_DIGITS}").view(np.uint8).reshape(-1, ID_DIGITS)
    numbers, hexadecimal = _numbers(digits)
    return numbers, good & hexadecimal


def _numbers(digits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the numbers that (R, 16) characters spell, and whether they are hexadecimal."""
    nibbles = _NIBBLES[digits]
    numbers = np.zeros(len(digits), np.uint64)
    for column in range(ID_DIGITS):
        numbers = (numbers << np.uint64(4)) | nibbles[:, column].astype(np.uint64)
    return numbers, (nibbles < 16).all(axis=1)


def _decode(text: bytes, first: int, file: str, problems: Problems) -> tuple[LabelRows, int]:
    """Returns the rows in complete lines, and the number of lines."""
    characters = np.frombuffer(text, np.uint8)
    ends = np.flatnonzero(characters == ord("\n"))
    starts = np.concatenate([[0], ends[:-1] + 1])
    commas = np.flatnonzero(characters == ord(","))
    counts = np.searchsorted(commas, ends) - np.searchsorted(commas, starts)
    carriage = (ends > starts) & (characters[ends - 1] == ord("\r"))
    stops = ends - carriage
    numbers = first + np.arange(len(ends))
    blank = stops == starts

    complete = counts == COLUMNS - 1
    for row in np.flatnonzero(~complete & ~blank):
        line = text[starts[row] : stops[row]].decode("utf-8", "replace")
        problems.add(file, int(numbers[row]), f"expected {COLUMNS} fields, got {line!r}")
    separators = commas[np.repeat(complete, counts)].reshape(-1, COLUMNS - 1)
    starts, stops, numbers = starts[complete], stops[complete], numbers[complete]

    def field(begin, end, width) -> np.ndarray:
        indices = begin[:, None] + np.arange(width)
        inside = indices < end[:, None]
        letters = np.where(inside, characters[np.minimum(indices, len(characters) - 1)], 0)
        return np.ascontiguousarray(letters.astype(np.uint8)).view(f"S{width}")[:, 0]

    digits = characters[np.minimum(starts[:, None] + np.arange(ID_DIGITS), len(characters) - 1)]
    photos, hexadecimal = _numbers(digits)
    good = hexadecimal & (separators[:, 0] - starts == ID_DIGITS)
    for row in np.flatnonzero(~good):
        shown = text[starts[row] : separators[row, 0]].decode("utf-8", "replace")
        problems.add(file, int(numbers[row]), f"{shown!r} is not a photo id of 16 hex digits")
    classes = field(separators[:, 1] + 1, separators[:, 2], LONGEST_CLASS)
    texts, inverse = np.unique(
        field(separators[:, 2] + 1, stops, LONGEST_NUMBER), return_inverse=True
    )
    values = np.array([_confidence(value) for value in texts.tolist()], np.float32)[inverse]
    for row in np.flatnonzero(good & np.isnan(values)):
        shown = texts[inverse[row]].decode("utf-8", "replace")
        problems.add(file, int(numbers[row]), f"confidence {shown!r} is not a number from 0 to 1")
    good &= ~np.isnan(values)
    return LabelRows(numbers[good], photos[good], classes[good], values[good]), len(ends)


def _confidence(text: bytes) -> float:
    try:
        value = float(text)
    except ValueError:
        return np.nan
    return value if 0 <= value <= 1 else np.nan
