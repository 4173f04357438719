"""Text files of zeros and ones, a row an example, read as fast as they come from the disk."""

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
    """Yields (first row, values (R, columns) uint8 of 0 and 1) for block after block of a file.

    Values stand between tabs or spaces; the line ends of all systems are understood. Whole
    blocks are decoded at once; lines are looked at one by one only in blocks with a line that
    is not like the others. Wrong rows are noted as problems, and are zeros here.

    Args:
        path: the file.
        shown: what problems call it.
        rows: how many there must be.
        columns: values of a row.
        listed_in: the file that says so, for the message.
        problems: of the data set.
        progress: called with (rows read, rows in all).
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
        text = f"the file ends after {row} rows; {listed_in} lists {rows}: is it cut short?"
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
            count = f"{len(fields)} values where {columns} are expected"
            problems.add(shown, first + number + 1, count)
            continue
        joined = b"".join(fields)
        if len(joined) != columns or joined.translate(None, b"01"):
            wrong = next(i for i, field in enumerate(fields) if field not in (b"0", b"1"))
            shown_value = fields[wrong].decode("utf-8", "replace")
            complaint = f"value {wrong + 1} is {shown_value!r}; 0 or 1 is expected"
            problems.add(shown, first + number + 1, complaint)
            continue
        values[number] = np.frombuffer(joined, np.uint8) - _ZERO
    return values


def uniform_block(text: bytes, columns: int) -> np.ndarray | None:
    """Returns the values where all lines have one form, digits with a blank between, or None.

    Args:
        text: whole lines.
        columns: values of a line.
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
