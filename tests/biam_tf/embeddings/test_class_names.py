import random
import re

import pytest

from biam_tf.embeddings.names import NameIndex, look_up, readable, spellings

pytestmark = pytest.mark.unit

KNOWN = frozenset(
    "polar bear bears red t-shirt new New_York ford falcon australian version cherry cherries "
    "fox creme brulee light emitting diode ducks geese swans glass Paris sprenger tulip "
    "1500 roadster magpies black 3.5 iPhone".split()
)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("polar_bear", "polar bear"),
        ("PolarBear", "Polar Bear"),
        ("Apple iPhone", "Apple iPhone"),  # capitals divide only a name without spaces
        ("USA", "USA"),
        ("Ford falcon (australian version)", "Ford falcon australian version"),
        ("Ducks, geese and swans", "Ducks geese and swans"),
        ("Kitchen & dining room", "Kitchen dining room"),
        ("Mr. freeze", "Mr freeze"),
        ("Fiat x1/9", "Fiat x1 9"),
        ("Datsun 1,500 roadster", "Datsun 1500 roadster"),
        ("3.5 inch", "3.5 inch"),
        ("Light-emitting diode", "Light-emitting diode"),
        ("Crème brûlée", "Crème brûlée"),
        ("f-16", "f-16"),
        ("&", "&"),
    ],
)
def test_a_name_becomes_text(name, text):
    assert readable(name) == text


@pytest.mark.parametrize(
    ("name", "words", "how"),
    [
        ("bear", ["bear"], []),
        ("Bear", ["bear"], ["lower case"]),
        ("Paris", ["Paris"], []),
        ("New York", ["New_York"], ["phrase"]),
        ("polar_bear", ["polar", "bear"], ["word by word"]),
        ("PolarBear", ["polar", "bear"], ["word by word", "lower case"]),
        ("t-shirt", ["t-shirt"], []),
        ("light-emitting diode", ["light", "emitting", "diode"], ["word by word", "divided"]),
        ("Ducks, geese and swans", ["ducks", "geese", "swans"], None),
        ("Crème brûlée", ["creme", "brulee"], ["word by word", "without accents"]),
        ("foxes", ["fox"], ["singular"]),
        ("magpie", ["magpies"], ["plural"]),
        ("glasses", ["glass"], ["singular"]),
        ("Ford falcon (australian version)", ["ford", "falcon", "australian", "version"], None),
        ("Sprenger's tulip", ["sprenger", "tulip"], None),
    ],
)
def test_a_name_is_found_by_the_first_spelling_of_the_rule(name, words, how):
    found = look_up(name, KNOWN)
    assert list(found.found) == words and not found.missing
    assert how is None or list(found.how) == how


def test_cherries_stay_cherries_where_they_are_known():
    assert look_up("cherries", KNOWN).found == ("cherries",)
    assert look_up("cherries", KNOWN - {"cherries"}).found == ("cherry",)
    assert look_up("cherry", KNOWN - {"cherry"}).found == ("cherries",)


def test_half_of_a_name_is_no_name():
    found = look_up("polar zebra", KNOWN)
    assert not found.found and found.missing == ("zebra",)
    assert look_up("of the", KNOWN).missing == ("of", "the")
    assert look_up("&", KNOWN).missing == ("&",)


def test_a_file_needs_to_be_read_only_once():
    names = ["Ducks, geese and swans", "Crème brûlée", "foxes", "New York", "light-emitting diode"]
    wanted = {spelling for name in names for spelling in spellings(name)}
    for name in names:
        assert look_up(name, KNOWN & wanted) == look_up(name, KNOWN)


def found_by_runs_before(name: str, known: frozenset[str]) -> list[str] | None:
    """The words whose mean a run took before training looked names up by this rule."""

    def find(word):
        return next((form for form in (word, word.lower()) if form in known), None)

    name = re.sub(r" \(/[mg]/\w+\)$", "", name)
    if find(name) is not None:
        return [find(name)]
    found = []
    for word in name.split():
        pieces = [piece for piece in re.split("[-_]+", word) if piece] or [word]
        found += [find(part) for part in ([word] if find(word) is not None else pieces)]
    return None if None in found else found


def test_names_that_runs_found_before_are_found_by_the_same_words():
    known = KNOWN | {"York", "&", "st.", "New", "t_shirt"}
    parts = [*known, *"RED Polar-Bear Cherries & St. PolarBear New_York T_Shirt x foxes".split()]
    draw = random.Random(0)
    same = 0
    for _ in range(3000):
        name = "".join(part + draw.choice(" -_ ") for part in draw.choices(parts, k=2)).strip()
        name += draw.choice(["", " (/m/026t6)"])
        before = found_by_runs_before(name, known)
        if before is not None:
            assert look_up(name, known).found == tuple(before), name
            same += 1
    assert same > 500
    assert look_up("New York", known).found == ("New", "York")
    assert look_up("New York", known - {"York"}).found == ("New_York",)


def test_names_of_a_table_are_whole():
    names = NameIndex(["Polar Bear", "bow (/m/1)", "bow (/m/2)", "Caf\u00e9", "cafe\u0301"])
    rows = {
        "Polar Bear": 0,
        "polar_bear": 0,
        "Polar-bear": 0,
        "polar": None,
        "bow": None,  # two have this name
        "bow (/m/2)": 2,
        "Cafe\u0301": 3,
        "CAFE\u0301": 4,
        "caf\u00e9": 4,
    }
    assert {name: look_up(name, None, names).row for name in rows} == rows
