import csv
import json

import numpy as np
import pytest

from biam_tf import vocabulary as vocabulary_module
from biam_tf.errors import UserError
from biam_tf.vocabulary import (
    Vocabulary,
    names_without_embedding,
    read_table,
    require_embedding_size,
)

pytestmark = pytest.mark.unit


def unit(*numbers):
    return np.array(numbers) / np.linalg.norm(numbers)


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
    for content in ((mark + text).encode(), text.encode("utf-16")):
        path.write_bytes(content)
        table = Vocabulary.from_attributes(path)
        assert table.names == ("ball", "car")
        np.testing.assert_allclose(table.embeddings, [unit(0.5, 1), [1, 0]], rtol=1e-6)
    path.write_bytes(b"PK\x03\x04 ...")
    with pytest.raises(UserError, match=r"attributes.csv: is an Excel workbook \(.xlsx\)"):
        Vocabulary.from_attributes(path)


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


def test_the_files_ending_chooses_its_reader(tmp_path):
    (tmp_path / "words.txt").write_text("red 0 2 0\n")
    (tmp_path / "a.CSV").write_text("name,x\nred,1\n")
    np.savez(tmp_path / "e.npz", names=["red"], embeddings=np.ones((1, 2)))
    sizes = [
        Vocabulary.from_file(path, ["red"]).embedding_size
        for path in (tmp_path / "a.CSV", tmp_path / "e.npz", tmp_path / "words.txt")
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
