"""Text files of word vectors, and the words of a name that are looked up in them."""

import gzip
import os

import numpy as np
import pytest

from biam_tf.embeddings.files import read_all_word_vectors
from biam_tf.errors import UserError
from biam_tf.vocabulary import Vocabulary

pytestmark = pytest.mark.unit

WORDS = """the 1 0 0
red 0 2 0
car 0 0 4
zebra 3 0 4
Paris 0 1 1
t-shirt 1 1 0
close 2 0 0
up 0 2 0
zero 0 0 0
. . . 5 0 0
"""


@pytest.fixture
def words(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text(WORDS, encoding="utf-8")
    return path


def embedded(path, *names):
    return Vocabulary.from_word_vectors(path, names).embeddings


def unit(*numbers):
    return np.array(numbers) / np.linalg.norm(numbers)


def test_rows_are_unit_vectors_in_the_order_of_the_names(words):
    vocabulary = Vocabulary.from_word_vectors(words, ["zebra", "the"], ["unseen", "seen"])
    np.testing.assert_allclose(vocabulary.embeddings, [[0.6, 0, 0.8], [1, 0, 0]], rtol=1e-6)
    assert vocabulary.embeddings.dtype == np.float32
    assert not vocabulary.embeddings.flags.writeable
    assert vocabulary.names == ("zebra", "the") and vocabulary.groups == ("unseen", "seen")
    assert len(vocabulary) == 2 and vocabulary.embedding_size == 3


def test_several_words_average_their_raw_vectors(words):
    np.testing.assert_allclose(embedded(words, "red car"), [unit(0, 2, 4)], rtol=1e-6)


def test_a_name_is_tried_as_it_is_and_then_in_lower_case(words):
    rows = embedded(words, "Zebra", "Paris", "RED")
    np.testing.assert_allclose(rows, [[0.6, 0, 0.8], unit(0, 1, 1), [0, 1, 0]], rtol=1e-6)
    with pytest.raises(UserError, match="'paris'"):
        embedded(words, "paris")


def test_a_hyphen_divides_a_word_only_where_the_whole_is_not_known(words):
    rows = embedded(words, "t-shirt", "close-up", "red_car", "the close-up")
    expected = [unit(1, 1, 0), unit(1, 1, 0), unit(0, 2, 4), unit(3, 2, 0)]
    np.testing.assert_allclose(rows, expected, rtol=1e-6)


def test_an_id_of_open_images_behind_a_name_is_not_looked_up(words):
    with_ids = embedded(words, "zebra (/m/0898b)", "red car (/g/11_x)")
    np.testing.assert_array_equal(with_ids, embedded(words, "zebra", "red car"))
    with pytest.raises(UserError, match="no word vector"):
        embedded(words, "zebra (animal)")


def test_a_word_of_the_file_may_have_spaces(words):
    np.testing.assert_allclose(embedded(words, ". . ."), [[1, 0, 0]])


def test_gzip_is_known_by_its_content(words, tmp_path):
    packed = tmp_path / "renamed.txt"
    packed.write_bytes(gzip.compress(words.read_bytes()))
    np.testing.assert_array_equal(embedded(packed, "zebra"), embedded(words, "zebra"))


def test_the_header_of_word2vec_is_skipped(tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_text("2 3\nred 0 2 0\nred 1 0 0\n\n")
    np.testing.assert_array_equal(embedded(path, "red"), [[0, 1, 0]])


def test_all_unknown_names_come_in_one_error_with_their_nearest(words):
    with pytest.raises(UserError) as error:
        embedded(words, "zebar", "red", "red cer", "qqqq")
    message = str(error.value)
    assert message.splitlines()[0].startswith(f"{words}: no word vector for 3 of 4 class names")
    assert message.splitlines()[1:] == [
        "  'zebar' (nearest: 'zebra', 'zero')",
        "  'red cer': the word 'cer' (nearest: 'car')",
        "  'qqqq'",
    ]


def test_a_long_list_of_unknown_names_is_cut(words):
    with pytest.raises(UserError) as error:
        embedded(words, *(f"qq{i}" for i in range(50)))
    assert "50 of 50" in str(error.value) and str(error.value).endswith("and 30 more")
    assert len(str(error.value).splitlines()) == 22


def test_a_class_without_direction_is_named(words):
    with pytest.raises(UserError, match=r"words\.txt: .*all zero for 'zero'"):
        embedded(words, "red", "zero")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"cat 1 2", "2 numbers after 'cat' where 3 are expected"),
        (b"cat", "0 numbers after 'cat'"),
        (b"cat 1 x 3", "'x' is not a number"),
        (b"cat 1 2,5 3", "'2,5' is not a number"),
    ],
)
def test_a_broken_line_is_named_whether_it_is_needed_or_not(tmp_path, line, problem):
    path = tmp_path / "broken.txt"
    path.write_bytes(b"red 0 2 0\n" + line + b"\ncar 0 0 4\n")
    for name in ("red", "cat"):
        with pytest.raises(UserError) as error:
            embedded(path, name)
        assert f"{path}, line 2: " in str(error.value) and problem in str(error.value)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"cat 1 2 3 4", "4 numbers after 'cat' where 3 are expected"),
        (b"cat 1 nan 3", "'nan' is not a finite number"),
        (b"cat 1 -inf 3", "'-inf' is not a finite number"),
        (b"cat 1 1e99 3", "'1e99' is not a finite number"),
        ("c\u00e4t 1 2 3".encode("latin-1"), "is not UTF-8"),
    ],
)
def test_a_line_that_nobody_asks_for_refuses_no_file(tmp_path, line, problem):
    path = tmp_path / "broken.txt"
    path.write_bytes(b"red 0 2 0\n" + line + b"\ncar 0 0 4\ncats 9 9 9\ncat 9 9 9\n")
    np.testing.assert_array_equal(embedded(path, "red", "car"), [[0, 1, 0], [0, 0, 1]])
    with pytest.raises(UserError) as error:
        embedded(path, "red", line.decode("latin-1").split()[0])
    assert f"{path}, line 2: " in str(error.value) and problem in str(error.value)


