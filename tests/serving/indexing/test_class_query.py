"""Queries of several classes: how they are read, what they hold for, and how photos are ranked."""

import itertools

import numpy as np
import pytest

from biam_tf.class_calibration import ClassCalibration
from biam_tf.errors import UserError
from serving.indexing.class_query import ClassQuery, quoted
from serving.indexing.search_photos import rank

pytestmark = pytest.mark.unit

# The same in Python, for every combination of decisions.
MEANINGS = {
    "a": lambda a, b, c: a,
    "a and b or c": lambda a, b, c: (a and b) or c,
    "a or b and c": lambda a, b, c: a or (b and c),
    "(a or b) and not c": lambda a, b, c: (a or b) and not c,
    "not a and not (b or c)": lambda a, b, c: not a and not (b or c),
    "NOT not a AND (b OR not c)": lambda a, b, c: a and (b or not c),
    "a and not a": lambda a, b, c: False,
}


@pytest.mark.parametrize("text", MEANINGS)
def test_a_query_means_what_python_means(text):
    query = ClassQuery.parse(text)
    for values in itertools.product([True, False], repeat=3):
        known = dict(zip("abc", values, strict=True))
        decisions = np.array([[known[name] for name in query.names]])
        assert bool(query.holds(decisions)[0]) == MEANINGS[text](*values)
        strengths = np.where(decisions, 0.5, -0.25)
        assert (query.value(strengths)[0] > 0) == MEANINGS[text](*values)


def test_names_have_spaces_and_are_quoted_where_they_would_be_operators():
    query = ClassQuery.parse('red  car and "salt and pepper" or not "a, b (c)" and RED CAR')
    assert query.names == ("red car", "salt and pepper", "a, b (c)", "RED CAR")
    for name in query.names:
        assert ClassQuery.parse(quoted(name)).names == (name,)
    assert query.replaced("salt and pepper", "black or white").count('"black or white"') == 1
    assert query.replaced("red car", "bus").startswith('bus and "salt')
    assert ClassQuery.parse("not dog").is_single is False
    assert ClassQuery.parse("dog or dog").is_single is True


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the query is empty"),
        ("dog and", "expected the name of a class at the end"),
        ("dog (cat)", "expected 'and', 'or' or the end at '(cat)'"),
        ("(dog or cat", "expected ')' at the end"),
        ("and dog", "expected the name of a class at 'and dog'"),
        ("dog, cat", "join classes by 'and' or 'or'"),
        ('"dog', "a quote that is not closed"),
        ('dog and ""', "expected a name between the quotes"),
        ("(" * 3000 + "dog", "more than 50 brackets"),
        ("black and white or dog", 'write "black and white"'),
    ],
)
def test_what_is_no_query_is_told_with_its_place(text, message):
    with pytest.raises(UserError) as error:
        ClassQuery.parse(text, known={"black and white", "dog"})
    assert message in str(error.value)


def test_photos_for_which_a_query_holds_come_first_and_damaged_ones_not_at_all():
    scores = np.array([[3, 0], [1, 5], [9, 9], [np.nan, 1], [2, -4], [5, 0.9]], np.float32)
    query = ClassQuery.parse("a and not b")
    calibration = ClassCalibration(np.array([1.0, 2.0]), np.zeros(2), np.array([2.0, 1.0]))
    ranking = rank(scores, query, calibration)
    # Log-odds above the thresholds: min(s_a - 2, -2 (s_b - 1)).
    margins = [1.0, -8.0, -16.0, None, 0.0, 0.2]
    held = [0, 5, 4]  # at the threshold of a, photo 4 is decided
    assert ranking.decided == 3 and list(ranking.rows) == [*held, 1, 2]
    np.testing.assert_allclose(ranking.values, [margins[row] for row in ranking.rows], atol=1e-6)
    without = rank(scores, query, None)
    assert without.decided is None and set(without.rows) == {0, 1, 2, 4, 5}
    whole = scores[[0, 1, 2, 4, 5]].astype(float)
    standard = (whole - whole.mean(0)) / whole.std(0)
    np.testing.assert_allclose(
        without.values, np.sort(np.minimum(standard[:, 0], -standard[:, 1]))[::-1]
    )
    single = rank(scores[:, :1], ClassQuery.parse("a"), None)
    np.testing.assert_array_equal(single.values, [9, 5, 3, 2, 1])
    unknown = ClassCalibration(np.array([1.0, np.nan]), np.zeros(2), np.array([2.0, np.nan]))
    assert rank(scores, query, unknown).decided is None
