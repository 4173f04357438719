"""CSV files, read and written row by row."""

import codecs
import csv
import io
import math
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, TextIO

from biam_tf.files import replacing
from biam_tf.spreadsheets import SpreadsheetWriter

_LONGEST_FIELD = 1 << 30
_HEAD = 1 << 16
_SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab"}
_OTHERS = (
    (b"PK\x03\x04", "is an Excel workbook (.xlsx) or a zip archive"),
    (b"\xd0\xcf\x11\xe0", "is an Excel workbook (.xls)"),
    (b"\x1f\x8b", "is compressed by gzip"),
)


class Complaints(Protocol):
    """Collects what is wrong with a file, as `training.data.problems.Problems` does."""

    def add(self, file: str, row: int | None, problem: str) -> None:
        """Adds a problem of a row, or of the whole file where `row` is None."""


class NotCsv(ValueError):
    """A file that is of another kind; the message completes a sentence that its name begins."""


def csv_form(path: pathlib.Path) -> tuple[str, str]:
    """Returns the encoding of a CSV file and the sign that separates its columns.

    Spreadsheets write UTF-8 with or without a byte order mark, or UTF-16; and commas, semicolons
    (where the comma is that of decimals) or tabs.

    Raises:
        NotCsv: it is of another kind.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
    for start, problem in _OTHERS:
        if head.startswith(start):
            raise NotCsv(f"{problem} and not a CSV file; save it as CSV UTF-8")
    is_utf_16 = head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    encoding = "utf-16" if is_utf_16 else "utf-8-sig"
    lines = head.decode(encoding, "replace").splitlines() or [""]
    columns = {sign: len(next(csv.reader(lines[:1], delimiter=sign), [])) for sign in _SEPARATORS}
    return encoding, max(columns, key=lambda sign: columns[sign])  # of equal ones the first


def csv_reader(file: TextIO, separator: str) -> Any:
    """Returns a strict `csv.reader` that takes cells of any length."""
    csv.field_size_limit(_LONGEST_FIELD)
    return csv.reader(file, strict=True, delimiter=separator)


def read_rows(
    path: pathlib.Path, header_is_good: Callable[[list[str]], bool], problems: Complaints
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields (row number, cells by column) of the rows with as many cells as the header.

    Rows are numbered as in a spreadsheet, the header being row 1. Empty rows are skipped; spaces
    around cells are removed.

    Args:
        path: a CSV file, in a form of `csv_form`.
        header_is_good: called with the columns; if it returns False, no row is read.
        problems: collects the defects of the file and its rows.
    """
    try:
        encoding, separator = csv_form(path)
        with path.open(newline="", encoding=encoding) as file:
            reader = csv_reader(file, separator)
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
                    sign = _SEPARATORS[separator]
                    problems.add(path.name, number, f"{count}; a cell with a {sign} needs quotes")
    except UnicodeDecodeError:
        problems.add(path.name, None, "is not UTF-8 text; save it as UTF-8")
    except NotCsv as error:
        problems.add(path.name, None, str(error))
    except csv.Error as error:
        problems.add(path.name, None, f"is not a CSV file: line {reader.line_num}: {error}")


def write_rows(
    path: pathlib.Path, header: Sequence[str], rows: Iterable[Sequence], *, for_people: bool = True
) -> None:
    """Writes a CSV file, cells as in `csv_text`; raises as `biam_tf.files.replacing` does.

    The rows are written one by one: there may be more than fit into memory.

    Args:
        path: of the file; its folder is created.
        header: names of the columns.
        rows: one cell per column each.
        for_people: whether a text that a spreadsheet would run as a formula is written with an
            apostrophe before it; False for data sets, which are read back.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        _write(SpreadsheetWriter(file, "\r\n") if for_people else csv.writer(file), header, rows)


def csv_text(header: Sequence[str], rows: Iterable[Sequence]) -> str:
    """Returns a table as the text of a CSV file.

    A float is written with three decimals, NaN as an empty cell; a text that a spreadsheet would
    run as a formula with an apostrophe before it.
    """
    text = io.StringIO()
    _write(SpreadsheetWriter(text), header, rows)
    return text.getvalue()


def _write(writer: Any, header: Sequence[str], rows: Iterable[Sequence]) -> None:
    writer.writerow(header)
    writer.writerows([_cell(value) for value in row] for row in rows)


def _cell(value: object) -> object:
    if not isinstance(value, float):
        return value
    return "" if math.isnan(value) else f"{value:.3f}"
