"""Names of a backbone's classes in the space of the class embeddings, or a refusal."""

import json

import numpy as np
import pytest

from biam_tf.backbones.classifier import BackboneClassifier, DenseLayer
from biam_tf.embeddings.backbone_names import (
    NameSource,
    embed_backbone_classes,
    is_same_file,
    name_source,
    name_sources,
)
from biam_tf.errors import UserError
from biam_tf.vocabulary import Vocabulary

pytestmark = pytest.mark.unit

NAMES = ("great owl", "zebra", "affenpinscher", "sea")
WORDS = {"great": [1, 0, 0], "owl": [0, 1, 0], "zebra": [0, 0, 2], "sea": [1, 1, 1]}
TEMPLATE = "a photo of {name}"


@pytest.fixture
def classifier():
    kernel = np.arange(8, dtype="float32").reshape(2, 4)
    layer = DenseLayer(kernel, np.arange(4, dtype="float32"))
    return BackboneClassifier(NAMES, (layer,), (layer,))


@pytest.fixture
def words(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("".join(f"{w} {' '.join(map(str, v))}\n" for w, v in WORDS.items()))
    return str(path)


def vocabulary(rows, names=("zebra", "sea")):
    return Vocabulary(names, np.array(rows, float), ("seen",) * len(names))


def test_names_are_means_of_words_and_unknown_ones_are_left_out(classifier, words):
    classes = embed_backbone_classes(
        classifier, vocabulary([[0, 0, 1], [1, 1, 1]]), words, TEMPLATE
    )
    assert classes.classifier.names == ("great owl", "zebra", "sea")
    third = 1 / np.sqrt(3)
    expected = [[0.5**0.5, 0.5**0.5, 0], [0, 0, 1], [third, third, third]]
    np.testing.assert_allclose(classes.embeddings, expected, atol=1e-6)
    (layer,) = classes.classifier.scene_layers
    np.testing.assert_array_equal(layer.kernel, [[0, 1, 3], [4, 5, 7]])
    np.testing.assert_array_equal(layer.bias, [0, 1, 3])


def test_embeddings_of_another_source_are_refused(classifier, words):
    with pytest.raises(UserError, match=r"with 3 numbers, the class embeddings have 2"):
        embed_backbone_classes(classifier, vocabulary([[0, 1], [1, 1]]), words, TEMPLATE)
    other = vocabulary([[1, 0, 0], [-1, 1, 0]])
    with pytest.raises(UserError, match=r"another file than.*2 names, such as 'zebra'.*0\.00"):
        embed_backbone_classes(classifier, other, words, TEMPLATE)


def test_a_source_without_most_of_the_names_is_refused(classifier, tmp_path):
    few = tmp_path / "few.txt"
    few.write_text("zebra 0 0 1\n")
    with pytest.raises(UserError, match=r"only 1 of the 4 names"):
        embed_backbone_classes(classifier, vocabulary([[0, 0, 1]], ("zebra",)), str(few), TEMPLATE)


def test_several_sources_are_concatenated_and_a_name_that_one_lacks_has_its_mean(
    classifier, words, tmp_path
):
    table = tmp_path / "table.npz"
    own = np.array([[3.0, 0.0], [0.0, 2.0], [1.0, 0.0], [0.0, 1.0]])
    np.savez(table, names=np.array(NAMES), embeddings=own)
    sources = [NameSource(words, (TEMPLATE,)), NameSource(str(table), (TEMPLATE,))]
    unit = np.array([[0, 0, 1, 0, 1], [*[3**-0.5] * 3, 0, 1]]) / 2**0.5
    classes = embed_backbone_classes(classifier, vocabulary(unit), sources, TEMPLATE)
    assert classes.classifier.names == NAMES  # "affenpinscher" is in the table alone
    by_words = np.array([[0.5**0.5, 0.5**0.5, 0], [0, 0, 1], [0, 0, 0], [3**-0.5] * 3])
    by_words[2] = by_words[[0, 1, 3]].mean(axis=0)
    by_table = [[1, 0], [0, 1], [1, 0], [0, 1]]
    expected = np.concatenate([by_words, by_table], axis=1) / 2**0.5
    np.testing.assert_allclose(classes.embeddings, expected, atol=1e-6)
    with pytest.raises(UserError, match=r"words.txt \+ .*table.npz is another file"):
        embed_backbone_classes(classifier, vocabulary(-unit), sources, TEMPLATE)


def test_the_sources_are_those_that_a_table_was_made_from(words, tmp_path):
    table = tmp_path / "classes.npz"
    made = {"sources": [{"source": words}, {"source": "minilm", "templates": ["{name}"]}]}
    arrays = {"names": np.array(["zebra", "sea"]), "embeddings": np.eye(2)}
    np.savez(table, **arrays, made=np.array(json.dumps(made)))
    own, texts = NameSource(words, (TEMPLATE,)), NameSource("minilm", ("{name}",))
    assert name_sources((*NAMES, "dog"), None, str(table), TEMPLATE) == (own, texts)
    assert name_sources(NAMES, None, words, TEMPLATE) == (own,)
    both = name_sources(NAMES, f"{words} + minilm", None, TEMPLATE)
    assert both == (own, NameSource("minilm", (TEMPLATE,)))


def test_the_source_is_the_setting_or_the_word_vectors_or_minilm(words, tmp_path):
    table = tmp_path / "classes.npz"
    np.savez(table, names=np.array(["zebra", "sea"]), embeddings=np.eye(2))
    assert name_source(NAMES, "minilm", words) == "minilm"
    assert name_source(NAMES, None, words) == words
    assert name_source(NAMES, None, None) == "minilm"
    assert name_source(("zebra", "sea", "dog"), None, str(table)) == str(table)
    assert name_source((*NAMES, "dog"), None, str(table)) == "minilm"
    assert is_same_file(words, words) and not is_same_file("minilm", words)
    assert not is_same_file("minilm", None)
