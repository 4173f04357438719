import numpy as np
import pytest

from biam_tf.metrics import f1_at_k
from biam_tf.metrics.stacking import harmonic_mean, seen_unseen_curve

pytestmark = pytest.mark.unit

trapezoid = getattr(np, "trapezoid", None) or np.trapz  # its name before NumPy 2.0

SEEN = np.array([True] * 6 + [False] * 4)
GROUPS = np.where(SEEN, "seen", "unseen").tolist()


@pytest.fixture
def test_set(rng):
    scores = rng.normal(size=(25, 10)) + np.where(SEEN, 1.0, 0.0)
    return scores, rng.choice([-1, 0, 1], p=[0.6, 0.1, 0.3], size=scores.shape)


def brute_force(scores, labels, constant: float, k: int) -> tuple[float, float]:
    best = np.argsort(constant * SEEN - scores, axis=1, kind="stable")[:, :k]
    right, seen = np.take_along_axis(labels, best, axis=1) > 0, SEEN[best]
    positives = (labels > 0).sum(axis=0)
    return (
        (right & seen).sum() / positives[SEEN].sum(),
        (right & ~seen).sum() / positives[~SEEN].sum(),
    )


@pytest.mark.parametrize("k", [1, 3, 5, 10])
def test_recalls_are_those_of_ranking_all_classes_again(test_set, k):
    curve = seen_unseen_curve(*test_set, GROUPS, k)
    for constant in np.linspace(-5.003, 5.003, 61):
        assert curve.at(constant) == pytest.approx(brute_force(*test_set, constant, k))


def test_the_area_is_that_of_a_fine_sweep_over_constants(test_set):
    curve = seen_unseen_curve(*test_set, GROUPS, 3)
    points = [brute_force(*test_set, constant, 3) for constant in np.linspace(-8, 8, 20001)]
    seen, unseen = np.transpose(points)
    assert curve.area == pytest.approx(trapezoid(seen, unseen), abs=1e-9)


def test_the_curve_ends_where_one_group_has_all_places(test_set):
    scores, labels = test_set
    curve = seen_unseen_curve(scores, labels, GROUPS, 3)
    assert np.all(np.diff(curve.seen) <= 0) and np.all(np.diff(curve.unseen) >= 0)
    alone = [f1_at_k(scores[:, own], labels[:, own], 3).recall for own in (SEEN, ~SEEN)]
    assert (curve.seen[0], curve.unseen[-1]) == pytest.approx(alone)
    assert curve.unseen[0] == curve.seen[-1] == 0


def test_the_best_constant_is_the_best_of_a_fine_sweep(test_set):
    curve = seen_unseen_curve(*test_set, GROUPS, 3)
    sweep = [harmonic_mean(*brute_force(*test_set, g, 3)) for g in np.linspace(-5, 5, 4001)]
    assert harmonic_mean(*curve.at(curve.best_constant())) == pytest.approx(max(sweep))
    assert curve.best_constant() > 0  # seen classes were given an advantage of 1


def test_equal_groups_need_no_constant():
    scores = np.array([[1.0, 0.0, 1.0, 0.0]])
    labels = np.array([[1, -1, 1, -1]])
    curve = seen_unseen_curve(scores, labels, ["seen", "seen", "unseen", "unseen"], 2)
    assert curve.best_constant() == 0 and curve.at(0.0) == (1, 1) and curve.area == 1


@pytest.mark.parametrize(
    ("labels", "k", "message"),
    [
        ([[1, -1]], 1, "class of group 'unseen'"),
        ([[-1, 1]], 1, "class of group 'seen'"),
        ([[1, 1]], 3, "K = 3 of 2 classes"),
        ([[1, 1, 1]], 1, "do not match"),
    ],
)
def test_what_can_not_be_is_named(labels, k, message):
    with pytest.raises(ValueError, match=message):
        seen_unseen_curve([[0.0, 1.0]], labels, ["seen", "unseen"], k)