@pytest.mark.parametrize("ending", ["\n", "\r\n", " \n", "\t\n", "\n\n"])
@pytest.mark.parametrize("header", ["", "5 3\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("between", [" ", "\t"])
def test_the_first_word_is_found_however_a_file_is_written(tmp_path, mark, header, ending, between):
    lines = ["dog 1 0 0", "sea 0 1 0", "dogs 0 0 1", "dog 0 0 1", "3 4 0 5 0"]
    path = tmp_path / "words.txt"
    text = mark + header + ending.join(line.replace(" ", between) for line in lines) + ending
    path.write_bytes(text.encode())
    np.testing.assert_array_equal(embedded(path, "dog", "sea"), [[1, 0, 0], [0, 1, 0]])
    path.write_bytes(gzip.compress(path.read_bytes()))
    np.testing.assert_array_equal(embedded(path, "dog", "sea"), [[1, 0, 0], [0, 1, 0]])


@pytest.mark.parametrize("first", [". . .", "3 4", "1 / 2", "at name@example.com", "chapter 1"])
def test_a_word_with_spaces_may_stand_anywhere(tmp_path, first):
    path = tmp_path / "words.txt"
    lines = [f"{first} 0.5 0 0", "dog 1 0 0", "sea 0 1 0"]
    for order in (lines, lines[::-1]):
        path.write_text("\n".join(order))
        np.testing.assert_array_equal(embedded(path, "dog", "sea"), [[1, 0, 0], [0, 1, 0]])
        np.testing.assert_array_equal(embedded(path, first, "dog"), [[1, 0, 0]] * 2)


def test_a_word_that_is_a_space_is_skipped(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("dog 1 0 0\n  0 0 1\nsea 0 1 0\n")
    np.testing.assert_array_equal(embedded(path, "sea"), [[0, 1, 0]])


def test_utf_16_is_named(tmp_path):
    path = tmp_path / "words.txt"
    path.write_bytes(WORDS.encode("utf-16"))
    with pytest.raises(UserError, match="is UTF-16 text; save it as UTF-8"):
        embedded(path, "red")


def test_all_words_of_a_file_are_those_that_are_finite(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("dog 1 0\nnan nan nan\nsea 0 1\n")
    with pytest.warns(UserWarning, match="1 words have numbers that are not finite .*'nan'"):
        words, rows = read_all_word_vectors(path)
    assert words == ("dog", "sea") and np.isfinite(rows).all()


@pytest.mark.parametrize("number", ["1e5e5", "--1", "1.2.3"])
def test_a_needed_number_is_parsed_in_full(tmp_path, number):
    path = tmp_path / "broken.txt"
    path.write_text(f"red 0 2 0\ncat 1 {number} 3\n")
    with pytest.raises(UserError, match=f"line 2: '{number}' is not a number"):
        embedded(path, "cat")


def test_files_without_word_vectors_are_refused(tmp_path, words):
    def refused(path, problem):
        with pytest.raises(UserError) as error:
            embedded(path, "red")
        assert str(error.value).startswith(f"{path}") and problem in str(error.value)

    refused(tmp_path / "missing.txt", "no such file; give a GloVe text file")
    refused(tmp_path, "is a folder")
    cut, empty, header, packed, letter = (tmp_path / name for name in "cehpl")
    cut.write_bytes(gzip.compress(os.urandom(2000).hex().encode())[:-1000])
    refused(cut, "cut short")
    empty.write_bytes(b"")
    refused(empty, "no word vectors in this file")
    header.write_text("400000 100\n")
    refused(header, "no word vectors in this file")
    packed.write_bytes(b"PK\x03\x04...")
    refused(packed, "zip archive; unpack it")
    letter.write_text("Dear\nreader\n")
    refused(letter, "line 1: 0 numbers after 'Dear'")
