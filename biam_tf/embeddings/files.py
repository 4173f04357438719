"""Readers of files of class embeddings: word vectors, arrays, tables.

Each returns plain data; a problem with a file is a `UserError` that names the file, the line or
array, and what to do. Nothing is unpickled.
"""

import contextlib
import csv
import dataclasses
import gzip
import pathlib
import re
import warnings
import zipfile
import zlib
from collections.abc import Collection, Container, Iterator, Sequence
from typing import IO, NoReturn, TextIO, cast

import numpy as np

from biam_tf.arrays import open_npz
from biam_tf.csv_files import NotCsv, csv_form
from biam_tf.embeddings.glove_text import AnyWord, read_glove_text
from biam_tf.embeddings.names import NO_NAMES, NameIndex, Words, look_up, spellings
from biam_tf.embeddings.word2vec_binary import is_word2vec_binary, read_word2vec_binary
from biam_tf.errors import UserError

_ROWS_IN_AN_ERROR = 20
_LONGEST_LINE = 16 << 20  # of word vectors, which have a few KB
_DECIMAL_COMMA = r"^(\s*[-+]?\d*),(\d+(?:[eE][-+]?\d+)?\s*)$"
_UNREADABLE = (OSError, EOFError, zlib.error, zipfile.BadZipFile, ValueError)


def read_word_vectors(
    path: pathlib.Path, wanted: Container[str]
) -> tuple[dict[str, np.ndarray], set[str], int]:
    """Returns the vectors of `wanted` words, all words of the file, and the vectors' length.

    The format is GloVe's, plain or gzip: a word and its numbers, separated by spaces. A first line
    of two whole numbers is the header of word2vec's and fastText's text format (`.vec`): the
    number of words, which the file must have, and the length of a vector. `.bin` and `.bin.gz`
    are word2vec's binary format. Words are returned in NFC; the first entry of a repeated word
    is used.

    Args:
        path: the file.
        wanted: words in NFC.

    Raises:
        UserError: the file cannot be read, holds no words, or has a broken line; or numbers of a
            wanted word are not finite.
    """
    vectors, known, size, not_finite = _read_words(path, wanted)
    for problem in not_finite.values():
        _refuse(path, problem)
    return vectors, known, size


def _read_words(
    path: pathlib.Path, wanted: Container[str]
) -> tuple[dict[str, np.ndarray], set[str], int, dict[str, str]]:
    """As `read_word_vectors`, with what is not finite as a problem by word instead of an error."""
    way_out = (
        "give a GloVe text file, plain or .gz (https://nlp.stanford.edu/projects/glove/), "
        "fastText's .vec, word2vec's .bin, an .npz file of names and embeddings, or a .csv table "
        "of attributes"
    )
    with _reading(path, "word vectors", way_out), _open_packed(path) as file:
        if is_word2vec_binary(path):
            read = read_word2vec_binary(file, path, wanted)
        else:
            read = read_glove_text(_lines(file, path), path, wanted)
        vectors, known, size, not_finite = read
    if not known:
        raise UserError(f"{path}: no word vectors in this file; {way_out}")
    return vectors, known, size, not_finite


def _lines(file: IO[bytes], path: pathlib.Path) -> Iterator[bytes]:
    """Yields the lines of a file; a packed file of megabytes may hold one of gigabytes."""
    number = 0
    while line := file.readline(_LONGEST_LINE):
        number += 1
        if len(line) == _LONGEST_LINE:
            raise UserError(
                f"{path}, line {number}: is longer than {_LONGEST_LINE >> 20} MB; the file holds "
                "no word vectors, or is damaged"
            )
        yield line


def _refuse(path: pathlib.Path, problem: str) -> NoReturn:
    comma = ", " if problem.startswith("line ") else ": "
    raise UserError(f"{path}{comma}{problem}; correct it or get the file again")


@dataclasses.dataclass(frozen=True, eq=False)
class NamesInFile:
    """Class names looked up among the words of a file.

    Attributes:
        found: C entries, what each name was found by.
        means: (C, d) float64, the mean of each name's word vectors; zeros for a name that is
            missing or one of the given whole names.
        known: all words of the file.
    """

    found: tuple[Words, ...]
    means: np.ndarray
    known: Collection[str]


