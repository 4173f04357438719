"""Sparse labels are what a matrix is, and nothing on the way to figures makes a matrix of them."""

import hashlib

import numpy as np
import pytest

from biam_tf import sparse_labels
from biam_tf.metrics import (
    average_precision,
    evaluate_scores,
    mean_average_precision,
    slices,
    stored_scores,
)
from biam_tf.metrics.bootstrap import bootstrap_intervals, number_of_resamples
from biam_tf.metrics.decisions import Decisions, counts_of_classes, f1_at_threshold
from biam_tf.metrics.held_out import HeldOutFold
from biam_tf.metrics.reliability import reliability_of_shown
from biam_tf.metrics.stacking import seen_unseen_curve
from biam_tf.sparse_labels import SparseLabels
from biam_tf.thresholds import Fitting, fit_thresholds

pytestmark = pytest.mark.unit

NAMES, GROUPS = [f"c{i}" for i in range(12)], ["seen"] * 8 + ["unseen"] * 4


@pytest.fixture(scope="module", params=["absent", "unknown", "dense"])
def dense(request):
    """(90, 12): +1 are few; all others are absent, or unknown, or some of each."""
    rng = np.random.default_rng(3)
    labels = np.full((90, 12), {"absent": -1, "unknown": 0, "dense": 0}[request.param], np.int8)
    labels[rng.random(labels.shape) < 0.15] = 1
    if request.param != "absent":
        labels[rng.random(labels.shape) < {"unknown": 0.1, "dense": 0.6}[request.param]] = -1
    labels[7] = labels[0, 0]
    return labels


