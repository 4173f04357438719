"""Tables as CSV: files that are written whole or not at all, and texts."""

import csv
import io
import os
import pathlib
from collections.abc import Iterable, Sequence


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
