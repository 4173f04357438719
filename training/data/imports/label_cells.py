"""The labels in a column of a table, however its cells join them."""

import collections
import dataclasses
import re
import reprlib
import unicodedata
from collections.abc import Collection, Sequence

from training.data.imports.list_texts import listed_in, named_in
from training.data.imports.listed_photos import rows_text

# What pandas, R, SQL and spreadsheets write where there is no value.
NO_LABEL = (
    *("nan", "NaN", "NAN", "-nan", "NaT", "<NA>", "NA", "N/A", "n/a", "#N/A", "#NA"),
    *("None", "NULL", "Null", "null"),
)
# Names contain commas, and of the others none but rarely.
_SEPARATORS = (";", ",", "|", "\n", "\t", "\uff0c", "\u3001", "\uff1b", "\u060c")
_WRITTEN = {"\n": "line ends", "\t": "tabs"}
_FEW_WORDS = 8


@dataclasses.dataclass
class ColumnLabels:
    """Result of `read_cells`.

    Attributes:
        labels: names as they are written, for each cell.
        problems: (row, or None for the whole column; what is wrong).
        notes: how the cells were read.
    """

    labels: list[list[str]]
    problems: list[tuple[int | None, str]] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)


def read_cells(
    rows: Sequence[int],
    cells: Sequence[object],
    separator: str | None = None,
    no_label: Collection[str] = NO_LABEL,
) -> ColumnLabels:
    """Reads a column of labels.

    A cell is a text or a list of texts. The texts may be lists in brackets, as JSON and pandas
    write them, or the form of Label Studio, `{"choices": [...]}`, next to which a single choice is
    plain text. Plain texts are divided at the separator.

    Args:
        rows: row number of each cell, for messages.
        cells: of one column.
        separator: text between two labels; None: `;`, or else `|`, line ends or tabs if the column
            has only one of them. A column in which commas or several of these stand is refused.
        no_label: texts that mean that there is no label.
    """
    column = ColumnLabels([[] for _ in cells])
    plain: dict[int, str] = {}
    forms: dict[str, list[int]] = {"list": [], "bare": [], "choices": []}
    for index, (row, cell) in enumerate(zip(rows, cells, strict=True)):
        if not isinstance(cell, str):
            column.labels[index], problem = _of_list(cell)
            if problem:
                column.problems.append((row, problem))
            continue
        text = cell.strip()
        if not text or text in no_label:
            column.labels[index] = [text] if text else []
            continue
        form, names = _form(text)
        if form == "plain":
            plain[index] = text
        elif form == "broken":
            problem = "starts as a list does, and is not a whole one"
            column.problems.append((row, f"the label {reprlib.repr(text)} {problem}"))
        else:
            forms[form].append(index)
            column.labels[index] = names
    if plain and forms["bare"] and separator is not None:
        plain |= {index: str(cells[index]).strip() for index in forms["bare"]}
        forms["bare"] = []
    used = {form: indices for form, indices in forms.items() if indices}
    mixed = _mixed(used, plain, rows, cells, separator)
    if mixed:
        column.problems.append((None, mixed))
    else:
        _divide(column, plain, rows, separator, alone="choices" in used)
    for row, names in zip(rows, column.labels, strict=True):
        for name in names:
            if not name.isprintable() and any(unicodedata.category(c) == "Cc" for c in name):
                problem = f"the label {reprlib.repr(name)} contains a line end or control character"
                column.problems.append((row, problem))
    _note_lists(column, used)
    _leave_out(column, rows, no_label)
    return column


def _of_list(cell: object) -> tuple[list[str], str | None]:
    """Returns the names in a cell that is no text, and what is wrong with it or None."""
    if cell is None:
        return [], "the list of labels is null; a photo without labels needs an empty list"
    if not isinstance(cell, list):
        return [], f"the label {reprlib.repr(cell)} is not a string"
    for name in cell:
        if not isinstance(name, str):
            return [], f"the label {reprlib.repr(name)} is not a string"
    return [stripped for name in cell if (stripped := name.strip())], None


def _form(text: str) -> tuple[str, list[str]]:
    if (names := named_in(text)) is not None:
        return "choices", names
    if (listed := listed_in(text)) is not None:
        names, quoted = listed
        return ("list" if quoted or not names else "bare"), names
    is_cut = re.match(r"""[\[{(]\s*["'\[{]|array\(""", text)
    return ("broken" if is_cut else "plain"), []


def _mixed(
    used: dict[str, list[int]],
    plain: dict[int, str],
    rows: Sequence[int],
    cells: Sequence[object],
    separator: str | None,
) -> str | None:
    """Returns what is wrong if cells have several forms, or None."""
    lists = used.keys() - {"choices"}
    if "choices" in used and lists:
        other = min(used[form][0] for form in lists)
    elif lists and plain and (separator is None or "bare" in used):
        used = used | {"plain": list(plain)}
        other = next(iter(plain))
    else:
        return None
    first = min(indices[0] for form, indices in used.items() if other not in indices)
    form = next(indices for indices in used.values() if other in indices)
    return (
        f"{rows_text([rows[index] for index in form])}: {reprlib.repr(cells[other])} is written in "
        f"another form than {reprlib.repr(cells[first])} in row {rows[first]}; write all labels in "
        "one form, or give --separator TEXT for the cells that are not lists"
    )


