import numpy as np
import pytest

from biam_tf.metrics import average_precision, evaluate_scores, f1_at_k
from biam_tf.metrics.bootstrap import (
    MIN_RESAMPLES,
    RESAMPLES,
    average_precision_of_draws,
    bootstrap_differences,
    bootstrap_intervals,
    draw_counts,
    number_of_resamples,
)

pytestmark = pytest.mark.unit

GROUPS = ["seen"] * 5 + ["unseen"] * 4


@pytest.fixture
def test_set(rng):
    """Scores with many ties, labels with unknown ones, a class without and one of one positive."""
    scores = rng.normal(size=(30, 9)).round(1)
    labels = rng.choice([-1, 0, 1], p=[0.6, 0.1, 0.3], size=scores.shape)
    labels[:, 2] = -1
    labels[:, 7] = [-1] * 29 + [1]
    return scores, labels


def drawn_rows(counts: np.ndarray) -> np.ndarray:
    return np.repeat(np.arange(len(counts)), counts)


def test_average_precision_of_a_draw_is_that_of_the_drawn_photos(test_set):
    scores, labels = test_set
    counts = draw_counts(len(scores), 40, seed=1)
    found = average_precision_of_draws(scores, labels, counts)
    for b in range(counts.shape[1]):
        rows = drawn_rows(counts[:, b])
        expected = average_precision(scores[rows], labels[rows], without_positives=np.nan)
        np.testing.assert_allclose(found[b], expected, rtol=1e-12)
    assert np.isnan(found[:, 2]).all() and np.isnan(found[:, 7]).any()


def test_every_draw_takes_as_many_photos_as_there_are_and_the_seed_fixes_it():
    counts = draw_counts(25, 50, seed=3)
    assert (counts.sum(axis=0) == 25).all() and counts.max() > 2
    np.testing.assert_array_equal(counts, draw_counts(25, 50, seed=3))
    assert (counts != draw_counts(25, 50, seed=4)).any()


def test_intervals_are_the_quantiles_of_naive_draws_about_the_estimate(test_set):
    scores, labels = test_set
    found = bootstrap_intervals(scores, labels, GROUPS, k=3, seed=5, resamples=60)
    counts = draw_counts(len(scores), 60, seed=5)
    metrics = evaluate_scores(scores, labels, [str(c) for c in range(9)], GROUPS)
    for part, columns in {"seen": range(5), "zsl": range(5, 9), "gzsl": range(9)}.items():
        own, classes = labels[:, columns], scores[:, columns]
        share = (own > 0).any(axis=0).mean()
        maps, f1s = [], []
        for b in range(60):
            rows = drawn_rows(counts[:, b])
            ap = average_precision(classes[rows], own[rows], without_positives=np.nan)
            maps.append(share * np.nanmean(ap))
            f1s.append(f1_at_k(classes[rows], own[rows], 3, "left_out").f1)
        for figure, draws in (("mAP", maps), ("F1@3", f1s)):
            estimate = metrics[part][figure]
            estimate = estimate if figure == "mAP" else estimate["f1"]
            expected = np.quantile(draws, [0.025, 0.975]) - np.mean(draws) + estimate
            interval = found[part][figure]
            np.testing.assert_allclose(
                [interval.low, interval.high], np.clip(expected, 0, 1), rtol=1e-10
            )
            assert interval.low <= estimate <= interval.high


def test_differences_are_those_of_the_same_draws(test_set, rng):
    scores, labels = test_set
    better = scores + 0.5 * labels
    settings = {"k": 3, "seed": 5, "resamples": 60}
    (found, none) = bootstrap_differences([scores, better, scores], labels, GROUPS, **settings)
    counts = draw_counts(len(scores), 60, seed=5)
    gains = []
    for b in range(60):
        rows = drawn_rows(counts[:, b])
        maps = [
            np.nanmean(average_precision(own[rows], labels[rows], without_positives=np.nan))
            for own in (scores, better)
        ]
        gains.append(8 / 9 * (maps[1] - maps[0]))  # one of the nine classes has no positive
    names = [str(c) for c in range(9)]
    maps = [evaluate_scores(own, labels, names, GROUPS)["gzsl"]["mAP"] for own in (scores, better)]
    expected = np.quantile(gains, [0.025, 0.975]) - np.mean(gains) + maps[1] - maps[0]
    own = found["gzsl"]["mAP"]
    np.testing.assert_allclose([own.low, own.high], expected, rtol=1e-9)
    assert own.estimate == pytest.approx(maps[1] - maps[0], rel=1e-12) and own.low > 0
    same = none["zsl"]["F1@3"]
    assert (same.estimate, same.low, same.high) == (0, 0, 0)


def test_several_trainings_of_a_model_are_averaged_draw_by_draw(test_set, rng):
    scores, labels = test_set
    settings = {"k": 3, "seed": 5, "resamples": 40}
    others = np.stack([scores + 0.5 * labels, scores - 0.2 * labels])
    own = [bootstrap_differences([scores, other], labels, GROUPS, **settings) for other in others]
    (found,) = bootstrap_differences([scores[None], others], labels, GROUPS, **settings)
    for part, figures in found.items():
        for figure, difference in figures.items():
            estimates = [differences[0][part][figure].estimate for differences in own]
            assert difference.estimate == pytest.approx(np.mean(estimates), abs=1e-12)
            assert difference.low < difference.estimate < difference.high


def test_intervals_narrow_with_the_number_of_photos(rng):
    labels = np.where(rng.random((800, 4)) < 0.3, 1, -1)
    scores = labels + 2 * rng.normal(size=labels.shape)
    few, many = (bootstrap_intervals(scores[:n], labels[:n], ["seen"] * 4) for n in (50, 800))
    width = [part["seen"]["mAP"].high - part["seen"]["mAP"].low for part in (few, many)]
    assert width[1] == pytest.approx(width[0] / 4, rel=0.4)  # the root of 800 / 50


def test_parts_without_a_positive_and_f1_of_too_few_classes_are_absent(test_set):
    scores, labels = test_set
    only_empty = bootstrap_intervals(
        scores, labels, ["unseen" if c == 2 else "seen" for c in range(9)], resamples=5
    )
    assert set(only_empty) == {"gzsl", "seen"}
    two = bootstrap_intervals(scores[:, :2], labels[:, :2], ["seen"] * 2, k=3, resamples=5)
    assert set(two["seen"]) == {"mAP"}


def test_large_test_sets_get_fewer_draws():
    assert number_of_resamples(np.ones((100, 10), np.int8)) == RESAMPLES
    assert number_of_resamples(np.ones((5000, 1000), np.int8)) == 400
    assert number_of_resamples(np.ones((50000, 1000), np.int8)) == MIN_RESAMPLES