def look_up_in_file(
    path: pathlib.Path, names: Sequence[str], whole: NameIndex = NO_NAMES
) -> NamesInFile:
    """Looks up class names in a file of word vectors by the rule of `biam_tf.embeddings.names`.

    The file is read once; only the vectors that are needed are kept.

    Args:
        path: the file.
        names: C class names.
        whole: names that have an embedding elsewhere.

    Raises:
        UserError: as `read_word_vectors` does. A missing name is no error here.
    """
    wanted = {spelling for name in names for spelling in spellings(name)}
    vectors, known, size, not_finite = _read_words(path, wanted)
    found = tuple(look_up(name, vectors, whole) for name in names)
    means = np.zeros((len(names), size))
    for row, words in enumerate(found):
        if words.found and words.row is None:
            for word in words.found:
                if word in not_finite:
                    _refuse(path, not_finite[word])
            means[row] = np.mean([vectors[word] for word in words.found], axis=0)
    return NamesInFile(found, means, known)


def read_all_word_vectors(path: pathlib.Path) -> tuple[tuple[str, ...], np.ndarray]:
    """Returns all W words of a file, in its order, and their vectors (W, d), float32.

    Words whose numbers are not finite are left out, with a warning.

    Raises:
        UserError: as `read_word_vectors` does, or the numbers of no word are finite.
    """
    vectors, _, _, not_finite = _read_words(path, AnyWord())
    if len(not_finite) == len(vectors):
        _refuse(path, next(iter(not_finite.values())))
    if not_finite:
        words = ", ".join(map(repr, list(not_finite)[:_ROWS_IN_AN_ERROR]))
        warnings.warn(
            f"{path}: {len(not_finite)} words have numbers that are not finite and are left out: "
            f"{words}",
            stacklevel=2,
        )
    vectors = {word: vector for word, vector in vectors.items() if word not in not_finite}
    return tuple(vectors), np.stack(list(vectors.values()))


