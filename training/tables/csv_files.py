"""Tables as CSV: files that are read row by row, or written whole or not at all, and texts."""

import csv
import io
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence

from training.data.problems import Problems


def read_rows(
    path: pathlib.Path, header_is_good: Callable[[list[str]], bool], problems: Problems
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields (row number, cells by column) of the rows with as many cells as the header.

    Rows are numbered as a spreadsheet does it, the header being row 1; empty ones are left out,
    and so are spaces around cells.

    Args:
        path: a CSV file in UTF-8.
        header_is_good: is given the columns; where it answers False no row is read.
        problems: takes what is wrong with rows or with the file.
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
    """Writes a CSV file whole or not at all."""
    aside = path.with_name(f".{path.name}.partial")
    with aside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    os.replace(aside, path)


def csv_text(header: Sequence[str], rows: Iterable[Sequence]) -> str:
    """Returns a table as the text of a CSV file."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
