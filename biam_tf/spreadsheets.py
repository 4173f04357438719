"""CSV for people, who open it in a spreadsheet: no cell of it is run as a formula.

A class or a photo may be named `=HYPERLINK("http://…")`, by whoever gave the list or the photo.
Spreadsheets run a cell that begins with one of `=`, `+`, `-`, `@` and some control characters, also
in quotes. An apostrophe before it makes it a text. Data sets, which programs read back, are written
by `csv.writer` with names as they are.
"""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

# The wide forms of East Asian keyboards count as well.
_STARTS_FORMULA = re.compile(r"[\t\r\n ]*[=+\-@\uff1d\uff0b\uff0d\uff20].|[\t\r\n]", re.DOTALL)
# A number, or numbers with what stands between them in tables: "+1.2", "-0.3 to 0.5", "-1.0 ± 0.2".
_NUMBERS = re.compile(r"[+-]?(?:inf|nan|\.?\d(?:[\d.,%±*()+\- ]|[eE]|to)*)")


class SpreadsheetWriter:
    """A `csv.writer` that writes cells which look like formulas as texts.

    Args:
        file: opened with `newline=""`.
        lineterminator: between rows.
    """

    def __init__(self, file: TextIO, lineterminator: str = "\n") -> None:
        self._file, self._lineterminator = file, lineterminator

    def writerow(self, row: Iterable[Any]) -> None:
        text = io.StringIO()
        # `csv` quotes the characters of its line terminator alone. A carriage return in a name,
        # left as it is, would begin a row, and what follows it could be a formula.
        csv.writer(text, lineterminator="\r\n").writerow([literal_cell(value) for value in row])
        self._file.write(text.getvalue().removesuffix("\r\n") + self._lineterminator)

    def writerows(self, rows: Iterable[Sequence[Any]]) -> None:
        for row in rows:
            self.writerow(row)


def literal_cell(value: Any) -> Any:
    """Returns a cell as it is, or with an apostrophe before it if a spreadsheet would run it."""
    if not isinstance(value, str) or not _STARTS_FORMULA.match(value):
        return value
    return value if _NUMBERS.fullmatch(value) else f"'{value}"
