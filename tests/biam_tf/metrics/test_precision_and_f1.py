import json

import numpy as np
import pytest

from biam_tf.metrics import (
    average_precision,
    chance_average_precision,
    evaluate_scores,
    f1_at_k,
    format_table,
    mean_average_precision,
)

pytestmark = pytest.mark.unit


def slow_average_precision(scores, labels):
    """AP of one class from its definition; None without a positive."""
    images = [i for i in range(len(labels)) if labels[i] != 0]
    ranking = sorted(images, key=lambda i: (-scores[i], i))
    hits, precisions = 0, []
    for rank, image in enumerate(ranking, start=1):
        if labels[image] == 1:
            hits += 1
            precisions.append(hits / rank)
    return sum(precisions) / hits if hits else None


def slow_f1(scores, labels, k, leave_out):
    true_positives = positives = given = 0
    for row, own in zip(scores, labels, strict=True):
        if leave_out and not (own == 1).any():
            continue
        top = sorted(range(len(row)), key=lambda c: (-row[c], c))[:k]
        true_positives += sum(own[c] == 1 for c in top)
        positives += (own == 1).sum()
        given += k
    precision, recall = true_positives / given, true_positives / positives
    return 2 * precision * recall / (precision + recall), precision, recall


@pytest.fixture
def test_set(rng):
    """Scores on a coarse grid, so that there are ties; a class and images without positives."""
    scores = rng.integers(0, 8, size=(60, 11)).astype(np.float32)
    labels = rng.choice([-1, 0, 1], p=[0.6, 0.25, 0.15], size=scores.shape)
    labels[:, 4] = -np.abs(labels[:, 4])
    labels[:5] = -1
    return scores, labels


def test_the_figures_are_those_of_the_released_code(golden):
    data = golden["metric_scores"], golden["metric_labels"]
    np.testing.assert_allclose(average_precision(*data), golden["average_precision"], atol=1e-5)
    np.testing.assert_allclose(f1_at_k(*data, 3), golden["f1_at_3"], atol=1e-5)
    np.testing.assert_allclose(f1_at_k(*data, 5), golden["f1_at_5"], atol=1e-5)


def test_average_precision_is_its_definition(test_set):
    scores, labels = test_set
    expected = [slow_average_precision(s, t) for s, t in zip(scores.T, labels.T, strict=True)]
    expected = [np.nan if value is None else value for value in expected]
    result = average_precision(scores, labels, without_positives=np.nan)
    np.testing.assert_allclose(result, expected, rtol=1e-12)
    assert result.dtype == np.float64 and np.isnan(result[4])
    assert average_precision(scores, labels)[4] == 0


@pytest.mark.parametrize("k", [1, 3, 11])
@pytest.mark.parametrize("convention", ["counted", "left_out"])
def test_f1_is_its_definition(test_set, k, convention):
    expected = slow_f1(*test_set, k, leave_out=convention == "left_out")
    np.testing.assert_allclose(f1_at_k(*test_set, k, convention), expected, rtol=1e-12)


def test_working_in_blocks_changes_nothing(test_set, monkeypatch):
    whole = average_precision(*test_set), f1_at_k(*test_set, 3), f1_at_k(*test_set, 3, "left_out")
    monkeypatch.setattr("biam_tf.metrics.slices.BLOCK_SIZE", 100)
    np.testing.assert_array_equal(average_precision(*test_set), whole[0])
    assert f1_at_k(*test_set, 3) == whole[1]
    assert f1_at_k(*test_set, 3, "left_out") == whole[2]


def test_a_perfect_ranking_is_one(test_set):
    _, labels = test_set
    has_positive = (labels == 1).any(axis=0)
    np.testing.assert_array_equal(average_precision(labels.astype(float), labels), has_positive)


def test_permuting_the_classes_permutes_their_average_precisions(test_set, rng):
    scores, labels = test_set
    order = rng.permutation(scores.shape[1])
    np.testing.assert_array_equal(
        average_precision(scores[:, order], labels[:, order]), average_precision(*test_set)[order]
    )


def test_adding_classes_leaves_the_others_average_precision(test_set):
    scores, labels = test_set
    np.testing.assert_array_equal(
        average_precision(scores[:, :6], labels[:, :6]), average_precision(*test_set)[:6]
    )


def test_equal_scores_keep_the_order_of_images_and_of_classes():
    assert average_precision([[1.0], [1.0]], [[1], [-1]]) == [1]
    assert average_precision([[1.0], [1.0]], [[-1], [1]]) == [0.5]
    assert f1_at_k([[1.0, 1.0]], [[1, -1]], 1).f1 == 1
    assert f1_at_k([[1.0, 1.0]], [[-1, 1]], 1).f1 == 0


def test_the_top_k_ranks_classes_of_unknown_label_too():
    assert f1_at_k([[3.0, 2.0, 1.0]], [[0, 1, -1]], 1).precision == 0


def test_f1_without_anything_to_find_is_zero():
    assert f1_at_k([[1.0, 2.0]], [[-1, 0]], 1) == (0, 0, 0)
    assert f1_at_k([[1.0, 2.0]], [[-1, 0]], 1, "left_out") == (0, 0, 0)
    assert f1_at_k(np.zeros((0, 2)), np.zeros((0, 2)), 1) == (0, 0, 0)


def test_mean_average_precision_in_its_three_forms():
    aps, labels = [0.9, 0.3, np.nan], np.array([[1, 1, -1], [1, -1, 0], [1, -1, -1]])
    assert mean_average_precision(aps, labels) == pytest.approx(0.4)
    assert mean_average_precision(aps, labels, without_positives="left_out") == pytest.approx(0.6)
    assert mean_average_precision(aps, labels, weighted=True) == pytest.approx(0.75)
    assert np.isnan(mean_average_precision([0.0], [[-1]], without_positives="left_out"))
    assert np.isnan(mean_average_precision([], np.zeros((3, 0))))


