import pickle

import numpy as np
import pytest

from biam_tf.embeddings.sources import concatenate, embed_names, embed_names_by_pickle
from biam_tf.errors import UserError
from biam_tf.vocabulary import Vocabulary, names_without_embedding

pytestmark = pytest.mark.unit

NAMES = ["PolarBear", "red", "foxes", "zebre"]


@pytest.fixture
def words(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("polar 1 0 1\nbear 1 2 1\nred 0 3 4\nfox 2 0 0\nzebra 1 1 1\n")
    return str(path)


def unit(*numbers):
    return np.array(numbers) / np.linalg.norm(numbers)


def test_words_give_unit_rows_and_say_what_each_name_was_found_by(words):
    embedded = embed_names(words, NAMES, [])
    np.testing.assert_allclose(
        embedded.rows, [unit(2, 2, 2), [0, 0.6, 0.8], [1, 0, 0], [0, 0, 0]], rtol=1e-12
    )
    found = {f.name: f for f in embedded.found}
    assert found["PolarBear"].texts == ("polar", "bear")
    assert found["PolarBear"].how == "word by word, lower case"
    assert found["red"].how == "" and found["foxes"].how == "singular"
    assert [f.name for f in embedded.missing] == ["zebre"]
    assert found["zebre"].nearest == ("zebra",)


def test_a_file_of_embeddings_and_a_table_are_looked_up_by_name(tmp_path):
    np.savez(tmp_path / "e.npz", names=["polar bear", "red"], embeddings=[[3, 4], [0, 2]])
    (tmp_path / "e.csv").write_text("name,x,y\npolar bear,3,4\nred,0,2\n")
    for file in ("e.npz", "e.csv"):
        embedded = embed_names(str(tmp_path / file), NAMES, [])
        np.testing.assert_allclose(embedded.rows, [[0.6, 0.8], [0, 1], [0, 0], [0, 0]])
        assert [f.name for f in embedded.missing] == ["foxes", "zebre"]
        assert embedded.found[0].texts == ("polar bear",)


def test_sources_are_put_side_by_side_with_equal_length(words, tmp_path):
    np.savez(tmp_path / "e.npz", names=["red", "fox"], embeddings=[[300, 400], [0, 2]])
    parts = [embed_names(source, ["red", "fox"], []) for source in (words, str(tmp_path / "e.npz"))]
    np.testing.assert_allclose(concatenate(parts), [[0, 0.6, 0.8, 0.6, 0.8], [1, 0, 0, 0, 1]])


def test_a_pickle_of_two_arrays_is_read_by_the_names_of_its_rows(tmp_path):
    path = tmp_path / "glove"
    arrays = [np.array([[2, 0], [0, 3]], "f4"), np.array([[2, 0], [3, 4]], "f4")]
    path.write_bytes(pickle.dumps(arrays))
    rows = ["sea", "sky", "sea", "whales"]  # tags, then concepts, of which one is a tag as well
    embedded = embed_names_by_pickle(str(path), rows, ["whales", "sea", "sky", "cat"])
    np.testing.assert_allclose(embedded.rows, [[0.6, 0.8], [1, 0], [0, 1], [0, 0]])
    assert [f.name for f in embedded.missing] == ["cat"]
    with pytest.raises(UserError, match=r"holds 4 rows \(2 \+ 2\), but 3 names .* --row-names"):
        embed_names_by_pickle(str(path), rows[:3], ["sea"])


def test_a_pickle_of_a_dictionary_brings_its_names(tmp_path):
    path = tmp_path / "words.pkl"
    path.write_bytes(pickle.dumps({"sea": np.array([3.0, 4.0]), "sky": [0, 2]}))
    np.testing.assert_allclose(embed_names_by_pickle(str(path), (), ["sea"]).rows, [[0.6, 0.8]])
    for value, problem in (
        ({1: [2.0]}, "keys are not all names"),
        ({"a": [1.0], "b": [1.0, 2.0]}, "of one length"),
        ("text", "holds a str"),
        ([["a", "b"]], "something else than numbers"),
    ):
        path.write_bytes(pickle.dumps(value))
        with pytest.raises(UserError, match=problem):
            embed_names_by_pickle(str(path), ["sea"], ["sea"])


def test_a_name_without_direction_is_refused(tmp_path):
    (tmp_path / "w.txt").write_text("zero 0 0\nred 1 0\n")
    with pytest.raises(UserError, match=r"w.txt: the embedding of 'zero' is all zero"):
        embed_names(str(tmp_path / "w.txt"), ["red", "zero"], [])


def test_a_template_needs_a_place_for_the_name(tmp_path):
    with pytest.raises(UserError, match=r"--template 'a photo': has no \{name\}"):
        embed_names(str(tmp_path), ["red"], ["a photo"])


def test_names_without_embedding_are_those_that_a_run_would_refuse(words, tmp_path):
    np.savez(tmp_path / "e.npz", names=["red"], embeddings=[[3, 4]])
    for path, expected in ((words, ("zebre",)), (tmp_path / "e.npz", ("foxes", "zebre"))):
        lacking = names_without_embedding(path, ["red", "RED", *NAMES[2:]])
        assert lacking == expected
        with pytest.raises(UserError) as error:
            Vocabulary.from_file(path, ["red", *NAMES[2:]])
        assert all(f"'{name}'" in str(error.value) for name in lacking)


def test_an_id_behind_a_name_is_no_part_of_it_for_a_run_nor_for_who_asks_before(words):
    names = ["red (/m/06fvc)", "zebre (/m/0898b)"]
    assert names_without_embedding(words, names) == ("zebre (/m/0898b)",)
    assert Vocabulary.from_file(words, names[:1]).names == ("red (/m/06fvc)",)
