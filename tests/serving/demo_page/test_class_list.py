"""The list of classes that a person types into the page."""

import time

import numpy as np
import pytest
import tensorflow as tf

from biam_tf.errors import UserError
from biam_tf.vocabulary import Vocabulary
from serving.demo_page.class_list import (
    MAX_CLASSES,
    KnownClasses,
    UnknownClass,
    replace_class,
    write_classes,
)
from serving.demo_page.html_parts import class_chips
from serving.graph.name_table import Embeddings, NameTable

pytestmark = pytest.mark.unit

NAMES = ("dog", "red car", "Polar bear", "one, two")


def test_classes_are_read_from_commas_and_lines_each_once():
    known = KnownClasses(NAMES)
    text = " dog,  red   car\n\nbeach ,dog\none, two\n , \n"
    assert known.read(text) == ["dog", "red car", "beach", "one, two"]
    assert known.read("") == []


def test_what_is_written_is_read_as_the_same():
    known = KnownClasses(NAMES)
    assert known.read(write_classes(NAMES)) == list(NAMES)


def test_more_classes_than_are_scored_at_a_time_are_refused():
    names = [f"class {i}" for i in range(MAX_CLASSES + 1)]
    with pytest.raises(UserError, match=r"10,001 classes; at most 10,000"):
        KnownClasses(NAMES).read("\n".join(names))


def test_a_class_is_replaced_in_its_place_or_left_out():
    assert replace_class(["dog", "ct", "sky"], "ct", "cat") == ["dog", "cat", "sky"]
    assert replace_class(["dog", "ct", "cat"], "ct", "cat") == ["dog", "cat"]
    assert replace_class(["dog", "ct"], "ct", None) == ["dog"]


def test_the_nearest_known_names_are_suggested():
    known = KnownClasses(("green plain cross", "red plain star", "blue ring"))
    (unknown,) = known.unknown(["Blue Ring", "green plane cross"])
    assert unknown == UnknownClass("green plane cross", "green plane cross")
    assert known.suggestions(unknown)[0] == "green plain cross"


def test_of_a_name_made_of_words_the_unknown_word_is_corrected():
    known = KnownClasses((), frozenset("red green car zebra".split()))
    (unknown,) = known.unknown(["Red car", "red zebbra"])
    assert unknown == UnknownClass("red zebbra", "zebbra")
    assert known.suggestions(unknown) == ("red zebra",)


def test_an_emoji_is_unknown_and_nothing_is_near_it():
    known = KnownClasses(NAMES, frozenset({"dog", "cat"}))
    (unknown,) = known.unknown(["🐶"])
    assert unknown.name == "🐶" and known.suggestions(unknown) == ()


@pytest.mark.integration
def test_names_are_unknown_where_the_model_refuses_them(tmp_path, rng):
    """Against the look-up that is in the exported graph."""
    words = "red Red car t-shirt sky ice cream new_york - polar bear".split()
    file = tmp_path / "vectors.txt"
    lines = [" ".join([word, *map(str, rng.normal(size=5).round(3))]) for word in words]
    file.write_text("\n".join(lines) + "\n")
    vocabulary = Vocabulary(NAMES, rng.normal(size=(4, 5)), ("seen",) * 4)
    table = NameTable(Embeddings.read(vocabulary, file), tmp_path)
    known = KnownClasses(vocabulary.names, frozenset(words))
    pieces = [*words, *"DOG Ice-Cream unknown polar-bear ice_cream New_York -- 🐶".split()]
    made = {" ".join(rng.choice(pieces, size=rng.integers(1, 4))) for _ in range(60)}
    for name in [*made, *NAMES, "polar bear", "POLAR BEAR", "one,"]:
        try:
            table(tf.constant([name]))
            refused = False
        except tf.errors.InvalidArgumentError:
            refused = True
        assert bool(known.unknown([name])) == refused, name


def test_five_thousand_classes_are_checked_and_shown_at_once(rng):
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = frozenset("".join(row) for row in rng.choice(letters, size=(40_000, 7)))
    known = KnownClasses(sorted(words)[:1000], words)
    pasted = [f"zz{i}x {word}" for i, word in enumerate(sorted(words)[:5000])]
    start = time.process_time()
    names = known.read("\n".join(pasted))
    shown = class_chips(known, names, ["unseen"] * len(names))
    assert time.process_time() - start < 20
    assert "5,000 classes, 5,000 unknown" in shown and "and 4,992 more unknown" in shown
    assert len(shown) < 20_000


def test_chips_are_in_the_order_of_the_list_and_escaped():
    known = KnownClasses(NAMES)
    names = ["dog", "<script>${1}{{2}}", "red car"]
    shown = class_chips(known, names, ["seen", "unseen", "seen"])
    assert shown.index(">dog<") < shown.index("&lt;script&gt;") < shown.index(">red car<")
    assert not set("${}`") & set(shown) and "<script" not in shown


def test_with_a_sentence_encoder_every_name_is_known_but_one_without_signs():
    known = KnownClasses(("dog",), any_phrase=True)
    names = ["dog", "my red bicycle", "\u732b", "\U0001f43b", "\u200b"]
    assert [each.name for each in known.unknown(names)] == ["\u200b"]
