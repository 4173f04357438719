"""A table, and the forms in which people get it: Markdown, CSV and HTML."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from biam_tf.csv_files import csv_text
from biam_tf.markdown import escaped
from training.tables.templates import render

Cell = str | int


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of texts and whole numbers.

    Attributes:
        title: what it shows; may be empty.
        columns: headings.
        rows: as many cells in each as there are headings. A column of numbers alone is aligned
            to the right, and its thousands are separated (not in CSV).
        note: sentences below it; may be empty.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""

    def markdown(self, padded: bool = False, escapes: bool = False) -> str:
        """Returns the table in Markdown, the title in bold above it and the note below.

        Args:
            padded: gives the cells of a column one width, so that the text reads well in a
                terminal too.
            escapes: whether all signs of Markdown in the cells are escaped, not only those that
                would end a cell or a row.
        """
        cells = [list(self.columns), *self._texts()]
        cells = [
            [escaped(text) if escapes else _in_one_cell(text) for text in row] for row in cells
        ]
        numeric = self._numeric()
        rule = ["--:" if number else "---" for number in numeric]
        if padded:
            widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
            rule = [
                "-" * (width - 1) + (":" if number else "-")
                for width, number in zip(widths, numeric, strict=True)
            ]
            cells = [
                [
                    text.rjust(width) if number else text.ljust(width)
                    for text, width, number in zip(row, widths, numeric, strict=True)
                ]
                for row in cells
            ]
        lines = [_line(cells[0]), _line(rule) if padded else f"|{'|'.join(rule)}|"]
        lines += map(_line, cells[1:])
        above = [f"**{self.title}**", ""] if self.title else []
        below = ["", self.note] if self.note else []
        return "\n".join([*above, *lines, *below, ""])

    def csv(self) -> str:
        """Returns columns and rows as the text of a CSV file."""
        return csv_text(self.columns, self.rows)

    def html(self) -> Markup:
        """Returns a `<table>`; cells and headings of numbers have the class `number`."""
        return render("training.tables", "table.html", self._values())

    def _values(self) -> dict[str, object]:
        numeric = self._numeric()
        return {
            "title": self.title,
            "columns": list(zip(self.columns, numeric, strict=True)),
            "rows": [list(zip(row, numeric, strict=True)) for row in self._texts()],
            "note": self.note,
        }

    def _texts(self) -> list[list[str]]:
        return [[f"{c:,}" if isinstance(c, int) else c for c in row] for row in self.rows]

    def _numeric(self) -> list[bool]:
        return [
            bool(self.rows) and all(isinstance(row[column], int) for row in self.rows)
            for column in range(len(self.columns))
        ]


def mean_and_spread(values: Sequence[float]) -> str:
    """Returns `mean ± standard deviation` (n - 1) with one decimal; one value has no spread.

    Values that are NaN are undefined: the others count, and how many of them there are is added.
    Without any other, the text is "-".
    """
    defined = [value for value in values if not np.isnan(value)]
    if not defined:
        return "-"
    spread = f" ± {np.std(defined, ddof=1):.1f}" if len(defined) > 1 else ""
    some = f" ({len(defined)} of {len(values)})" if len(defined) < len(values) else ""
    return f"{np.mean(defined):.1f}{spread}{some}"


def signed_difference(estimate: float, low: float, high: float) -> tuple[str, str]:
    """Returns a difference and its interval, with `*` if it excludes 0; "-" if it is undefined."""
    if np.isnan([estimate, low, high]).any():
        return "-", "-"
    sure = " *" if low > 0 or high < 0 else ""
    return f"{estimate:+.1f}", f"{low:+.1f} to {high:+.1f}{sure}"


def _in_one_cell(text: str) -> str:
    return " ".join(text.splitlines()).replace("|", r"\|")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
