"""Unseen classes that are hardly other classes than seen ones."""

import numpy as np
import pytest

from biam_tf.embeddings.twins import SAME_DIRECTION, describe_twins, find_twins, twins_of
from biam_tf.vocabulary import Vocabulary

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("unseen", "seen"),
    [
        ("Red", "red"),
        ("dogs", "dog"),
        ("bus", "buses"),
        ("city", "cities"),
        ("cafe", "Caf\u00e9"),
        ("Cafe\u0301", "caf\u00e9"),
        ("hot-dogs", "Hot dog"),
        ("HotDog", "hot_dogs"),
        ("Drum (/m/026t6)", "drums"),
    ],
)
def test_names_that_differ_in_writing_or_number_only_are_found(unseen, seen):
    for pair in ((unseen, seen), (seen, unseen)):
        (twins,) = find_twins(["sea", pair[0]], ["tree", pair[1], "sky"])
        assert (twins.unseen, twins.seen) == pair and "writing or number" in twins.why


@pytest.mark.parametrize(
    ("unseen", "seen"),
    [("red", "reed"), ("dog", "hot dog"), ("mouse (animal)", "mouse"), ("gas", "ga")],
)
def test_other_names_are_not(unseen, seen):
    assert find_twins([unseen], [seen]) == find_twins([seen], [unseen]) == []


def test_embeddings_of_nearly_the_same_direction_are_found():
    angles = np.array([0, np.arccos(SAME_DIRECTION) * 0.9, np.arccos(SAME_DIRECTION) * 1.1, 1.5])
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    found = find_twins(["a", "b", "c", "d"], ["x"], rows, rows[:1])
    assert [twins.unseen for twins in found] == ["a", "b"]
    assert found[0].why == "their embeddings are the same"
    assert found[1].why == f"the cosine of their embeddings is {np.cos(angles[1]):.4f}"


def test_the_nearest_words_of_glove_are_other_classes(test_data):
    vectors = test_data / "data/word_vectors/glove.6B.100d.42k.txt.gz"
    names = ["tuesday", "Tuesday", "tuesdays", "wednesday"]
    groups = ["seen", "unseen", "unseen", "unseen"]
    (sentence,) = twins_of(Vocabulary.from_word_vectors(vectors, names, groups))
    assert sentence.startswith("2 unseen classes are hardly another")
    assert "'Tuesday' (unseen) and 'tuesday' (seen): their names differ in writing or number" in (
        sentence
    )
    assert "the same" in sentence and "wednesday" not in sentence


def test_nothing_is_said_of_nothing():
    assert describe_twins([]) is None
    assert find_twins([], ["a"]) == find_twins(["a"], []) == []
    assert twins_of(Vocabulary(("a", "b"), np.ones((2, 3)), ("seen", "seen"))) == []
