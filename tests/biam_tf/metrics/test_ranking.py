import numpy as np
import pytest

from biam_tf.metrics import average_precision, f1_at_k, ranking
from biam_tf.metrics.ranking import best_columns, ranks

pytestmark = pytest.mark.unit


def whole_rankings(scores, labels):
    """Average precisions with every image of every class ranked, added up in ranked order."""
    order = np.argsort(-scores.T.astype(np.float64, order="C"), axis=1, kind="stable")
    ranked = np.take_along_axis(labels.T, order, axis=1)
    hits = ranked > 0
    found, labeled = np.cumsum(hits, axis=1), np.cumsum(ranked != 0, axis=1)
    precisions = np.divide(found, labeled, out=np.zeros(hits.shape), where=hits)
    positives = hits.sum(axis=1)
    sums = precisions.sum(axis=1)
    return np.divide(sums, positives, out=np.zeros(len(sums)), where=positives > 0)


def some_scores(kind: str, shape, rng) -> np.ndarray:
    normal = rng.normal(size=shape)
    return {
        "all different": lambda: normal.astype(np.float32),
        "float64 closer than float32 tells": lambda: 1 + 1e-12 * normal,
        "float16": lambda: normal.astype(np.float16),
        "a few levels": lambda: normal.round().astype(np.float32),
        "integers": lambda: (3 * normal).astype(np.int64),
        "all the same": lambda: np.zeros(shape, np.float32),
        "zeros of both signs": lambda: np.where(normal > 0, 0.0, -0.0).astype(np.float32),
        "infinite": lambda: np.where(np.abs(normal) < 0.5, normal, np.inf * normal),
    }[kind]()


KINDS = [
    "all different",
    "float64 closer than float32 tells",
    "float16",
    "a few levels",
    "integers",
    "all the same",
    "zeros of both signs",
    "infinite",
]


@pytest.mark.parametrize("compared", [0, 8, 10**9], ids=["searched", "as usual", "compared"])
@pytest.mark.parametrize("kind", KINDS)
def test_average_precision_is_that_of_whole_rankings_to_the_last_bit(
    kind, compared, rng, monkeypatch
):
    monkeypatch.setattr(ranking, "_COMPARED_AT_MOST", compared)
    monkeypatch.setattr(ranking, "_COMPARED_PER_NUMBER", 1)
    scores = some_scores(kind, (700, 12), rng)
    shares = np.array([0, 0.002, 0.01, 0.05, 0.3, 1] * 2)
    labels = np.where(rng.random(scores.shape) < shares, 1, -1).astype(np.int8)
    np.testing.assert_array_equal(average_precision(scores, labels), whole_rankings(scores, labels))
    labels[:, 6:] *= rng.random((700, 6)) < 0.5  # half of them unknown
    np.testing.assert_array_equal(average_precision(scores, labels), whole_rankings(scores, labels))


def test_tied_entries_in_a_row_of_many_are_compared_or_ranked(rng, monkeypatch):
    """Some rows have a tie or two, others nothing but ties; each is what stable sorting says."""
    values = rng.permutation(400).astype(np.float32).reshape(1, -1).repeat(4, axis=0)
    values[1, 7] = values[1, 350]
    values[2] //= 40
    values[3, 100:] = np.nan
    entries = np.flatnonzero(~np.isnan(values))
    order = np.argsort(-values, axis=1, kind="stable")
    expected = np.empty_like(order)
    np.put_along_axis(expected, order, np.arange(400)[None], axis=1)
    for limit in (0, 3, 1000):
        monkeypatch.setattr(ranking, "_most_compared", lambda images, limit=limit: limit)
        np.testing.assert_array_equal(ranks(values, entries), expected.ravel()[entries])
        own = entries[entries // 400 == 1] - 400
        np.testing.assert_array_equal(ranks(values[1:2], own), expected[1])


@pytest.mark.parametrize("images", [1, 2, 3, 128])
def test_few_images_are_ranked(images, rng):
    scores = rng.integers(3, size=(images, 5)).astype(np.float32)
    labels = rng.choice([-1, 0, 1], size=scores.shape)
    np.testing.assert_array_equal(average_precision(scores, labels), whole_rankings(scores, labels))


def test_without_images_or_classes_there_is_nothing_to_rank():
    assert average_precision(np.zeros((0, 3)), np.zeros((0, 3)), np.nan).shape == (3,)
    assert average_precision(np.zeros((3, 0)), np.zeros((3, 0))).shape == (0,)


@pytest.mark.parametrize("classes", [5, 40, 64 * 20, 64 * 21 + 3])
@pytest.mark.parametrize("kind", KINDS)
def test_best_columns_are_those_of_a_stable_sort(kind, classes, rng):
    scores = some_scores(kind, (30, classes), rng).astype(np.float64)
    for k in (1, 3, 5):
        expected = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        np.testing.assert_array_equal(best_columns(scores, k), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_f1_takes_scores_of_any_type(kind, rng):
    scores = some_scores(kind, (30, 1400), rng)
    labels = np.where(rng.random(scores.shape) < 0.2, 1, -1)
    best = np.argsort(-scores.astype(np.float64), axis=1, kind="stable")[:, :3]
    right = (np.take_along_axis(labels, best, axis=1) > 0).sum()
    assert f1_at_k(scores, labels, 3)[1:] == (right / 90, right / (labels > 0).sum())
