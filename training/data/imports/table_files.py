"""Reads tables of other programs: text in any common form, Parquet, Excel's workbooks."""

import csv
import dataclasses
import datetime
import io
import pathlib
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence

from biam_tf.csv_files import csv_reader
from biam_tf.errors import UserError, did_you_mean
from training.data.problems import Problems

_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "'|'"}
_OTHERS = (
    (b"\xd0\xcf\x11\xe0", "is an old Excel workbook (.xls); save it as .xlsx or as CSV"),
    (b"\x1f\x8b", "is compressed by gzip; unpack it first"),
    (b"%PDF", "is a PDF and not a table"),
)


@dataclasses.dataclass(frozen=True)
class Table:
    """A table that is read row by row.

    Attributes:
        columns: names of the columns, as often as they occur.
        rows: (row number as in a spreadsheet, the header being row 1, or the row of a Parquet file
            from 1; cells by column). Cells of text are without spaces around them.
    """

    columns: list[str]
    rows: Iterator[tuple[int, Mapping]]


def open_table(
    path: pathlib.Path,
    wanted: Sequence[str],
    problems: Problems,
    encoding: str | None = None,
    sheet: str | None = None,
) -> Table:
    """Opens a table and checks that each wanted column occurs once.

    Text may be divided by commas, semicolons, tabs or `|`, whichever gives the wanted columns. It
    is UTF-8, with or without a byte order mark, or UTF-16.

    Args:
        path: a text file, `.parquet` or `.xlsx`.
        wanted: columns; empty: the sign that gives the most columns divides them.
        problems: collects what is wrong with the header and the rows. Where the header is wrong,
            the table has no rows.
        encoding: of a text file; None: UTF-8 or UTF-16.
        sheet: of a workbook; None: its only one.

    Raises:
        UserError: the file cannot be read.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; give a CSV, .tsv, .xlsx or .parquet file")
    if path.suffix.lower() == ".parquet":
        return _open_parquet(path, wanted, problems)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    for start, problem in _OTHERS:
        if content.startswith(start):
            raise UserError(f"{path}: {problem}")
    if content[:100].lstrip(b"\xef\xbb\xbf \t\r\n")[:2] in (b"[{", b'{"', b"[\n", b"{\n"):
        raise UserError(
            f"{path}: is JSON and not a table; import it as coco or label-studio, or convert it to "
            "CSV"
        )
    if content.startswith(b"PK\x03\x04") or path.suffix.lower() in (".xlsx", ".xlsm"):
        return _open_workbook(path, content, wanted, problems, sheet)
    return _open_text(path, content, wanted, problems, encoding)


def _check_columns(
    file: str, found: Sequence[str], wanted: Sequence[str], problems: Problems
) -> bool:
    """Whether each wanted column occurs once; adds the others to `problems`."""
    counts = {column: list(found).count(column) for column in wanted or found if column}
    for column, count in counts.items():
        if count > 1:
            problems.add(file, None, f"column {column!r} occurs {count} times")
        elif not count:
            known = did_you_mean(column, found) or "; the file is empty"
            problems.add(file, None, f"no column {column!r}{known}")
    return all(count == 1 for count in counts.values())


# === Text ===


def _open_text(
    path: pathlib.Path,
    content: bytes,
    wanted: Sequence[str],
    problems: Problems,
    encoding: str | None,
) -> Table:
    text = _decoded(path, content, encoding)
    first, _, rest = text.partition("\n")
    skipped, only = 0, None
    if first.lower().startswith("sep=") and len(first.strip()) <= 5:  # a line for Excel
        text, skipped, only = rest, 1, first.strip("\r\n")[4:] or "\t"
    delimiter, columns = _delimiter(text, wanted, only)
    if not _check_columns(path.name, columns, wanted, problems):
        return Table(columns, iter(()))
    return Table(columns, _text_rows(path.name, text, delimiter, skipped, problems))


def _text_rows(
    file: str, text: str, delimiter: str, skipped: int, problems: Problems
) -> Iterator[tuple[int, Mapping]]:
    reader = csv_reader(io.StringIO(text, newline=""), delimiter)
    last = 1
    try:
        columns = [column.strip() for column in next(reader, [])]
        for number, cells in enumerate(reader, start=2 + skipped):
            last = reader.line_num
            if not any(map(str.strip, cells)):
                continue  # spreadsheets write such rows at the end
            if len(cells) == len(columns):
                yield number, dict(zip(columns, map(str.strip, cells), strict=True))
            else:
                problems.add(
                    file,
                    number,
                    f"expected {len(columns)} cells ({','.join(columns)}), got {len(cells)}; a "
                    f"cell with {_DELIMITERS.get(delimiter, repr(delimiter))} needs quotes",
                )
    except csv.Error as error:
        hint = (
            "; a quotation mark opens a cell there and none closes it"
            if "unexpected end" in str(error)
            else ""
        )
        problems.add(file, None, f"is not a CSV file: line {last + 1 + skipped}: {error}{hint}")


def _delimiter(text: str, wanted: Sequence[str], only: str | None) -> tuple[str, list[str]]:
    """Returns the sign that divides the columns, and the columns."""
    found: dict[str, list[str]] = {}
    for sign in [only] if only else _DELIMITERS:
        try:
            header = next(csv.reader(io.StringIO(text, newline=""), delimiter=sign), [])
        except csv.Error:
            header = []
        found[sign] = [column.strip() for column in header]
        if wanted and set(wanted) <= set(found[sign]):
            return sign, found[sign]
    best = max(found, key=lambda sign: len(found[sign]))  # the first of several
    return best, found[best]


def _decoded(path: pathlib.Path, content: bytes, encoding: str | None) -> str:
    marks = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
    usual = marks.get(content[:2], "utf-8-sig")
    if usual == "utf-8-sig" and content[1:2] == b"\0" and content[:1] != b"\0":
        usual = "utf-16-le"
    try:
        return content.decode(encoding or usual)
    except LookupError:
        raise UserError(
            f"--encoding {encoding}: is not known to Python; use utf-8, latin-1 or cp1252"
        ) from None
    except UnicodeError as error:
        at = getattr(error, "start", 0)
        line = content[:at].count(b"\n") + 1
        near = content[:at].split(b"\n")[-1][-15:] + content[at : at + 5].split(b"\n")[0]
        raise UserError(
            f"{path}: is not {encoding or usual.removesuffix('-sig').upper()} text (line {line}, "
            f"{near.decode('latin-1')!r}); save it as UTF-8 (Excel: CSV UTF-8), or give the "
            "encoding it has, such as --encoding cp1252"
        ) from None


# === Parquet ===


def _open_parquet(path: pathlib.Path, wanted: Sequence[str], problems: Problems) -> Table:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UserError(
            f"{path}: reading Parquet needs pyarrow; run pip install 'biam-tf[import]'"
        ) from None
    try:
        file = parquet.ParquetFile(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(f"{path}: cannot be read as Parquet: {error}") from None
    schema = file.schema_arrow
    if not _check_columns(path.name, schema.names, wanted, problems):
        file.close()
        return Table(list(schema.names), iter(()))
    columns = list(wanted or schema.names)
    # In a column of strings null is an empty cell; a null list is not an empty list.
    flat = [name for name in columns if not pyarrow.types.is_nested(schema.field(name).type)]

    def rows() -> Iterator[tuple[int, Mapping]]:
        number = 0
        with file:
            try:
                for batch in file.iter_batches(columns=columns):
                    for row in batch.to_pylist():
                        number += 1
                        yield number, row | {name: "" for name in flat if row[name] is None}
            except (OSError, UnicodeDecodeError, pyarrow.ArrowException) as error:
                raise UserError(f"{path}: is damaged after row {number}: {error}") from None

    return Table(list(schema.names), rows())


# === Excel ===


def _open_workbook(
    path: pathlib.Path,
    content: bytes,
    wanted: Sequence[str],
    problems: Problems,
    sheet: str | None,
) -> Table:
    try:
        import openpyxl
    except ImportError:
        raise UserError(
            f"{path}: is an Excel workbook; save it as CSV UTF-8, or run pip install "
            "'biam-tf[import]', which reads workbooks with openpyxl"
        ) from None
    try:
        book = openpyxl.load_workbook(io.BytesIO(content), read_only=True, data_only=True)
        names = book.sheetnames
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: cannot be read as an Excel workbook ({error}); save it as .xlsx or as CSV "
            "UTF-8"
        ) from None
    if sheet is not None and sheet not in names:
        raise UserError(f"{path}: no sheet {sheet!r}{did_you_mean(sheet, names)}")
    if sheet is None and len(names) != 1:
        raise UserError(
            f"{path}: has the sheets {', '.join(map(repr, names))}; give one with --sheet NAME"
        )
    lines = book[sheet or names[0]].iter_rows(values_only=True)
    columns = [_text(value)[0] for value in next(lines, ())]
    while columns and not columns[-1]:
        columns.pop()
    if not _check_columns(path.name, columns, wanted, problems):
        return Table(columns, iter(()))
    return Table(columns, _sheet_rows(path.name, columns, lines, problems, book.close))


def _sheet_rows(
    file: str,
    columns: list[str],
    lines: Iterator[tuple],
    problems: Problems,
    close: Callable[[], None],
) -> Iterator[tuple[int, Mapping]]:
    for number, values in enumerate(lines, start=2):
        cells = {}
        for column, value in zip(columns, values, strict=False):
            cells[column], problem = _text(value)
            if problem:
                problems.add(file, number, f"column {column!r}: {problem}")
        if any(cells.values()):
            yield number, {column: cells.get(column, "") for column in columns}
    close()


def _text(value: object) -> tuple[str, str | None]:
    """Returns the text of a cell, and what is wrong with it or None."""
    if value is None:
        return "", None
    if isinstance(value, datetime.date | datetime.time | datetime.timedelta):
        return str(value), f"Excel made a date of it ({value}); format the column as text"
    if isinstance(value, bool):
        return str(int(value)), None
    if isinstance(value, float) and value.is_integer():
        return str(int(value)), None
    return str(value).strip(), None