def read_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns the arrays of an .npz file: `names`, `embeddings` and, if it is there, `groups`.

    Raises:
        UserError: the file cannot be read, lacks an array, or an array holds something else.
    """
    way_out = "give an .npz file with arrays 'names' (C,) and 'embeddings' (C, d)"
    with _reading(path, "an .npz file", way_out):
        with open_npz(path) as file:
            missing = [key for key in ("names", "embeddings") if key not in file.files]
            if missing:
                raise UserError(f"{path}: no array {missing[0]!r} among {file.files}; {way_out}")
            keys = [key for key in ("names", "embeddings", "groups") if key in file.files]
            return {key: _read_array(file, path, key) for key in keys}


def read_note(path: pathlib.Path) -> str | None:
    """Returns the text `made` of an .npz file, which says what its embeddings were made of.

    None: there is no such file, or no such text in it.
    """
    try:
        with open_npz(path) as file:
            return str(file["made"]) if "made" in file.files else None
    except (*_UNREADABLE, AttributeError):
        return None


def read_attribute_table(
    path: pathlib.Path, allow_not_finite: bool = False
) -> tuple[tuple[str, ...], np.ndarray]:
    """Returns the names (C,) and numbers (C, d) of a CSV table whose first column is `name`.

    The columns are separated by commas, semicolons or tabs. In a table with semicolons or tabs a
    number may have a decimal comma.

    Args:
        path: the file.
        allow_not_finite: an empty cell is NaN, and NaN and infinities are returned; else they are
            errors.

    Raises:
        UserError: the file cannot be read, or rows are broken: all of them, with their lines.
    """
    way_out = "give a .csv table whose first column is 'name' and whose others are numbers"
    names, rows, problems = [], [], []
    with _reading(path, "a table of attributes", way_out), _open_table(path) as file:
        first = file.readline()
        file.seek(0)
        named = re.match(r'\s*"?name"?\s*([;\t])', first)
        table = csv.reader(file, strict=True, delimiter=named[1] if named else ",")
        try:
            header = next(table, [])
            if len(header) < 2 or header[0].strip() != "name":
                raise UserError(f"{path}: the columns are {', '.join(header) or 'none'}; {way_out}")
            for row in table:
                if not any(map(str.strip, row)):
                    continue  # spreadsheets write such rows at the end
                names.append(row[0].strip())
                if named:
                    row = [row[0], *(re.sub(_DECIMAL_COMMA, r"\1.\2", cell) for cell in row[1:])]
                numbers, problem = _attribute_row(row, header, allow_not_finite)
                rows.append(numbers)
                if problem:
                    problems.append(f"  line {table.line_num}: {problem}")
        except csv.Error as error:
            raise UserError(f"{path}, line {table.line_num}: {error}") from None
    if problems:
        more = len(problems) - _ROWS_IN_AN_ERROR
        shown = problems[:_ROWS_IN_AN_ERROR] + ([f"  and {more} more"] if more > 0 else [])
        raise UserError(f"{path}: {len(problems)} broken rows:\n" + "\n".join(shown))
    return tuple(names), np.array(rows, np.float64).reshape(len(rows), len(header) - 1)


def _open_table(path: pathlib.Path) -> TextIO:
    try:
        encoding, _ = csv_form(path)
    except NotCsv as error:
        raise UserError(f"{path}: {error}") from None
    return open(path, encoding=encoding, newline="")


@contextlib.contextmanager
def _reading(path: pathlib.Path, what: str, way_out: str) -> Iterator[None]:
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "there is no such file"
        raise UserError(f"{path}: {problem}; {way_out}")
    try:
        yield
    except UserError:
        raise
    except _UNREADABLE as error:
        raise UserError(
            f"{path}: can't be read as {what}: {error}; the file is damaged, cut short, or in "
            "another format"
        ) from error


@contextlib.contextmanager
def _open_packed(path: pathlib.Path) -> Iterator[IO[bytes]]:
    with open(path, "rb") as file:
        beginning = file.read(2)
        file.seek(0)
        if beginning == b"PK":
            raise UserError(f"{path}: is a zip archive; unpack it and give one of its files")
        # By its content, because downloads are often renamed.
        if beginning == b"\x1f\x8b":
            with gzip.open(file) as unpacked:
                yield cast(IO[bytes], unpacked)
        else:
            yield file


def _read_array(file: np.lib.npyio.NpzFile, path: pathlib.Path, key: str) -> np.ndarray:
    try:
        array = file[key]
    except ValueError as error:
        if "pickle" not in str(error).lower():
            raise
        raise UserError(
            f"{path}: array {key!r} holds Python objects, which only pickle could read, and a "
            f"pickle can run any code; save it again as np.array({key}, dtype="
            f"{'float' if key == 'embeddings' else 'str'})"
        ) from None
    if key == "embeddings" and array.dtype.kind not in "fiu":
        raise UserError(f"{path}: array 'embeddings' must hold numbers, not {array.dtype}")
    if key != "embeddings":
        if array.dtype.kind not in "US" or array.ndim != 1:
            raise UserError(
                f"{path}: array {key!r} must be a list of strings, not {array.dtype} of shape "
                f"{array.shape}"
            )
        array = np.char.decode(array, "utf-8") if array.dtype.kind == "S" else array
    return array


def _attribute_row(
    row: Sequence[str], header: Sequence[str], allow_not_finite: bool
) -> tuple[list[float], str | None]:
    if len(row) != len(header):
        return [], f"{len(row)} fields, but the header has {len(header)}"
    numbers = []
    for column, value in zip(header[1:], row[1:], strict=True):
        try:
            numbers.append(float(value if value.strip() or not allow_not_finite else "nan"))
        except ValueError:
            return [], f"column {column!r}: {value!r} is not a number"
        if not allow_not_finite and not np.isfinite(numbers[-1]):
            return [], f"column {column!r}: {value!r} is not a finite number"
    return numbers, None
