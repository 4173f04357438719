import dataclasses

import numpy as np
import pytest

from biam_tf.class_calibration import ClassCalibration, NewClassRule, Selection, Tag
from biam_tf.errors import UserError
from biam_tf.thresholds import Thresholds
from biam_tf.vocabulary import Vocabulary

pytestmark = pytest.mark.unit

RULE = NewClassRule(
    similarity=np.array([0.0, 0.5, 1.0]),
    slopes=np.array([np.nan, 2.0, 3.0]),
    offsets=np.array([np.nan, -1.0, -2.0]),
    cuts=np.array([4.0, 3.0, 1.0]),
    neighbors=2,
)
# Four classes in the plane; those of 0, 90 and 180 degrees are seen.
DEGREES = np.deg2rad([0, 45, 90, 180])
OWN = Vocabulary(
    ("dog", "cat", "Red car", "sky"),
    np.stack([np.cos(DEGREES), np.sin(DEGREES)], axis=1).astype(np.float32),
    ("seen", "unseen", "seen", "seen"),
)
THRESHOLDS = Thresholds(
    names=OWN.names,
    cuts=np.array([0.5, 1.5, 2.5, 3.5]),
    slopes=np.array([1.0, 2.0, 3.0, 4.0]),
    offsets=np.array([0.0, -1.0, -2.0, -3.0]),
    sources=("own", "global", "own", "global"),
    global_slope=1.0,
    global_offset=0.5,
    global_logit=0.7,
    fitted_on={},
    new_classes=RULE,
)


def test_between_knots_the_numbers_lie_on_a_line():
    found = RULE(np.array([-0.2, 0.0, 0.25, 0.5, 0.6, 1.0, 1.1], np.float32))
    nan = np.nan
    np.testing.assert_allclose(found.slopes, [nan, nan, nan, 2, 2.2, 3, 3], rtol=1e-6)
    np.testing.assert_allclose(found.offsets, [nan, nan, nan, -1, -1.2, -2, -2], rtol=1e-6)
    np.testing.assert_allclose(found.cuts, [4, 4, 3.5, 3, 2.6, 1, 1], rtol=1e-6)


def test_a_listed_class_has_its_own_calibration_and_a_new_one_that_of_its_similarity():
    embeddings = np.array([[0, 1], [1, 1], [2, 0]], np.float32)  # of any length
    found = THRESHOLDS.for_classes(["RED_CAR", "zebra", "boat"], embeddings, OWN)
    # "zebra" lies between 0 and 90 degrees: the mean of two cosines of 45 degrees; "boat" is at 0
    # degrees: the mean of 1 and 0. "cat" at 45 degrees is no seen class.
    zebra = np.sqrt(0.5)
    share = (zebra - 0.5) / 0.5
    np.testing.assert_allclose(found.slopes, [3, 2 + share, 2], rtol=1e-6)
    np.testing.assert_allclose(found.cuts, [2.5, 3 - 2 * share, 3], rtol=1e-6)


def test_classes_without_names_are_new_to_the_model():
    found = THRESHOLDS.for_classes(None, OWN.embeddings, OWN)
    boat, cat = found.slopes[0], found.slopes[1]
    assert boat == pytest.approx(2.0) and cat == pytest.approx(2 + (np.sqrt(0.5) - 0.5) / 0.5)


def test_without_a_rule_new_classes_take_the_global_numbers(rng):
    plain = dataclasses.replace(THRESHOLDS, new_classes=None)
    found = plain.for_classes(["zebra", "dog"], rng.normal(size=(2, 2)), OWN)
    np.testing.assert_allclose(found.slopes, [1.0, 1.0])
    np.testing.assert_allclose(found.offsets, [0.5, 0.0])
    np.testing.assert_allclose(found.cuts, [0.2, 0.5])


def test_the_rule_survives_its_file(tmp_path):
    (tmp_path / "thresholds.json").write_text(THRESHOLDS.to_json())
    rule = Thresholds.load(tmp_path / "thresholds.json").rule
    np.testing.assert_array_equal(rule.knots, RULE.knots)
    np.testing.assert_array_equal(rule.similarity, RULE.similarity)
    assert rule.neighbors == 2


def test_a_class_that_is_not_calibrated_has_no_probability_and_may_have_a_threshold():
    its = ClassCalibration(
        np.array([np.nan, 1.0]), np.array([np.nan, 0.0]), np.array([1.0, np.nan])
    )
    assert np.isnan(its.probabilities([5.0, 5.0])[0])
    assert its.decide([5.0, 5.0]).tolist() == [True, False]
    scores = np.array([5.0, 4.0])
    answer = (["dog", "sky"], scores, its.probabilities(scores), its.decide(scores))
    sky = 1 / (1 + np.exp(-4.0))
    tags = [Tag("dog", 5.0, None, True), Tag("sky", 4.0, pytest.approx(sky), False)]
    assert Selection().tags(*answer) == tags
    assert Selection(top=1).tags(*answer) == tags[:1]
    assert Selection(only_present=True).tags(*answer) == tags[:1]
    likely = Selection(probability=0.5).tags(*answer)  # a class without a probability is left out
    assert [(tag.name, tag.present) for tag in likely] == [("sky", True)]
    assert [tag.name for tag in Selection(score=4.5).tags(*answer)] == ["dog"]


def test_scores_alone_decide_nothing_but_by_a_score():
    scores = np.array([1.0, 2.0])
    assert Selection().tags(["a", "b"], scores, None, None)[0] == Tag("b", 2.0, None, None)
    assert Selection(score=2).tags(["a", "b"], scores, None, None) == [Tag("b", 2.0, None, True)]
    for selection in (Selection(only_present=True), Selection(probability=0.5)):
        with pytest.raises(UserError, match="the model gives scores only"):
            selection.tags(["a", "b"], scores, None, None)
