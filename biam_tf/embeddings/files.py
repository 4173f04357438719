"""Readers of files of class embeddings: word vectors, arrays, tables.

Each returns plain data; a problem with a file is a `UserError` that names the file, the line or
array, and what to do. Nothing is unpickled.
"""

import contextlib
import csv
import dataclasses
import gzip
import pathlib
import zipfile
import zlib
from collections.abc import Collection, Container, Iterable, Iterator, Sequence
from typing import IO, NoReturn, cast

import numpy as np

from biam_tf.embeddings.names import NO_NAMES, NameIndex, Words, look_up, normalize, spellings
from biam_tf.embeddings.word2vec_binary import is_word2vec_binary, read_word2vec_binary
from biam_tf.errors import UserError

_ROWS_IN_AN_ERROR = 20
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
        UserError: the file cannot be read, holds no words, or has a broken line.
    """
    way_out = (
        "give a GloVe text file, plain or .gz (https://nlp.stanford.edu/projects/glove/), "
        "fastText's .vec, word2vec's .bin, an .npz file of names and embeddings, or a .csv table "
        "of attributes"
    )
    with _reading(path, "word vectors", way_out), _open_packed(path) as file:
        if is_word2vec_binary(path):
            vectors, known, size = read_word2vec_binary(file, path, wanted)
        else:
            vectors, known, size = _read_text(file, path, wanted)
    if not known:
        raise UserError(f"{path}: no word vectors in this file; {way_out}")
    return vectors, known, size


def _read_text(
    lines: Iterable[bytes], path: pathlib.Path, wanted: Container[str]
) -> tuple[dict[str, np.ndarray], set[str], int]:
    vectors: dict[str, np.ndarray] = {}
    known: set[str] = set()
    size: int | None = None
    promised, number = 0, 0
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        if size is None:
            fields = line.split()
            if number == 1 and len(fields) == 2 and all(field.isdigit() for field in fields):
                promised, size = map(int, fields)
                continue
            size = len(fields) - 1
        try:
            word, numbers = _split_line(line, size)
            known.add(word)
            if word in wanted and word not in vectors:
                vectors[word] = _parse_numbers(numbers)
        except ValueError as error:
            raise UserError(
                f"{path}, line {number}: {error}; correct the line or get the file again"
            ) from None
    if known and number - 1 < promised:
        raise UserError(
            f"{path}: its first line promises {promised} words, but only {number - 1} lines "
            "follow; the file is cut short, get it again"
        )
    return vectors, known, size or 0


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
    vectors, known, size = read_word_vectors(path, wanted)
    found = tuple(look_up(name, vectors, whole) for name in names)
    means = np.zeros((len(names), size))
    for row, words in enumerate(found):
        if words.found and words.row is None:
            means[row] = np.mean([vectors[word] for word in words.found], axis=0)
    return NamesInFile(found, means, known)


class _AnyWord:
    def __contains__(self, word: object) -> bool:
        return True


def read_all_word_vectors(path: pathlib.Path) -> tuple[tuple[str, ...], np.ndarray]:
    """Returns all W words of a file, in its order, and their vectors (W, d), float32.

    Raises:
        UserError: as `read_word_vectors` does.
    """
    vectors, _, _ = read_word_vectors(path, _AnyWord())
    return tuple(vectors), np.stack(list(vectors.values()))


def read_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns the arrays of an .npz file: `names`, `embeddings` and, if it is there, `groups`.

    Raises:
        UserError: the file cannot be read, lacks an array, or an array holds something else.
    """
    way_out = "give an .npz file with arrays 'names' (C,) and 'embeddings' (C, d)"
    with _reading(path, "an .npz file", way_out):
        file = np.load(path, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise UserError(f"{path}: a single array; {way_out}")
        with file:
            missing = [key for key in ("names", "embeddings") if key not in file.files]
            if missing:
                raise UserError(f"{path}: no array {missing[0]!r} among {file.files}; {way_out}")
            keys = [key for key in ("names", "embeddings", "groups") if key in file.files]
            return {key: _read_array(file, path, key) for key in keys}


def read_attribute_table(path: pathlib.Path) -> tuple[tuple[str, ...], np.ndarray]:
    """Returns the names (C,) and numbers (C, d) of a CSV table whose first column is `name`.

    Raises:
        UserError: the file cannot be read, or rows are broken: all of them, with their lines.
    """
    way_out = "give a .csv table whose first column is 'name' and whose others are numbers"
    names, rows, problems = [], [], []
    with (
        _reading(path, "a table of attributes", way_out),
        open(path, encoding="utf-8-sig", newline="") as file,
    ):
        table = csv.reader(file, strict=True)
        try:
            header = next(table, [])
            if len(header) < 2 or header[0].strip() != "name":
                raise UserError(f"{path}: the columns are {', '.join(header) or 'none'}; {way_out}")
            for row in table:
                if not row:
                    continue
                names.append(row[0].strip())
                numbers, problem = _attribute_row(row, header)
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


def _split_line(line: bytes, size: int) -> tuple[str, list[bytes]]:
    """Splits a line into its word and its `size` numbers, which are not parsed yet.

    Parsing 400,000 lines of 300 numbers would take most of the time, so that only the numbers of
    words that are needed are parsed. Here a field is a number if it has the characters of one.
    """
    fields = line.split()
    # Some words contain spaces (". . ."): the numbers are the last fields.
    words, numbers = (fields[:-size], fields[-size:]) if 0 < size < len(fields) else (fields, [])
    if not numbers or any(_looks_like_a_number(word) for word in words[1:]):
        raise ValueError(
            f"{len(fields) - 1} numbers after {_shown(fields[0])} where "
            f"{size or 'some'} are expected"
        )
    if _foreign_letters(b"".join(numbers)):
        _parse_numbers(numbers)
    try:
        return normalize(b" ".join(words).decode("utf-8")), numbers
    except UnicodeDecodeError:
        raise ValueError(f"the word {words[0]!r} is not UTF-8") from None


def _looks_like_a_number(field: bytes) -> bool:
    return field[-1:].isdigit() and not _foreign_letters(field)


def _foreign_letters(text: bytes) -> bytes:
    return text.translate(None, b"0123456789+-.eE")


def _parse_numbers(numbers: Sequence[bytes]) -> np.ndarray:
    try:
        parsed = np.array(list(map(float, numbers)), np.float32)
    except ValueError:
        _refuse_number(numbers)
    if not np.isfinite(parsed).all():
        _refuse_number(numbers)
    return parsed


def _refuse_number(numbers: Sequence[bytes]) -> NoReturn:
    """Raises the error that names the first field that is not a finite number."""
    for number in numbers:
        try:
            finite = np.isfinite(np.float32(float(number)))
        except ValueError:
            raise ValueError(f"{_shown(number)} is not a number") from None
        if not finite:
            raise ValueError(f"{_shown(number)} is not a finite number")
    raise AssertionError("all of these are finite numbers")


def _shown(field: bytes) -> str:
    return repr(field.decode("utf-8", "backslashreplace"))


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


def _attribute_row(row: Sequence[str], header: Sequence[str]) -> tuple[list[float], str | None]:
    if len(row) != len(header):
        return [], f"{len(row)} fields, but the header has {len(header)}"
    numbers = []
    for column, value in zip(header[1:], row[1:], strict=True):
        try:
            numbers.append(float(value))
        except ValueError:
            return [], f"column {column!r}: {value!r} is not a number"
        if not np.isfinite(numbers[-1]):
            return [], f"column {column!r}: {value!r} is not a finite number"
    return numbers, None
