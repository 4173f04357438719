"""Class names looked up in a graph, against `Vocabulary`."""

import random
import unicodedata

import numpy as np
import pytest
import tensorflow as tf

from biam_tf.errors import UserError
from biam_tf.vocabulary import Vocabulary
from serving.graph.name_table import Embeddings, NameTable

pytestmark = pytest.mark.unit

WORDS = "red Red car t-shirt sky Sky straße ärzte - new_york café İ ice cream σας a".split()
WORDS += "glass cherries émile ạ̇ ǰ 한국 が q̂ 1500 3.5 bar day's ᾀ fish".split()
STRANGE = "RED CAR T-SHIRT STRASSE Ärzte New_York ICE-CREAM ice_cream ΣΑΣ unknown -- _".split()
STRANGE += "Cars glasses Cherry Émile ạ̇ J̌ 한국 がが ǅa aᾈ x̂Bar 1,500 3.5 a.b St. (fish)".split()
STRANGE += ["red\u2019s", "red's", "&", "the"]
SPACES = [" ", "-", "_", "  ", "\u00a0", "\t", "\u3000", "\x1c", "\u200b", "--", " - "]
NOTHING = Vocabulary((), np.empty((0, 5), np.float32), ())


@pytest.fixture(scope="module")
def word_vectors(tmp_path_factory):
    path, rng = tmp_path_factory.mktemp("words") / "vectors.txt", np.random.default_rng(0)
    lines = [" ".join([word, *map(str, rng.normal(size=5).round(3))]) for word in WORDS]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Returns a function that makes the look-up of a vocabulary and a file as a graph."""

    def make(vocabulary, path=None):
        folder = tmp_path_factory.mktemp("tables")
        names = NameTable(Embeddings.read(vocabulary, path), folder)
        signature = [tf.TensorSpec((None,), tf.string)]
        return tf.function(lambda class_names: names(class_names), signature, autograph=False)

    return make


@pytest.fixture(scope="module")
def look_up(table, word_vectors):
    """The look-up of words alone, which takes a second to make."""
    return table(NOTHING, word_vectors)


def refused(table, *names) -> str:
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        table(tf.constant(names))
    return str(error.value)


@pytest.mark.integration
def test_names_mean_what_they_mean_to_a_vocabulary(look_up, word_vectors):
    draw = random.Random(0)
    known = 0
    for _ in range(400):
        parts = draw.choices(WORDS + STRANGE, k=draw.randint(1, 3))
        name = draw.choice(["", "", " "]) + "".join(f"{p}{draw.choice(SPACES)}" for p in parts)
        name = unicodedata.normalize(draw.choice(["NFC", "NFD"]), name)
        try:
            expected = Vocabulary.from_word_vectors(word_vectors, [name]).embeddings
        except UserError:
            assert "class_names[0]" in refused(look_up, name)
        else:
            np.testing.assert_allclose(look_up(tf.constant([name])), expected, atol=1e-6)
            known += 1
    assert known > 100


def test_names_are_looked_up_together_as_alone(look_up):
    names = ["red", "ice cream", "red", "new_york car", "Sky"]
    alone = [look_up(tf.constant([name]))[0] for name in names]
    np.testing.assert_array_equal(look_up(tf.constant(names)), alone)


def test_names_of_a_vocabulary_come_before_the_words(table, word_vectors, rng):
    vocabulary = Vocabulary(("sky", "red car"), rng.normal(size=(2, 5)), ("seen", "unseen"))
    look_up = table(vocabulary, word_vectors)
    np.testing.assert_array_equal(look_up(tf.constant(["red car"])), vocabulary.embeddings[1:])
    np.testing.assert_array_equal(look_up(tf.constant(["sky"])), vocabulary.embeddings[:1])
    file = Vocabulary.from_word_vectors(word_vectors, ["Sky", "sky car", "RED CAR"])
    found = look_up(tf.constant(["Sky", "sky car", "RED CAR"]))
    np.testing.assert_allclose(found[:2], file.embeddings[:2], atol=1e-6)
    np.testing.assert_array_equal(found[2], vocabulary.embeddings[1])


@pytest.mark.parametrize("ending", ["npz", "csv"])
def test_rows_of_a_table_are_whole_names(table, tmp_path, rng, ending):
    rows = Vocabulary(("zebra", "grey wolf"), rng.normal(size=(2, 5)), ("seen", "seen"))
    path = tmp_path / f"table.{ending}"
    if ending == "npz":
        rows.save(path)
    else:
        lines = [",".join([n, *map(str, e)]) for n, e in zip(rows.names, rows.embeddings)]  # noqa: B905
        path.write_text("\n".join(["name,a,b,c,d,e", *lines]) + "\n")
    own = Vocabulary(("zebra",), rng.normal(size=(1, 5)), ("seen",))
    look_up = table(own, path)
    found = look_up(tf.constant(["Grey Wolf", "zebra"]))
    np.testing.assert_allclose(found, [rows.embeddings[1], own.embeddings[0]], atol=1e-6)
    assert "class_names[0] zebra wolf: no such class" in refused(look_up, "zebra wolf")


def test_unknown_names_are_listed_with_the_word_that_is_missing(look_up):
    message = refused(look_up, "red", "xyzzy", "red-blob car", " ")
    assert "class_names[1] xyzzy (the word xyzzy), " in message
    assert "class_names[2] red-blob car (the word blob), class_names[3]" in message
    assert "no word vector" in message
    message = refused(look_up, *(f"no{i}" for i in range(30)))
    assert "class_names[19]" in message and "class_names[20]" not in message
    assert "and 10 more" in message


def test_names_that_are_not_utf8_are_refused(look_up):
    assert "class_names[1]" in refused(look_up, b"red", b"\xff\xfe")


def test_words_that_cancel_out_are_refused(table, tmp_path):
    path = tmp_path / "opposite.txt"
    path.write_text("hot 1 2 0 0 0\ncold -1 -2 0 0 0\n")
    message = refused(table(NOTHING, path), "hot cold")
    assert "class_names[0] hot cold: the word vectors add up to zero" in message


def test_embeddings_of_another_length_are_refused(tmp_path):
    path = tmp_path / "short.txt"
    path.write_text("red 1 2 3\n")
    with pytest.raises(UserError, match=r"short\.txt: its embeddings have 3 numbers.* with 5"):
        Embeddings.read(NOTHING, path)
