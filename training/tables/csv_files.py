"""CSV files, read and written row by row."""

import csv
import io
import math
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from biam_tf.files import replacing
from training.data.problems import Problems


def read_rows(
    path: pathlib.Path, header_is_good: Callable[[list[str]], bool], problems: Problems
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields (row number, cells by column) of the rows with as many cells as the header.

    Rows are numbered as in a spreadsheet, the header being row 1. Empty rows are skipped; spaces
    around cells are removed.

    Args:
        path: a CSV file in UTF-8.
        header_is_good: called with the columns; if it returns False, no row is read.
        problems: collects the defects of the file and its rows.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            header = [column.strip() for column in next(reader, [])]
            if not header_is_good(header):
                return
            for number, cells in enumerate(reader, start=2):
                if not any(map(str.strip, cells)):
                    continue  # spreadsheets write such rows at the end
                if len(cells) == len(header):
                    yield number, dict(zip(header, map(str.strip, cells), strict=True))
                else:
                    count = f"expected {len(header)} cells ({','.join(header)}), got {len(cells)}"
                    problems.add(path.name, number, f"{count}; a cell with a comma needs quotes")
    except UnicodeDecodeError:
        problems.add(path.name, None, "is not UTF-8 text; save it as UTF-8")
    except csv.Error as error:
        problems.add(path.name, None, f"is not a CSV file: line {reader.line_num}: {error}")


def write_rows(path: pathlib.Path, header: Sequence[str], rows: Iterable[Sequence]) -> None:
    """Writes a CSV file, cells as in `csv_text`; raises as `biam_tf.files.replacing` does.

    The rows are written one by one: there may be more than fit into memory.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        _write(csv.writer(file), header, rows)


def csv_text(header: Sequence[str], rows: Iterable[Sequence]) -> str:
    """Returns a table as the text of a CSV file.

    A float is written with three decimals, NaN as an empty cell.
    """
    text = io.StringIO()
    _write(csv.writer(text, lineterminator="\n"), header, rows)
    return text.getvalue()


def _write(writer: Any, header: Sequence[str], rows: Iterable[Sequence]) -> None:
    writer.writerow(header)
    writer.writerows([_cell(value) for value in row] for row in rows)


def _cell(value: object) -> object:
    if not isinstance(value, float):
        return value
    return "" if math.isnan(value) else f"{value:.3f}"
