"""A description as sections of text and tables, and how they are shown: Markdown or one page."""

import base64
import dataclasses
import html
import pathlib
from collections.abc import Sequence

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem; padding: 0 1rem;
       color: #222; background: #fff; }
table { border-collapse: collapse; margin: .8rem 0; }
th, td { border-bottom: 1px solid #ddd; padding: .2rem .7rem; text-align: left; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
img { max-width: 100%; }
"""


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of a description.

    Attributes:
        title: its heading.
        lines: sentences before the table, a paragraph each.
        header: of the table's columns; empty: no table.
        rows: of the table; numbers as numbers.
        picture: the file name of a picture beside the page; None: none.
    """

    title: str
    lines: tuple[str, ...] = ()
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str | int, ...], ...] = ()
    picture: str | None = None


def to_markdown(title: str, sections: Sequence[Section]) -> str:
    """Returns a description as Markdown, aligned to be read as plain text too."""
    parts = [f"# {title}"]
    for section in sections:
        parts.append(f"## {section.title}")
        parts += section.lines
        if section.header:
            parts.append(_markdown_table(section))
        if section.picture:
            parts.append(f"![{section.title}]({section.picture})")
    return "\n\n".join(parts) + "\n"


def _markdown_table(section: Section) -> str:
    cells = [section.header, *(tuple(map(_cell, row)) for row in section.rows)]
    cells = [[text.replace("|", "\\|") for text in row] for row in cells]
    widths = [max(len(row[column]) for row in cells) for column in range(len(section.header))]
    numeric = _numeric_columns(section)

    def line(row: Sequence[str]) -> str:
        padded = (
            text.rjust(width) if number else text.ljust(width)
            for text, width, number in zip(row, widths, numeric, strict=True)
        )
        return f"| {' | '.join(padded)} |"

    rule = (
        "-" * (width - 1) + (":" if n else "-") for width, n in zip(widths, numeric, strict=True)
    )
    return "\n".join([line(cells[0]), f"| {' | '.join(rule)} |", *map(line, cells[1:])])


def to_html(title: str, sections: Sequence[Section], folder: pathlib.Path) -> str:
    """Returns a description as one HTML page that needs no other file.

    Args:
        title: of the page.
        sections: its parts.
        folder: where the sections' pictures lie.
    """
    parts = []
    for section in sections:
        parts.append(f"<h2>{html.escape(section.title)}</h2>")
        parts += [f"<p>{html.escape(line)}</p>" for line in section.lines]
        if section.header:
            parts.append(_html_table(section))
        if section.picture:
            picture = base64.b64encode((folder / section.picture).read_bytes()).decode()
            parts.append(
                f'<img alt="{html.escape(section.title)}" src="data:image/png;base64,{picture}">'
            )
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8">'
        f"<title>{html.escape(title)}</title>"
        f"<style>{_STYLE}</style><h1>{html.escape(title)}</h1>\n" + "\n".join(parts) + "\n</html>\n"
    )


def _html_table(section: Section) -> str:
    numeric = _numeric_columns(section)

    def row(tag: str, cells: Sequence[str]) -> str:
        marks = (' class="number"' if number else "" for number in numeric)
        return "".join(
            f"<{tag}{mark}>{html.escape(cell)}</{tag}>"
            for mark, cell in zip(marks, cells, strict=True)
        )

    body = "\n".join(f"<tr>{row('td', tuple(map(_cell, cells)))}</tr>" for cells in section.rows)
    return f"<table><tr>{row('th', section.header)}</tr>\n{body}</table>"


def _numeric_columns(section: Section) -> list[bool]:
    return [
        all(not isinstance(row[column], str) for row in section.rows)
        for column in range(len(section.header))
    ]


def _cell(value: str | int) -> str:
    return value if isinstance(value, str) else f"{value:,}"