@pytest.fixture
def sparse(dense, monkeypatch):
    """In blocks of a few photos; a dense array of more than a third of the labels is an error."""
    monkeypatch.setattr(sparse_labels, "_BLOCK", 300)
    monkeypatch.setattr(sparse_labels, "_SPAN", 40)
    monkeypatch.setattr(slices, "BLOCK_SIZE", 600)
    monkeypatch.setattr(stored_scores, "_TILE", 300)
    labels = SparseLabels.of_dense(dense)
    monkeypatch.setattr(sparse_labels, "DENSE_LIMIT", dense.size // 3)
    return labels


def test_any_part_is_that_of_the_matrix(dense, monkeypatch):
    monkeypatch.setattr(sparse_labels, "_BLOCK", 60)
    labels, mask = SparseLabels.of_dense(dense), np.arange(90) % 3 == 0
    assert labels.shape == dense.shape and labels.dtype == np.int8 and len(labels) == 90
    for key in (
        *(3, -1, slice(4, 9), slice(None, None, 7), [5, 5, -2], mask, np.zeros(0, int)),
        *((slice(None), 2), (slice(None), slice(3, 9)), (slice(None), [4, 0, -1])),
        *((4, 3), (4, [1, 2]), (slice(2, 5), 3), (slice(2, 5), [0, 7]), (mask, slice(1, 3))),
        *((mask, 4), ([3, 5, 3], [0, 1, 11]), (np.array([[1], [2]]), np.array([[0, 3]]))),
    ):
        np.testing.assert_array_equal(labels[key], dense[key], err_msg=repr(key))
    np.testing.assert_array_equal(np.asarray(labels), dense)
    np.testing.assert_array_equal(list(labels), dense)
    for wrong in (90, [0, 90], (slice(None), 12), np.ones(3, bool)):
        with pytest.raises(IndexError):
            labels[wrong]


def test_rows_and_columns_stay_sparse(dense, sparse):
    rows, columns = [80, 3, 3, 41], [9, 2, 5]
    own = sparse.rows(rows).columns(columns)
    assert own.shape == (4, 3)
    np.testing.assert_array_equal(own[:], dense[np.ix_(rows, columns)])
    mask = dense[:, 0] > 0
    np.testing.assert_array_equal(sparse.rows(mask)[:5], dense[mask][:5])
    np.testing.assert_array_equal((sparse > 0).columns(columns)[:20], dense[:20, columns] > 0)


def test_counts_and_comparisons_are_those_of_the_matrix(dense, sparse):
    for axis in (0, 1, None):
        for mask in (lambda x: x > 0, lambda x: x == 0, lambda x: x <= 0, lambda x: x != -1):
            assert np.array_equal(mask(sparse).sum(axis), mask(dense).sum(axis))
            assert np.array_equal(mask(sparse).any(axis), mask(dense).any(axis))
            assert np.array_equal(mask(sparse).all(axis), mask(dense).all(axis))
        assert np.array_equal(sparse.sum(axis), dense.sum(axis))
    for value in (-1, 0, 1):
        assert np.array_equal(sparse.count(value, axis=1), (dense == value).sum(axis=1))
    np.testing.assert_array_equal((sparse > 0).nonzero(), (dense > 0).nonzero())
    np.testing.assert_array_equal(sparse.nonzero(), dense.nonzero())
    assert sparse.unique().tolist() == np.unique(dense).tolist()


def test_of_repeated_entries_the_last_counts(rng, monkeypatch):
    monkeypatch.setattr(sparse_labels, "_BLOCK", 20)
    rows, classes = rng.integers(0, 9, 200), rng.integers(0, 5, 200)
    values = rng.integers(-1, 2, 200).astype(np.int8)
    expected = np.full((10, 5), -1, np.int8)
    for row, c, value in zip(rows, classes, values, strict=True):
        expected[row, c] = value
    found = SparseLabels.of_entries(rows, classes, values, (10, 5), -1)
    np.testing.assert_array_equal(found[:], expected)
    nothing = SparseLabels.of_entries([], [], [], (3, 2), 0)
    assert nothing[:].tolist() == [[0, 0]] * 3


def test_the_hash_is_that_of_the_matrix(dense, sparse, monkeypatch):
    def digest(labels):
        own = hashlib.sha256()
        labels.update(own)
        return own.hexdigest()

    assert digest(sparse) == hashlib.sha256(dense.tobytes()).hexdigest()
    monkeypatch.setattr(sparse_labels, "_HASHED_DENSE", 0)
    other = dense.copy()
    other[50, 3] = 1 if other[50, 3] < 1 else -1
    assert digest(sparse) == digest(SparseLabels.of_dense(dense))
    assert digest(sparse) != digest(SparseLabels.of_dense(other))


def test_a_matrix_that_is_too_large_is_refused(sparse):
    with pytest.raises(ValueError, match=r"90 x 12 labels take .* dense"):
        np.asarray(sparse)


def test_open_images_take_three_bytes_per_label():
    photos = 100_000
    rows = np.repeat(np.arange(photos, dtype=np.int32), 9)
    classes = (np.arange(len(rows)) * 797 % 7186).astype(np.int32)
    labels = SparseLabels.of_entries(rows, classes, np.ones(len(rows), np.int8), (photos, 7186), 0)
    assert labels.nbytes == 3 * 9 * photos + 8 * (photos + 1)  # 2**33 of the matrix for 9 million


def test_all_figures_are_the_same_to_the_last_bit(dense, sparse, rng):
    scores = (rng.normal(size=dense.shape) + 0.7 * (dense > 0)).astype(np.float32)
    held_out = np.arange(8) % 2 == 0
    fold = HeldOutFold(np.arange(90), np.arange(8), held_out, scores[:, :8])
    ones, zeros = np.ones(12), np.zeros(12)

    def thresholds(labels, **fitting):
        fitting = Fitting(held_out=[fold], is_corrected=True, **fitting)
        return fit_thresholds(scores, labels, NAMES, GROUPS, fitting=fitting).to_json()

    for figures in (
        lambda labels: evaluate_scores(scores, labels, NAMES, GROUPS),
        lambda labels: mean_average_precision(
            average_precision(scores, labels), labels, weighted=True
        ),
        lambda labels: bootstrap_intervals(scores, labels, GROUPS, resamples=20),
        number_of_resamples,
        lambda labels: seen_unseen_curve(scores, labels, GROUPS).area,
        lambda labels: f1_at_threshold(Decisions(scores, zeros), labels, GROUPS),
        lambda labels: np.stack(counts_of_classes(Decisions(scores, zeros), labels)).tolist(),
        lambda labels: reliability_of_shown(scores, labels, GROUPS, ones, zeros, zeros),
    ):
        assert figures(sparse) == figures(dense)
    if (dense < 0).any():
        assert thresholds(sparse) == thresholds(dense)
        assert thresholds(sparse, share_of_unseen=0.3) == thresholds(dense, share_of_unseen=0.3)
