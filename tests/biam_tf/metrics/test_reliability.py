import numpy as np
import pytest

from biam_tf.metrics.reliability import reliability_lines, reliability_of_shown

pytestmark = pytest.mark.unit


def test_shown_tags_are_counted_by_hand():
    """Two seen classes and an unseen one without calibration; logits are the scores."""
    scores = np.array([[2.0, 0.1, 5.0], [1.0, -3.0, 4.0], [6.0, 0.0, -1.0]])
    labels = np.array([[1, -1, 1], [-1, 1, -1], [0, 1, 1]])
    nan = np.nan
    found = reliability_of_shown(
        scores,
        labels,
        ["seen", "seen", "unseen"],
        np.array([1.0, 1.0, nan]),
        np.array([0.0, 0.0, nan]),
        np.array([1.5, 0.0, 4.5]),
    )
    p = 1 / (1 + np.exp(-np.array([2.0, 0.1, 1.0, 0.0])))  # 6.0 is of an unknown label
    seen = found["seen"]
    assert seen["at_half"] == {
        "tags": 4,
        "stated": pytest.approx(p.mean()),
        "right": 0.5,
        "uncalibrated_tags": 0,
    }
    assert seen["at_threshold"]["tags"] == 3  # 2.0, 0.1 and 0.0
    assert seen["at_threshold"]["right"] == pytest.approx(2 / 3)
    assert [b["tags"] for b in seen["bins"]] == [2, 0, 1, 1, 0, 0]
    assert found["unseen"]["at_half"]["tags"] == 0 and found["unseen"]["at_half"]["right"] is None
    assert found["unseen"]["at_threshold"] == {
        "tags": 1,
        "stated": None,
        "right": 1.0,
        "uncalibrated_tags": 1,
    }


def test_few_tags_are_counted_not_rated():
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(400, 2)), rng.choice([-1, 1], (400, 2))
    ones, zeros = np.ones(2), np.zeros(2)

    def lines(rows: int) -> list[str]:
        groups = ["seen", "seen"]
        found = reliability_of_shown(scores[:rows], labels[:rows], groups, ones, zeros, zeros)
        return reliability_lines(found)

    assert "too few" in lines(40)[1] and "100 are needed" in lines(40)[1]
    assert "too few" not in lines(400)[1] and "unseen" not in "".join(lines(400))
