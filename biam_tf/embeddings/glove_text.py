"""GloVe's text format: on each line a word and its numbers, separated by spaces."""

import codecs
import itertools
import pathlib
from collections.abc import Container, Iterable, Sequence

import numpy as np

from biam_tf.embeddings.names import normalize
from biam_tf.errors import UserError

_LINES_FOR_SIZE = 100
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class AnyWord:
    """Contains every word: the vectors of the whole file are wanted."""

    def __contains__(self, word: object) -> bool:
        return True


def read_glove_text(
    lines: Iterable[bytes], path: pathlib.Path, wanted: Container[str]
) -> tuple[dict[str, np.ndarray], set[str], int, dict[str, str]]:
    """Returns the vectors of `wanted` words, all words, their length, and what is not finite.

    A first line of two whole numbers is a header: the number of words and the length. A byte order
    mark is not a part of the first word. A word may have spaces (`. . .`, `3 4`). Words that are
    not UTF-8 are skipped; lines are only refused for what nobody asked for where they show that
    the file is damaged or of another kind.

    Args:
        lines: of the file.
        path: named in errors.
        wanted: words in NFC.

    Returns:
        The vectors, float32, in the order of the file; the words in NFC; the length of a vector;
        and for the `wanted` words whose numbers are not finite, which are among the vectors, the
        line and the number.

    Raises:
        UserError: a line does not fit, or the header promises more words than there are.
    """
    vectors: dict[str, np.ndarray] = {}
    known: set[str] = set()
    not_finite: dict[str, str] = {}
    lines = iter(lines)
    head = list(itertools.islice(lines, _LINES_FOR_SIZE))
    promised, size, number = 0, 0, 0
    if head:
        if head[0].startswith(_UTF_16):
            raise UserError(f"{path}: is UTF-16 text; save it as UTF-8")
        head[0] = head[0].removeprefix(codecs.BOM_UTF8)
        header = head[0].split()
        if len(header) == 2 and all(field.isdigit() for field in header):
            promised, size = map(int, header)
            head[0] = b""
        else:
            size = _vector_length([line.split() for line in head if line.strip()])
    for number, line in enumerate(itertools.chain(head, lines), start=1):
        if not line.strip():
            continue
        try:
            word, numbers = _split_line(line, size, wanted)
            if word is None:
                continue
            known.add(word)
            if word in wanted and word not in vectors:
                with np.errstate(over="ignore"):
                    vectors[word] = np.array(_parsed(numbers), np.float32)
                is_finite = np.isfinite(vectors[word])
                if not is_finite.all():
                    shown = _shown(numbers[int(np.argmin(is_finite))])
                    not_finite[word] = f"line {number}: {shown} is not a finite number"
        except ValueError as error:
            raise UserError(
                f"{path}, line {number}: {error}; correct the line or get the file again"
            ) from None
    if known and number - 1 < promised:
        raise UserError(
            f"{path}: its first line promises {promised} words, but only {number - 1} lines "
            "follow; the file is cut short, get it again"
        )
    return vectors, known, size, not_finite


def _vector_length(lines: Sequence[Sequence[bytes]]) -> int:
    """Returns the length of a vector that fits most of the first lines.

    The first line alone does not tell: its word may consist of several, or of numbers.
    """
    counts = []
    for fields in lines:
        others = itertools.takewhile(_is_a_number, reversed(fields[1:]))
        counts.append(sum(1 for _ in others))

    def misfits(size: int) -> int:
        pairs = zip(lines, counts, strict=True)
        return sum(
            count < size or _has_numbers_too_many(fields[: len(fields) - size])
            for fields, count in pairs
        )

    return min(dict.fromkeys(counts), key=misfits, default=0)  # of equal ones the first


def _has_numbers_too_many(words: Sequence[bytes]) -> bool:
    """Returns whether what stands before the numbers is a word and further numbers.

    A word of numbers alone, such as `3 4`, is one.
    """
    return any(map(_looks_like_a_number, words[1:])) and not _looks_like_a_number(words[0])


def _split_line(line: bytes, size: int, wanted: Container[str]) -> tuple[str | None, list[bytes]]:
    """Splits a line into its word, None if it is no text, and its `size` numbers, as written.

    Parsing 400,000 lines of 300 numbers would take most of the time, so that only the numbers of
    words that are needed are parsed. Here a field is a number if it has the characters of one.
    """
    fields = line.split()
    if len(fields) == size and line[:1].isspace():
        return None, []  # the word is a space
    # Some words contain spaces: the numbers are the last fields.
    words, numbers = (fields[:-size], fields[-size:]) if 0 < size < len(fields) else (fields, [])
    text = b" ".join(words)
    misfits = not numbers
    if numbers and _has_numbers_too_many(words):
        # It may be a word such as `chapter 1`, or the line of a word that somebody asks for.
        is_word = not isinstance(wanted, AnyWord) and _as_text(text, wanted) in wanted
        misfits = not is_word and _as_text(words[0], wanted) in wanted
    if misfits:
        raise ValueError(
            f"{len(fields) - 1} numbers after {_shown(fields[0])} where "
            f"{size or 'some'} are expected"
        )
    if _foreign_letters(b"".join(numbers)):
        _parsed(numbers)
    return _as_text(text, wanted), numbers


def _as_text(word: bytes, wanted: Container[str]) -> str | None:
    """Returns a word in NFC; None if it is not UTF-8.

    Raises:
        ValueError: it is a `wanted` one in Latin-1.
    """
    try:
        return normalize(word.decode("utf-8"))
    except UnicodeDecodeError:
        if not isinstance(wanted, AnyWord) and normalize(word.decode("latin-1")) in wanted:
            raise ValueError(f"the word {word!r} is not UTF-8 (save the file as UTF-8)") from None
        return None


def _is_a_number(field: bytes) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _looks_like_a_number(field: bytes) -> bool:
    return field[-1:].isdigit() and not _foreign_letters(field)


def _foreign_letters(text: bytes) -> bytes:
    return text.translate(None, b"0123456789+-.eE")


def _parsed(numbers: Sequence[bytes]) -> list[float]:
    """Returns the numbers; raises a ValueError that names the first field that is none."""
    for number in numbers:
        if not _is_a_number(number):
            raise ValueError(f"{_shown(number)} is not a number")
    return list(map(float, numbers))


def _shown(field: bytes) -> str:
    return repr(field.decode("utf-8", "backslashreplace"))
