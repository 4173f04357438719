import numpy as np
import pytest

from biam_tf.metrics.decisions import decision_f1, f1_at_threshold

pytestmark = pytest.mark.unit


@pytest.fixture
def tags(rng):
    labels = rng.choice([-1, 0, 1], p=[0.6, 0.1, 0.3], size=(60, 7))
    labels[:, 3], labels[5] = -1, -1
    return rng.random(labels.shape) < 0.3, labels


def f1_of(pairs) -> tuple[float, float, float]:
    """F1, precision and recall of (given, label) pairs, counted one by one."""
    right = wrong = missed = 0
    for given, label in pairs:
        right += given and label == 1
        wrong += given and label == -1
        missed += not given and label == 1
    precision = right / (right + wrong) if right + wrong else 0
    recall = right / (right + missed) if right + missed else 0
    return 2 * right / max(1, 2 * right + wrong + missed), precision, recall


def test_f1_is_what_counting_one_by_one_gives(tags):
    given, labels = tags
    found = decision_f1(given, labels)
    pairs = lambda g, t: list(zip(g.ravel(), t.ravel(), strict=True))  # noqa: E731
    expected = {
        "micro": f1_of(pairs(given, labels)),
        "macro": np.mean([f1_of(pairs(given[:, c], labels[:, c])) for c in range(7)], axis=0),
        "sample": np.mean(
            [f1_of(pairs(given[i], labels[i])) for i in range(60) if (labels[i] > 0).any()], axis=0
        ),
    }
    for kind, (f1, precision, recall) in expected.items():
        assert found[kind] == pytest.approx({"f1": f1, "precision": precision, "recall": recall})


def test_f1_is_scikit_learns_where_all_labels_are_known(tags):
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    given, labels = tags
    labels = np.where(labels == 0, -1, labels)
    found = decision_f1(given, labels)
    rows = (labels > 0).any(axis=1)
    for kind, ours in (("micro", "micro"), ("macro", "macro"), ("samples", "sample")):
        own = rows if kind == "samples" else slice(None)
        expected = sklearn_metrics.f1_score(
            labels[own] > 0, given[own], average=kind, zero_division=0
        )
        assert found[ours]["f1"] == pytest.approx(expected, abs=1e-12)


def test_parts_are_columns_of_the_same_decisions(tags):
    given, labels = tags
    groups = ["seen"] * 4 + ["unseen"] * 3
    found = f1_at_threshold(given, labels, groups)
    assert found["zsl"] == decision_f1(given[:, 4:], labels[:, 4:])
    assert found["seen"] == decision_f1(given[:, :4], labels[:, :4])
    assert found["gzsl"] == decision_f1(given, labels)
    assert f1_at_threshold(given, labels, ["seen"] * 7)["zsl"] is None


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"\(2, 3\) and labels \(3, 2\)"):
        decision_f1(np.zeros((2, 3)), np.zeros((3, 2)))
