"""Captions of drawn pictures, and of which pictures they are true."""

import numpy as np
import pytest

from benchmarks.shared.captions import are_true, phrase, write_caption
from biam_tf.shape_painter import OBJECT_CLASSES, ObjectClass

pytestmark = pytest.mark.unit


def counts_of(*objects):
    counts = np.zeros(len(OBJECT_CLASSES), np.int8)
    for name in objects:
        counts[OBJECT_CLASSES.index(ObjectClass(*name.split()))] += 1
    return counts


PICTURES = [
    counts_of("red striped star", "red striped star", "blue plain ring"),
    counts_of("red striped star", "blue plain ring", "red plain cross"),
    counts_of("green plain circle"),
]


def captions_of(counts):
    rng = np.random.default_rng(0)
    return {caption.text: caption for caption in (write_caption(rng, counts) for _ in range(400))}


def test_captions_are_written_in_words():
    assert phrase("red", "striped", "star", 2) == "two red striped stars"
    assert phrase("", "plain", "cross", 3) == "three plain crosses"
    assert phrase("blue", "", "") == "a blue thing"
    assert "two red striped stars and a blue plain ring" in captions_of(PICTURES[0])


@pytest.mark.parametrize(
    ("text", "true_of"),
    [
        ("two red striped stars and a blue plain ring", [True, False, False]),
        ("two red striped stars", [True, False, False]),
        ("a blue plain ring", [True, True, False]),
        ("a red thing", [True, True, False]),
        ("two red things", [True, True, False]),
        ("a plain thing", [True, True, True]),
        ("two stars", [True, False, False]),
    ],
)
def test_a_caption_is_true_of_every_picture_that_shows_what_it_says(text, true_of):
    found = {**captions_of(PICTURES[1]), **captions_of(PICTURES[0])}
    assert are_true(np.stack(PICTURES), [found[text]])[:, 0].tolist() == true_of


def test_every_caption_is_true_of_its_picture():
    counts = np.stack(PICTURES)
    for row, own in enumerate(PICTURES):
        assert are_true(counts, list(captions_of(own).values()))[row].all()
