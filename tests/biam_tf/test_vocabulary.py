import csv
import gzip
import json
import os

import numpy as np
import pytest

from biam_tf import vocabulary as vocabulary_module
from biam_tf.embeddings.files import read_all_word_vectors
from biam_tf.errors import UserError
from biam_tf.vocabulary import (
    Vocabulary,
    names_without_embedding,
    read_table,
    require_embedding_size,
)

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


def test_saving_and_loading_gives_the_same_bits(tmp_path, rng):
    names = ("red car", "Bär", "zebra")
    saved = Vocabulary(names, rng.normal(size=(3, 50)), ("seen", "unseen", "seen"))
    saved.save(tmp_path / "vocabulary.npz")
    loaded = Vocabulary.load(str(tmp_path / "vocabulary.npz"))
    np.testing.assert_array_equal(loaded.embeddings, saved.embeddings)
    assert (loaded.names, loaded.groups) == (saved.names, saved.groups)
    assert all(type(name) is str for name in loaded.names + loaded.groups)
    assert [path.name for path in tmp_path.iterdir()] == ["vocabulary.npz"]


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "vocabulary.npz"
    vocabulary = Vocabulary(("a",), np.ones((1, 2)), ("seen",))
    vocabulary.save(path)
    before = path.read_bytes()

    def fail(file, **arrays):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(vocabulary_module.np, "savez", fail)
    with pytest.raises(KeyboardInterrupt):
        vocabulary.save(path)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_an_npz_file_gives_the_names_that_are_asked_for(tmp_path):
    path = tmp_path / "embeddings.npz"
    np.savez(path, names=["red", "car"], embeddings=[[3, 4], [0, 2]], groups=["seen", "unseen"])
    everything = Vocabulary.from_npz(path)
    np.testing.assert_allclose(everything.embeddings, [[0.6, 0.8], [0, 1]], rtol=1e-6)
    chosen = Vocabulary.from_npz(path, ["Car"])
    assert (chosen.names, chosen.groups) == (("Car",), ("unseen",))
    assert Vocabulary.from_npz(path, ["car"], ["seen"]).groups == ("seen",)
    with pytest.raises(UserError, match=r"no embedding for 1 of 2 .*\n  'cars' \(nearest: 'car'\)"):
        Vocabulary.from_npz(path, ["red", "cars"])


def test_an_npz_file_without_groups_is_all_seen(tmp_path):
    np.savez(tmp_path / "e.npz", names=np.array([b"red"]), embeddings=np.ones((1, 2)))
    vocabulary = Vocabulary.from_npz(tmp_path / "e.npz")
    assert (vocabulary.names, vocabulary.groups) == (("red",), ("seen",))


def test_npz_files_that_do_not_fit_are_refused(tmp_path):
    path = tmp_path / "embeddings.npz"

    def refused(problem, **arrays):
        if arrays:
            np.savez(path, **arrays)
        with pytest.raises(UserError, match=problem) as error:
            Vocabulary.from_npz(path)
        assert str(path) in str(error.value)

    refused("no such file")
    refused("no array 'embeddings'", names=["a"])
    ones = np.ones((1, 2))
    refused("'names' holds Python objects.*pickle", names=np.array(["a"], object), embeddings=ones)
    objects = np.array([[1, None]], object)
    refused("'embeddings' holds Python objects", names=["a"], embeddings=objects)
    refused("'names' must be a list of strings", names=[1], embeddings=ones)
    refused("must hold numbers", names=["a"], embeddings=[["x"]])
    refused(r"2 names, .* \(1, 2\)", names=["a", "b"], embeddings=ones)
    refused("must differ; repeated: 'a'", names=["a", "a"], embeddings=np.ones((2, 2)))
    refused("not finite for 'a'", names=["a"], embeddings=[[1, np.nan]])
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"not an archive"):
        path.write_bytes(content)
        refused("can't be read as an .npz file")
    np.save(tmp_path / "single.npy", ones)
    (tmp_path / "single.npy").rename(path)
    refused("a single array")


def test_an_attribute_table_is_a_vocabulary(tmp_path):
    path = tmp_path / "attributes.csv"
    path.write_text('name,red,round\n"red, round thing",1,1\nball,0,0.5\n\n', encoding="utf-8-sig")
    table = Vocabulary.from_attributes(path)
    assert table.names == ("red, round thing", "ball")
    np.testing.assert_allclose(table.embeddings, [unit(1, 1), [0, 1]], rtol=1e-6)
    assert Vocabulary.from_attributes(path, ["ball"], ["unseen"]).groups == ("unseen",)
    with pytest.raises(UserError, match=r"no row for 1 of 1 .*\n  'bell' \(nearest: 'ball'\)"):
        Vocabulary.from_attributes(path, ["bell"])


def test_broken_rows_of_an_attribute_table_come_in_one_error(tmp_path):
    path = tmp_path / "attributes.csv"
    path.write_text("name,red,round\na,1\nb,1,x\nc,1,0\nd,1,inf\n")
    with pytest.raises(UserError) as error:
        Vocabulary.from_attributes(path)
    assert str(error.value).splitlines() == [
        f"{path}: 3 broken rows:",
        "  line 2: 2 fields, but the header has 3",
        "  line 3: column 'round': 'x' is not a number",
        "  line 5: column 'round': 'inf' is not a finite number",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "name;red;round\r\nball;0,5;1\r\ncar;2;0\r\n;;\r\n;;\r\n",
        "name\tred\tround\nball\t0.5\t1\n\ncar\t2\t0\n\t\t\n",
        "name,red,round\n ball , 0.5,1\n,,\ncar,2,0\n,,\n",
    ],
)
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_an_attribute_table_is_read_as_spreadsheets_write_it(tmp_path, text, mark):
    path = tmp_path / "attributes.csv"
    path.write_bytes((mark + text).encode())
    table = Vocabulary.from_attributes(path)
    assert table.names == ("ball", "car")
    np.testing.assert_allclose(table.embeddings, [unit(0.5, 1), [1, 0]], rtol=1e-6)


