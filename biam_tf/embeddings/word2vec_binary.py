"""word2vec's binary format: a line `words length`, then each word, a space and its float32."""

import pathlib
from collections.abc import Container
from typing import IO

import numpy as np

from biam_tf.embeddings.names import normalize
from biam_tf.errors import UserError

ENDINGS = (".bin", ".bin.gz")
_CHUNK = 1 << 22
_LONGEST_WORD = 4096  # bytes; a longer one means that these are no words
_LONGEST_VECTOR = 100_000
_FASTTEXT_MODEL = (793712314).to_bytes(4, "little")


def is_word2vec_binary(path: pathlib.Path) -> bool:
    """Returns whether a file's name says that it is in word2vec's binary format."""
    return path.name.lower().endswith(ENDINGS)


def read_word2vec_binary(
    file: IO[bytes], path: pathlib.Path, wanted: Container[str]
) -> tuple[dict[str, np.ndarray], set[str], int, dict[str, str]]:
    """Returns the vectors of `wanted` words, all words, their length, and what is not finite.

    The file is read once, some megabytes at a time; only the vectors that are needed are kept.
    Words that are not UTF-8, which some tools cut in the middle of a character, are skipped.

    Args:
        file: the unpacked bytes, at their beginning.
        path: named in errors.
        wanted: words in NFC.

    Returns:
        The vectors, the words and the length, and for the `wanted` words whose numbers are not
        finite, which are among the vectors, a message.

    Raises:
        UserError: the first line is not word2vec's; the file ends early or continues after its
            last word.
    """
    count, size = _header(file, path)
    vectors: dict[str, np.ndarray] = {}
    known: set[str] = set()
    not_finite: dict[str, str] = {}
    buffer, start = b"", 0
    for number in range(1, count + 1):
        if len(buffer) - start < _LONGEST_WORD + 1 + 4 * size:
            buffer, start = buffer[start:] + file.read(max(_CHUNK, 8 * size)), 0
        if buffer[start : start + 1] == b"\n":  # after a vector, in the files of word2vec itself
            start += 1
        space = buffer.find(b" ", start, start + _LONGEST_WORD)
        end = space + 1 + 4 * size
        if space < 0 and len(buffer) - start >= _LONGEST_WORD:
            raise UserError(
                f"{path}: word {number} of {count} does not end; the file is damaged or not in "
                "word2vec's binary format"
            )
        if space < 0 or end > len(buffer):
            raise UserError(
                f"{path}: its first line promises {count} words of {size} numbers, but the file "
                f"ends in word {number}; it is cut short, get it again"
            )
        try:
            word = normalize(buffer[start:space].decode("utf-8"))
        except UnicodeDecodeError:
            word = None
        if word is not None:
            known.add(word)
            if word in wanted and word not in vectors:
                vectors[word] = np.frombuffer(buffer[space + 1 : end], "<f4").astype(np.float32)
                if not np.isfinite(vectors[word]).all():
                    not_finite[word] = f"the vector of {word!r} has numbers that are not finite"
        start = end
    if (buffer[start:] + file.read(2)).strip(b"\n"):
        raise UserError(
            f"{path}: goes on after the {count} words of {size} numbers that its first line "
            "promises; the file is damaged or not in word2vec's binary format"
        )
    return vectors, known, size, not_finite


def _header(file: IO[bytes], path: pathlib.Path) -> tuple[int, int]:
    line = file.readline(64)
    if line.startswith(_FASTTEXT_MODEL):
        raise UserError(
            f"{path}: is fastText's own model, not word2vec's binary format; give the .vec file "
            "that is published beside it"
        )
    fields = line.split()
    if not line.endswith(b"\n") or len(fields) != 2 or not all(map(bytes.isdigit, fields)):
        raise UserError(
            f"{path}: word2vec's binary format begins with a line of two whole numbers, not with "
            f"{line[:24]!r}; word vectors that are text need another ending than .bin"
        )
    count, size = map(int, fields)
    if not 0 < size <= _LONGEST_VECTOR:
        raise UserError(f"{path}: its first line promises vectors of {size} numbers")
    return count, size
