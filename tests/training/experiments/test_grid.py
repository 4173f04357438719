"""A grid of settings, as it is written and what it means."""

import itertools

import pytest

from biam_tf.errors import UserError
from training.experiments.grid import expand, parse_grid, split_values

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("5", ["5"]),
        ("5,10, 20", ["5", "10", "20"]),
        ("[1, 2],[3]", ["[1, 2]", "[3]"]),
        ("{a: 1, b: [2, 3]},null", ["{a: 1, b: [2, 3]}", "null"]),
        ("'a,b',\"c, d\"", ["'a,b'", '"c, d"']),
    ],
)
def test_values_are_split_at_commas_outside_brackets_and_quotes(text, values):
    assert split_values(text, f"key={text}") == values


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["head.top_k"], "expected a key and values"),
        (["=5"], "expected a key and values"),
        (["head.top_k="], "value 1 is empty"),
        (["head.top_k=5,,6"], "value 2 is empty"),
        (["a=[1,2"], "']' is missing"),
        (["a=1]"], "has no opening bracket"),
        (["a='x"], '"\'" is missing'),
        (["a=1", "a=2"], "a is given twice"),
        (["a=1e-3,0.001"], "1e-3 and 0.001 are the same value"),
        (["training.seed=1,2"], "set by --seeds"),
        (["output=a,b"], "set by --output"),
    ],
)
def test_a_grid_that_cannot_be_read_is_named(options, message):
    with pytest.raises(UserError, match=r"--grid ") as caught:
        parse_grid(options)
    assert message in str(caught.value)


def test_a_grid_is_every_combination_and_the_last_key_varies_fastest():
    trials = expand(parse_grid(["training.epochs=1,2", "head.top_k=3,4,5"]))
    expected = itertools.product(("1", "2"), ("3", "4", "5"))
    assert [trial.settings for trial in trials] == [
        (f"training.epochs={a}", f"head.top_k={b}") for a, b in expected
    ]
    assert trials[0].name == "epochs 1, top_k 3"


def test_the_folder_depends_on_the_settings_and_not_on_how_the_grid_is_written():
    once = expand(parse_grid(["training.optimizer.learning_rate=1e-3", "head.top_k=5"]))
    again = expand(parse_grid(["head.top_k=4,5", "training.optimizer.learning_rate=0.001,1"]))
    assert once[0].folder == "head.top_k-5_training.optimizer.learning_rate-0.001"
    assert once[0].folder in {trial.folder for trial in again}
    assert len({trial.folder for trial in again}) == 4


def test_values_that_look_alike_in_a_file_name_get_folders_of_their_own():
    values = ["/a/b.txt", "/a-b.txt", "a b.txt", "[1, 2]", "[12]", "null"]
    trials = expand(parse_grid([f"vocabulary.word_vectors={','.join(values)}"]))
    assert len({trial.folder for trial in trials}) == len(values)
    assert not any("/" in trial.folder for trial in trials)


def test_keys_with_the_same_last_name_are_called_in_full():
    axes = parse_grid(["head.a=1", "training.a=1", "training.b=1"])
    assert [axis.label for axis in axes] == ["head.a", "training.a", "b"]