def test_chance_is_the_average_over_random_rankings(rng):
    labels = np.array([[1], [1], [-1], [0], [-1], [-1]])
    drawn = [average_precision(rng.permutation(6)[:, None], labels)[0] for _ in range(4000)]
    np.testing.assert_allclose(chance_average_precision(labels), np.mean(drawn), atol=0.015)
    np.testing.assert_array_equal(chance_average_precision([[1, -1, 0]]), [1, 0, 0])


def test_the_parts_rank_their_own_classes(test_set):
    scores, labels = test_set
    names = [f"class {c}" for c in range(11)]
    unseen = np.arange(11) >= 7
    metrics = evaluate_scores(scores, labels, names, np.where(unseen, "unseen", "seen"))
    assert metrics["images"] == 60
    assert metrics["convention"] == {
        "images_without_positives": "left_out",
        "classes_without_positives": "zero",
    }
    aps = average_precision(scores, labels)
    for part, columns in (("zsl", unseen), ("seen", ~unseen), ("gzsl", unseen | True)):
        own, figures = (scores[:, columns], labels[:, columns]), metrics[part]
        assert figures["mAP"] == pytest.approx(aps[columns].mean())
        assert figures["weighted_mAP"] == mean_average_precision(aps[columns], own[1], True)
        assert figures["F1@3"] == f1_at_k(*own, 3, "left_out")._asdict()
        assert figures["other_convention"]["F1@3"] == f1_at_k(*own, 3, "counted")._asdict()
        assert list(figures["per_class"]) == [n for n, c in zip(names, columns, strict=True) if c]
        assert figures["images_without_positives"] >= 5
    assert metrics["zsl"]["F1@5"] is None and metrics["gzsl"]["F1@5"] is not None
    seen = metrics["seen"]
    assert seen["per_class"]["class 4"] is None and seen["classes_without_positives"] == 1
    assert seen["other_convention"]["mAP"] == pytest.approx(seen["mAP"] * 7 / 6)
    json.dumps(metrics, allow_nan=False)


def test_chance_goes_by_the_same_convention_as_the_map(rng):
    labels = rng.choice([-1, 1], p=[0.7, 0.3], size=(2000, 8))
    labels[:, 0] = -1
    scores = rng.normal(size=labels.shape)
    names = [str(c) for c in range(8)]
    part = evaluate_scores(scores, labels, names, ["seen"] * 8)["seen"]
    assert part["mAP"] == pytest.approx(part["chance_mAP"], abs=0.02)
    assert part["chance_mAP"] == pytest.approx(0.3 * 7 / 8, abs=0.02)


def test_a_group_without_classes_has_no_figures(test_set):
    metrics = evaluate_scores(*test_set, [str(c) for c in range(11)], ["seen"] * 11)
    assert metrics["zsl"] is None
    assert metrics["seen"] == metrics["gzsl"]
    json.dumps(metrics, allow_nan=False)


def test_the_table_reads_in_per_cent():
    scores = np.array([[3.0, 2.0, 1.0, 0.0], [0.0, 1.0, 2.0, 3.0]])
    labels = np.array([[1, 1, -1, -1], [-1, -1, -1, 1]])
    table = format_table(evaluate_scores(scores, labels, "abcd", ["seen"] * 3 + ["unseen"]))
    assert table.splitlines() == [
        "per cent  classes    mAP  weighted mAP  F1@3  F1@5  chance mAP",
        "ZSL             1  100.0         100.0     -     -        75.0",
        "GZSL            4   75.0         100.0  66.7     -        56.2",
        "seen            3   66.7         100.0  80.0     -        50.0",
    ]


def test_a_table_without_unseen_classes_says_so(test_set):
    table = format_table(evaluate_scores(*test_set, list("abcdefghijk"), ["seen"] * 11))
    assert table.splitlines()[1].split() == ["ZSL", "0", *"-----"]


def test_scores_that_are_not_numbers_are_counted_in_the_error():
    scores = np.array([[0.0, np.nan], [np.nan, 1.0]])
    for metric in (average_precision, lambda s, t: f1_at_k(s, t, 1)):
        with pytest.raises(ValueError, match="2 of 4 scores are NaN"):
            metric(scores, np.ones((2, 2)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: f1_at_k(np.zeros((2, 4)), np.zeros((2, 4)), 5), "F1@5: expected K from 1 .* 4"),
        (lambda: f1_at_k(np.zeros((2, 4)), np.zeros((2, 4)), 0), "F1@0: expected K from 1"),
        (lambda: f1_at_k(np.zeros((2, 4)), np.zeros((2, 4)), 1, "dropped"), "'dropped'.*left_out"),
        (lambda: average_precision(np.zeros((2, 4)), np.zeros((2, 3))), r"\(2, 4\).*\(2, 3\)"),
        (lambda: average_precision(np.zeros((1, 2)), [[1, 2]]), r"not \[2\]"),
        (lambda: mean_average_precision([1.0], [[1]], False, "skip"), "'skip'.*'zero'"),
        (lambda: mean_average_precision([1.0], [[1, 1]]), r"\(1,\).*\(1, 2\)"),
        (lambda: evaluate_scores([[1.0]], [[1]], ["a"], ["new"]), "'new'.*'unseen'"),
        (lambda: evaluate_scores([[1.0, 2]], [[1, 1]], "aa", ["seen"] * 2), "1 different"),
    ],
)
def test_wrong_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