def test_only_rows_that_are_asked_for_must_be_finite(tmp_path):
    path = tmp_path / "attributes.csv"
    path.write_text("name,red,round\nball,0,1\nfog,nan,1\nair,,1\nnothing,0,0\n")
    arrays = tmp_path / "embeddings.npz"
    rows = np.array([[0, 1], [np.nan, 1], [np.inf, 1], [0, 0]], np.float16)
    np.savez(arrays, names=np.array([b"ball", b"fog", b"air", b"nothing"]), embeddings=rows)
    for file in (path, arrays):
        np.testing.assert_array_equal(Vocabulary.from_file(file, ["Ball"]).embeddings, [[0, 1]])
        assert names_without_embedding(file, ["ball", "fog", "mist"]) == ("mist",)
        with pytest.raises(UserError, match="all zero for 'nothing'"):
            Vocabulary.from_file(file, ["nothing"])
        with pytest.warns(UserWarning, match="left out: 'fog', 'air', 'nothing'"):
            assert read_table(file).names == ("ball",)
    with pytest.raises(UserError, match=r"\n  line 3: column 'red': 'nan' is not a finite number"):
        Vocabulary.from_file(path, ["ball", "fog"])
    with pytest.raises(UserError, match="not finite for 'air'"):
        Vocabulary.from_file(arrays, ["ball", "air"])


def test_names_of_an_npz_file_may_be_decomposed(tmp_path):
    path = tmp_path / "embeddings.npz"
    np.savez(path, names=["Cafe\u0301", "bar"], embeddings=np.eye(2))
    np.testing.assert_array_equal(Vocabulary.from_file(path, ["Caf\u00e9"]).embeddings, [[1, 0]])


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "the columns are none"),
        (b"class,red\na,1\n", "the columns are class, red"),
        (b"name,red\n\xff,1\n", "can't be read"),
        (b'name,red\n"a,1\n', "line 2"),
        (b"name,red\na,1\na,2\n", "repeated: 'a'"),
        (b"name,red\na,0\n", "all zero for 'a'"),
        (b"name,red\n,1\n", "non-empty"),
    ],
)
def test_attribute_tables_that_do_not_fit_are_refused(tmp_path, content, problem):
    path = tmp_path / "attributes.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=problem) as error:
        Vocabulary.from_attributes(path)
    assert str(path) in str(error.value)


def test_the_files_ending_chooses_its_reader(tmp_path, words):
    (tmp_path / "a.CSV").write_text("name,x\nred,1\n")
    np.savez(tmp_path / "e.npz", names=["red"], embeddings=np.ones((1, 2)))
    sizes = [
        Vocabulary.from_file(path, ["red"]).embedding_size
        for path in (tmp_path / "a.CSV", tmp_path / "e.npz", words)
    ]
    assert sizes == [1, 2, 3]


def test_a_subset_by_names_and_by_group():
    vocabulary = Vocabulary("abc", np.eye(3), ("seen", "unseen", "unseen"))
    assert vocabulary.subset(["c", "a"]).names == ("c", "a")
    np.testing.assert_array_equal(vocabulary.subset(["c"]).embeddings, [[0, 0, 1]])
    assert vocabulary.subset(group="unseen").names == ("b", "c")
    assert vocabulary.subset(["c", "a"], group="seen").names == ("a",)
    assert vocabulary.subset(["a"], group="unseen").embeddings.shape == (0, 3)
    with pytest.raises(UserError, match="no class 'd'"):
        vocabulary.subset(["d"])
    with pytest.raises(UserError, match="no group 'new'"):
        vocabulary.subset(group="new")


@pytest.mark.parametrize(
    ("names", "groups", "problem"),
    [
        (("a", "a"), ("seen",) * 2, "repeated: 'a'"),
        (("a", " "), ("seen",) * 2, "non-empty string, not ' '"),
        (("a", "b"), ("seen", "new"), "class 'b': group 'new'"),
        (("a", "b"), ("seen",), "2 names, 1 groups"),
    ],
)
def test_names_and_groups_must_fit(names, groups, problem):
    with pytest.raises(UserError, match=problem):
        Vocabulary(names, np.eye(2), groups)


def test_embeddings_of_another_length_than_the_models_are_refused():
    vocabulary = Vocabulary(("a",), np.ones((1, 100)), ("seen",))
    require_embedding_size(vocabulary, 100, "here")
    with pytest.raises(UserError, match=r"my-run: class embeddings have 100 numbers, .* for 300"):
        require_embedding_size(vocabulary, 300, "my-run")


def test_every_class_of_a_real_data_set_has_its_glove_vector(test_data):
    with open(test_data / "data/corel5k/classes.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["group"] != "ignored"]
    vocabulary = Vocabulary.from_word_vectors(
        test_data / "data/word_vectors/glove.6B.100d.42k.txt.gz",
        [row["name"] for row in rows],
        [row["group"] for row in rows],
    )
    assert vocabulary.embeddings.shape == (241, 100)
    assert len(vocabulary.subset(group="unseen")) == 36
    similarity = vocabulary.embeddings @ vocabulary.subset(["zebra"]).embeddings[0]
    assert "giraffe" in [vocabulary.names[row] for row in np.argsort(-similarity)[:5]]
    json.dumps(vocabulary.names)
