"""Cells that hold several labels, in the forms that people's tables have."""

import pytest

from training.data.imports.label_cells import read_cells

pytestmark = pytest.mark.unit


def read(cells, separator=None, **options):
    return read_cells(range(2, 2 + len(cells)), cells, separator, **options)


@pytest.mark.parametrize(
    ("cells", "labels"),
    [
        (["red;blue", "red", ""], [["red", "blue"], ["red"], []]),
        (["traffic light", "Drum (/m/026t6)"], [["traffic light"], ["Drum (/m/026t6)"]]),
        (["['red', 'blue']", "['red']", "[]"], [["red", "blue"], ["red"], []]),
        (["['red' 'blue']", "['red'\n 'blue']"], [["red", "blue"], ["red", "blue"]]),
        (["array(['red'], dtype=object)", "['a']"], [["red"], ["a"]]),
        (["""["dog's", 'a, b; c']"""], [["dog's", "a, b; c"]]),
        (['["red","caf\\u00e9"]', '["a, b"]'], [["red", "café"], ["a, b"]]),
        (["('a', 'b')", "('c',)", "()"], [["a", "b"], ["c"], []]),
        (["{'a', 'b'}", "set()"], [["a", "b"], []]),
        (['{red,"traffic light"}', "{red}"], [["red", "traffic light"], ["red"]]),
        (["[red, blue]", "[red]"], [["red", "blue"], ["red"]]),
        (["[1, 2]", "[03]"], [["1", "2"], ["03"]]),
        (['{"choices":["red","blue"]}', "red"], [["red", "blue"], ["red"]]),
        (["{'choices': ['red']}", "a b"], [["red"], ["a b"]]),
        (['[{"x":1,"rectanglelabels":["Car"]},{"rectanglelabels":["Bus"]}]'], [["Car", "Bus"]]),
        (['{"taxonomy":[["animal","dog"],["sea"]]}'], [["dog", "sea"]]),
        (["red|blue", "red"], [["red", "blue"], ["red"]]),
        (["red\nblue", "red"], [["red", "blue"], ["red"]]),
        (["赤、青", "赤"], [["赤", "青"], ["赤"]]),
        ([["a, b", " c "], []], [["a, b", "c"], []]),
    ],
)
def test_lists_of_one_form_are_understood(cells, labels):
    column = read(cells)
    assert (column.labels, column.problems) == (labels, [])


@pytest.mark.parametrize(
    ("cells", "parts"),
    [
        (["red, blue", "blue, red", "x"], ["rows 2, 3: 'red, blue' may be", "--separator ','"]),
        (["x", "red, blue"], ["row 3: 'red, blue'", "--separator ';' if it is one name"]),
        (["red;blue", "red, blue"], ["row 3: 'red, blue'", "others have ';'"]),
        (["red;blue", "red|blue"], ["row 3: 'red|blue'", "--separator '|'"]),
        (["['red']", "blue"], ["row 3: 'blue' is written in another form", "in row 2"]),
        (['{"choices":["red"]}', "red, blue"], ["row 3: 'red, blue'"]),
        (['{"choices":["red"]}', "['red']"], ["row 3: \"['red']\" is written in another form"]),
        (["haze primary", "primary haze", "sea"], ["rows 2, 3:", "--separator ' '"]),
        (["5 0", "147 616 813", "7"], ["rows 2, 3:", "--separator ' '"]),
    ],
)
def test_a_column_that_is_not_clear_names_its_rows_and_the_option(cells, parts):
    ((row, problem),) = read(cells).problems
    assert row is None
    assert all(part in problem for part in parts), problem


@pytest.mark.parametrize(
    "cell",
    [
        "['red', 'blue'",
        "['a' 'b' ... 'c']",
        '{"red": 1}',
        "['a' b]",
        '["a", ["b"]]',
        "'red'",
        "['a\\nb']",
    ],
)
def test_a_cell_that_cannot_be_a_name_is_named(cell):
    ((row, problem),) = read([cell]).problems
    assert row == 2 and "the label" in problem


def test_a_separator_settles_what_plain_cells_are():
    cells = ["Kitchen, dining room", "Yard", "['a, b']"]
    assert read(cells, ";").labels == [["Kitchen, dining room"], ["Yard"], ["a, b"]]
    assert read(cells, ",").labels == [["Kitchen", "dining room"], ["Yard"], ["a, b"]]
    assert read(["a | b"], "|").labels == [["a", "b"]]
    assert read(["haze primary", "primary haze"], " ").labels[0] == ["haze", "primary"]
    assert read(["[unknown]", "red"], ";").labels == [["[unknown]"], ["red"]]


def test_texts_of_missing_values_are_no_labels_and_their_rows_are_said():
    column = read(["nan", "red;NaN", "None", "NULL", "none"])
    assert column.labels == [[], ["red"], [], [], ["none"]]
    assert "'nan' in row 2; 'NaN' in row 3; 'None' in row 4" in column.notes[0]
    assert read(["['a', nan]", "[null]"]).labels == [["a"], []]
    assert read(["nan", "none"], no_label=["none"]).labels == [["nan"], []]
    assert read(["None"], no_label=[]).labels == [["None"]]


def test_many_names_of_few_words_are_pointed_out():
    words = ["clear", "haze", "primary", "road", "water"]
    cells = [f"{a} {b}" for i, a in enumerate(words) for b in words[i + 1 :]]
    column = read(cells)
    assert not column.problems and "--separator ' '" in column.notes[0]
