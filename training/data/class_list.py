"""Reads class names and their groups from a data set's folder, a classes.csv or a text file."""

import csv
import dataclasses
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import yaml

from biam_tf.csv_files import NotCsv, csv_form, csv_reader
from biam_tf.embeddings.names import normalize
from biam_tf.errors import UserError, did_you_mean
from training.data.dataset import IGNORED
from training.data.folder.reader import CLASSES


@dataclasses.dataclass(frozen=True)
class ClassList:
    """Class names.

    Attributes:
        names: C names without duplicates.
        groups: "seen" or "unseen" for each class; None if the list has no groups.
        descriptions: texts that describe a class, by its name; classes without any are left out.
    """

    names: tuple[str, ...]
    groups: tuple[str, ...] | None = None
    descriptions: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)


def read_class_list(path: str | os.PathLike[str]) -> ClassList:
    """Reads class names.

    Args:
        path: a data set's folder, a .csv file with a column `name` (and optionally `group`;
            ignored classes are left out) and `descriptions`, separated by `|`, or a text file
            with one name per line.

    Returns:
        The names, normalized to Unicode NFC.

    Raises:
        UserError: the file is missing, is not UTF-8, contains a name twice, or no name.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        path = path / CLASSES
    if not path.is_file():
        raise UserError(
            f"{path}: no such file; give a text file with one name per line, a {CLASSES}, or the "
            "folder of a data set"
        )
    try:
        rows = list(_csv_rows(path) if path.suffix.lower() == ".csv" else _lines(path))
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not UTF-8 text; save it as UTF-8") from None
    except NotCsv as error:
        raise UserError(f"{path}: {error}") from None
    except csv.Error as error:
        raise UserError(f"{path}: is not a CSV file: {error}") from None
    first: dict[str, int] = {}
    for row, name, *_ in rows:
        if name in first:
            raise UserError(f"{path}: {name!r} is in rows {first[name]} and {row}")
        first[name] = row
    if not rows:
        raise UserError(f"{path}: contains no class names")
    groups = tuple(group for _, _, group, _ in rows)
    described = {name: texts for _, name, _, texts in rows if texts}
    return ClassList(tuple(first), groups if all(groups) else None, described)


def read_descriptions(
    path: str | os.PathLike[str], names: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """Reads descriptions of classes from a YAML file of lists of texts, or single texts, by name.

    Args:
        path: the file.
        names: the classes.

    Raises:
        UserError: the file cannot be read or has another form, or describes a class that is not
            among the names.
    """
    path = pathlib.Path(path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: cannot be read as YAML ({reason})") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: give lists of descriptions by class names, such as 'dog: [...]'")
    found = {}
    for name, texts in values.items():
        texts = [texts] if isinstance(texts, str) else texts
        if not isinstance(texts, list) or not all(isinstance(t, str) and t.strip() for t in texts):
            raise UserError(f"{path}: {name!r}: expected texts that describe the class")
        name = normalize(str(name))
        if name not in names:
            raise UserError(f"{path}: no class {name!r}{did_you_mean(name, names)}")
        if texts:
            found[name] = tuple(text.strip() for text in texts)
    return found


def read_row_names(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Returns the names of a text file with one name per line, which may be repeated.

    Raises:
        UserError: the file is missing or is not UTF-8.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; give a text file with one name per line")
    try:
        return tuple(name for _, name, *_ in _lines(path))
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not UTF-8 text; save it as UTF-8") from None
    except NotCsv as error:
        raise UserError(f"{path}: {error}") from None


# Number of a row, name, group, and descriptions.
_Row = tuple[int, str, str, tuple[str, ...]]


def _lines(path: pathlib.Path) -> Iterator[_Row]:
    encoding, _ = csv_form(path)
    for row, line in enumerate(path.read_text(encoding=encoding).splitlines(), start=1):
        if line.strip():
            yield row, normalize(line.strip()), "", ()


def _csv_rows(path: pathlib.Path) -> Iterator[_Row]:
    encoding, separator = csv_form(path)
    with path.open(newline="", encoding=encoding) as file:
        table = csv_reader(file, separator)
        header = [column.strip() for column in next(table, [])]
        if "name" not in header:
            columns = ", ".join(header) or "none"
            raise UserError(f"{path}: no column 'name'; the columns are: {columns}")
        for row, values in enumerate(table, start=2):
            cells = dict(zip(header, values, strict=False))
            name = normalize(cells.get("name", "").strip())
            group = cells.get("group", "").strip()
            texts = tuple(filter(None, map(str.strip, cells.get("descriptions", "").split("|"))))
            if name and group != IGNORED:
                yield row, name, group, texts
