import gzip

import numpy as np
import pytest

from biam_tf.embeddings.files import read_all_word_vectors, read_word_vectors
from biam_tf.errors import UserError
from biam_tf.vocabulary import Vocabulary

pytestmark = pytest.mark.unit

VECTORS = {
    "red": np.array([0, 2, 0], "<f4"),
    "New_York": np.array([1.5, -2, 0.25], "<f4"),
    "Bär": np.array([3, 0, 4], "<f4"),
}


def binary(vectors=VECTORS, count=None, size=3, end=b"\n") -> bytes:
    records = (word.encode() + b" " + row.tobytes() + end for word, row in vectors.items())
    return f"{len(vectors) if count is None else count} {size}\n".encode() + b"".join(records)


@pytest.mark.parametrize("end", [b"\n", b""])  # word2vec's own files and gensim's
def test_words_have_the_bits_that_were_written(tmp_path, end):
    path = tmp_path / "vectors.bin"
    path.write_bytes(binary(end=end))
    words, rows = read_all_word_vectors(path)
    assert words == tuple(VECTORS)
    np.testing.assert_array_equal(rows, np.stack(list(VECTORS.values())))


def test_only_wanted_vectors_are_kept_and_all_words_are_known(tmp_path):
    path = tmp_path / "vectors.bin"
    path.write_bytes(binary())
    vectors, known, size = read_word_vectors(path, {"red"})
    assert set(vectors) == {"red"} and known == set(VECTORS) and size == 3


def test_a_file_of_many_chunks_packed_is_the_same(tmp_path, rng):
    many = {f"word{n}": rng.normal(size=300).astype("<f4") for n in range(4000)}  # 4.8 MB
    path = tmp_path / "vectors.bin.gz"
    path.write_bytes(gzip.compress(binary(many, size=300), 1))
    words, rows = read_all_word_vectors(path)
    assert words == tuple(many)
    np.testing.assert_array_equal(rows, np.stack(list(many.values())))


def test_a_vocabulary_takes_it_directly(tmp_path):
    path = tmp_path / "vectors.BIN"
    path.write_bytes(binary())
    vocabulary = Vocabulary.from_file(path, ["Bär", "RED"])
    np.testing.assert_allclose(vocabulary.embeddings, [[0.6, 0, 0.8], [0, 1, 0]], rtol=1e-6)


def test_a_word_that_is_no_utf8_is_passed_over(tmp_path):
    path = tmp_path / "vectors.bin"
    path.write_bytes(binary().replace("Bär".encode(), b"B\xc3r"))
    assert read_all_word_vectors(path)[0] == ("red", "New_York")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (binary()[:-5], "promises 3 words of 3 numbers, but the file ends in word 3"),
        (binary(count=4), "ends in word 4"),
        (binary(count=2), "goes on after the 2 words"),
        (b"red 0 2 0\ncar 1 2 3\n", "begins with a line of two whole numbers, not with b'red"),
        (b"\xba\x16\x4f\x2f" + bytes(100), "fastText's own model"),
        (b"3 0\nred ", "vectors of 0 numbers"),
        (b"1 3\n" + b"x" * 5000, "word 1 of 1 does not end"),
        (b"1 3\nred " + np.array([1, np.nan, 0], "<f4").tobytes(), "'red' has numbers that are"),
        (b"", "two whole numbers"),
        (b"0 3\n", "no word vectors in this file"),
    ],
)
def test_a_file_of_another_size_or_kind_is_refused(tmp_path, content, problem):
    path = tmp_path / "vectors.bin"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read_all_word_vectors(path)
    assert str(error.value).startswith(str(path)) and problem in str(error.value)


def test_a_fasttext_text_that_is_cut_short_is_refused(tmp_path):
    path = tmp_path / "wiki.vec"
    path.write_text("3 2\nred 0 2\nNew York 1 1\ncar 2 2\n")
    assert read_all_word_vectors(path)[0] == ("red", "New York", "car")
    path.write_text("3 2\nred 0 2\ncar 2 2\n")
    with pytest.raises(UserError, match=r"wiki.vec: .* promises 3 words, but only 2 lines follow"):
        read_all_word_vectors(path)
