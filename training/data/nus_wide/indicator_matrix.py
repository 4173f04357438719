"""Reads text files of zeros and ones, one row per photo, at about the speed of the disk."""

import pathlib
from collections.abc import Callable, Iterator

import numpy as np

from training.data.problems import Problems

CHUNK_BYTES = 32 << 20
_ZERO = ord("0")
_TAB, _SPACE = b"\t "


def indicator_rows(
    path: pathlib.Path,
    shown: str,
    rows: int,
    columns: int,
    listed_in: str,
    problems: Problems,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (first row, values (R, columns) uint8 of 0 and 1) for each block of a file.

    Values are separated by tabs or spaces; lines may end in LF or CRLF. A block is decoded at
    once if all its lines have the same format, otherwise line by line. Invalid rows are
    reported as problems and yielded as zeros.

    Args:
        path: the file.
        shown: the file's name in problems.
        rows: expected number of rows.
        columns: values per row.
        listed_in: the file that lists the rows, for messages.
        problems: collects the problems of the data set.
        progress: called with (rows read, total rows).
    """
    row = 0
    with path.open("rb") as file:
        rest = b""
        while chunk := file.read(CHUNK_BYTES):
            whole, newline, rest = (rest + chunk).rpartition(b"\n")
            if newline:
                block = _block(whole + newline, shown, row, columns, problems)
                yield row, block[: max(0, rows - row)]
                row += len(block)
                if progress:
                    progress(min(row, rows), rows)
    if rest.strip():
        block = _block(rest + b"\n", shown, row, columns, problems)
        yield row, block[: max(0, rows - row)]
        row += len(block)
    if row < rows:
        text = f"the file ends after {row} rows; {listed_in} lists {rows}: is it truncated?"
        problems.add(shown, row + 1, text)
    elif row > rows:
        problems.add(shown, rows + 1, f"{row} rows, but {listed_in} lists {rows}")


def _block(text: bytes, shown: str, first: int, columns: int, problems: Problems) -> np.ndarray:
    values = uniform_block(text, columns)
    if values is not None:
        return values
    lines = text.splitlines()
    while lines and not lines[-1].strip():  # blank lines at the end
        lines.pop()
    values = np.zeros((len(lines), columns), np.uint8)
    for number, line in enumerate(lines):
        fields = line.split()
        if len(fields) != columns:
            count = f"expected {columns} values, got {len(fields)}"
            problems.add(shown, first + number + 1, count)
            continue
        joined = b"".join(fields)
        if len(joined) != columns or joined.translate(None, b"01"):
            wrong = next(i for i, field in enumerate(fields) if field not in (b"0", b"1"))
            shown_value = fields[wrong].decode("utf-8", "replace")
            complaint = f"value {wrong + 1} is {shown_value!r}; expected 0 or 1"
            problems.add(shown, first + number + 1, complaint)
            continue
        values[number] = np.frombuffer(joined, np.uint8) - _ZERO
    return values


def uniform_block(text: bytes, columns: int) -> np.ndarray | None:
    """Returns the values if all lines are digits with one separator between them, else None.

    Args:
        text: whole lines.
        columns: values per line.
    """
    length = text.index(b"\n") + 1
    if len(text) % length or length < 2 * columns:
        return None
    lines = np.frombuffer(text, np.uint8).reshape(-1, length)
    values = lines[:, : 2 * columns : 2] - _ZERO
    between = lines[:, 1 : 2 * columns - 1 : 2]
    end = lines[0, 2 * columns - 1 :]
    fits = (
        not bytes(end).strip()
        and (lines[:, 2 * columns - 1 :] == end).all()
        and (values <= 1).all()
        and ((between == _TAB) | (between == _SPACE)).all()
    )
    return values if fits else None
