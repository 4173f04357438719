"""Names that are written in several ways, their new names and their groups."""

import unicodedata

import pytest

from biam_tf.errors import UserError
from training.data.imports.class_names import (
    class_groups,
    new_names,
    rename_labels,
    similar_names,
    twins_problem,
)
from training.data.imports.listed_photos import ClassNames, ListedPhoto

pytestmark = pytest.mark.unit


def test_names_that_differ_in_spaces_or_unicode_form_are_one():
    classes = ClassNames()
    written = ["Café", unicodedata.normalize("NFD", "Café"), "traffic  light", "traffic\xa0light"]
    names = [classes.add(name, f"row {row}") for row, name in enumerate(written, 2)]
    assert names == ["Café", "Café", "traffic light", "traffic light"]
    assert classes.names == ["Café", "traffic light"]
    assert "Unicode form (row 3)" in classes.merged()[0]
    assert classes.add("\ufeffdog\u200b", "row 9") == "dog"


def test_names_that_differ_in_case_are_named_with_their_rows():
    classes = ClassNames()
    for row, name in enumerate(["Dog", "dog", "DOG", "dog", "sea"], 2):
        classes.add(name, f"t.csv row {row}")
    problem = twins_problem(new_names(classes.names), classes)
    for part in (
        "'Dog' (t.csv row 2)",
        "'dog' (t.csv row 3, t.csv row 5)",
        "--lower-case",
        "--keep-case",
    ):
        assert part in problem
    assert twins_problem(new_names(classes.names, lower_case=True), classes) is None
    assert twins_problem(new_names(classes.names, ["Dog=dog", "DOG=dog"]), classes) is None
    wide = ClassNames()
    for name in ("fish", "\ufb01sh"):
        wide.add(name, "row 2")
    assert "--rename" in twins_problem(new_names(wide.names), wide)


def test_names_that_differ_in_signs_are_pointed_out():
    assert (
        "'traffic_light' and 'Traffic-Light'"
        in similar_names(["traffic_light", "Traffic-Light"])[0]
    )
    assert similar_names(["dog", "dogs", "sea"]) == []


def test_a_merged_class_is_absent_where_all_its_parts_are():
    names = {"cat": "pet", "dog": "pet", "sea": "sea"}
    photos = [
        ListedPhoto("1", "train", (), ("cat", "dog")),
        ListedPhoto("2", "train", (), ("cat", "sea")),
        ListedPhoto("3", "train", ("dog",), ("cat",)),
    ]
    renamed = rename_labels(photos, names)
    assert [photo.labels for photo in renamed] == [(), (), ("pet",)]
    assert [photo.absent for photo in renamed] == [("pet",), ("sea",), ()]


def test_groups_are_named_by_any_spelling_of_the_list():
    nfd = unicodedata.normalize("NFD", "Café")
    groups = class_groups(["Café", "sea", "traffic light"], f"{nfd},", " traffic  light")
    assert groups == {"Café": "unseen", "sea": "seen", "traffic light": "ignored"}


def test_a_name_with_a_comma_can_be_given_alone():
    groups = class_groups(["Kitchen, dining room", "sea"], "Kitchen, dining room")
    assert groups == {"Kitchen, dining room": "unseen", "sea": "seen"}


def test_a_dotted_capital_i_has_a_small_letter_like_others():
    names = ["\u0130stanbul", "istanbul"]
    assert set(new_names(names, lower_case=True).values()) == {"istanbul"}


@pytest.mark.parametrize(
    ("unseen", "ignored", "message"),
    [
        ("dog,sea", "dog", "--unseen and --ignored both name 'dog'"),
        ("ZEBRA", None, "no class 'ZEBRA'; did you mean 'zebra'?"),
        (
            "zebar,dgo",
            None,
            "--unseen: no class 'zebar'; did you mean 'zebra'?\n--unseen: no class",
        ),
        ("list.txt", None, "and there is no such file"),
        ("dog,sea,zebra", None, "no class is left to train on"),
    ],
)
def test_groups_that_do_not_fit_are_refused(unseen, ignored, message):
    with pytest.raises(UserError, match=message.replace("?", r"\?")):
        class_groups(["dog", "sea", "zebra"], unseen, ignored)