def _divide(
    column: ColumnLabels,
    plain: dict[int, str],
    rows: Sequence[int],
    separator: str | None,
    alone: bool,
) -> None:
    """Divides the plain cells; `alone`: each is one name, as next to Label Studio's lists."""
    if separator is None:
        separator, problem = _separator(plain, rows, alone)
        if problem:
            column.problems.append((None, problem))
            return
        column.problems += [(rows[index], p) for index, t in plain.items() if (p := _in_signs(t))]
        if separator != ";":
            column.notes.append(f"labels in a cell are divided at {_shown(separator)}")
        elif not alone:
            _look_for_words(column, plain, rows)
    for index, text in plain.items():
        parts = text.split(separator)
        column.labels[index] = [name for part in parts if (name := part.strip())]
        for name in column.labels[index]:
            if name[0] in "[{" and name[-1] not in "]}" and len(parts) > 1:
                problem = f"the label {reprlib.repr(name)} is the beginning of a list"
                column.problems.append((rows[index], problem))


def _separator(plain: dict[int, str], rows: Sequence[int], alone: bool) -> tuple[str, str | None]:
    """Returns the sign between labels, and what is wrong where that is not clear, or None."""
    found = {
        sign: where
        for sign in _SEPARATORS
        if (where := [index for index, text in plain.items() if sign in text])
    }
    if not found or (list(found) == [";"] and not alone):
        return ";", None
    if len(found) == 1 and "," not in found and not alone:
        return next(iter(found)), None
    sign = "," if "," in found else next(sign for sign in found if sign != ";" or alone)
    where = found[sign]
    others = "".join(f"; others have {_shown(other)}" for other in found if other != sign)
    return ";", (
        f"{rows_text([rows[index] for index in where])}: {reprlib.repr(plain[where[0]])} may be "
        f"several labels or one that contains {_shown(sign)}{others}; give --separator "
        f"{_option(sign)} if it is a list, or --separator ';' if it is one name"
    )


def _shown(sign: str) -> str:
    return _WRITTEN.get(sign, f"'{sign}'")


def _option(sign: str) -> str:
    return {"\n": "$'\\n'", "\t": "$'\\t'"}.get(sign, f"'{sign}'")


def _in_signs(text: str) -> str | None:
    for sign in "'\"":
        if len(text) > 2 and text[0] == text[-1] == sign:
            return (
                f"the label {text} is in quotation marks; remove them, or give --separator ';' if "
                "they belong to the name"
            )
    return None


def _look_for_words(column: ColumnLabels, plain: dict[int, str], rows: Sequence[int]) -> None:
    """Refuses what must be labels divided by spaces, and notes what may be."""
    where: dict[str, int] = {}
    for index, text in plain.items():
        for name in text.split(";"):
            if len(name.split()) > 1:
                where.setdefault(" ".join(name.split()), index)
    in_order = collections.defaultdict(list)
    for name in where:
        in_order[tuple(sorted(name.split()))].append(name)
    lists = [names for names in in_order.values() if len(names) > 1]
    numbers = [name for name in where if all(word.isdigit() for word in name.split())]
    if lists or numbers:
        names = [name for names in lists for name in names] + numbers
        at = sorted({rows[where[name]] for name in names})
        both = " and ".join(repr(name) for name in names[:2])
        column.problems.append(
            (
                None,
                f"{rows_text(at)}: {both} may be lists of labels divided by spaces; give "
                "--separator ' ' if they are, or --separator ';' if each is one name",
            )
        )
        return
    words = {word for name in where for word in name.split()}
    if len(where) >= _FEW_WORDS and 2 * len(words) <= len(where):
        column.notes.append(
            f"{len(where)} names such as {next(iter(where))!r} consist of the same {len(words)} "
            "words: if they are lists divided by spaces, give --separator ' '"
        )


def _note_lists(column: ColumnLabels, used: dict[str, list[int]]) -> None:
    if used and not column.problems:
        count = sum(map(len, used.values()))
        column.notes.append(f"labels of {count} {'cell' if count == 1 else 'cells'} are lists")


def _leave_out(column: ColumnLabels, rows: Sequence[int], no_label: Collection[str]) -> None:
    """Removes the texts that mean that there is no label."""
    where: dict[str, list[int]] = {}
    for index, names in enumerate(column.labels):
        for name in names:
            if name in no_label:
                where.setdefault(name, []).append(rows[index])
        column.labels[index] = [name for name in names if name not in no_label]
    if where:
        texts = "; ".join(f"{text!r} in {rows_text(found)}" for text, found in where.items())
        column.notes.append(f"no label: {texts} (--no-label changes which texts are none)")
