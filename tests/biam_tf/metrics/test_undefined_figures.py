"""What cannot be measured is null, and every mean says how many classes it is over."""

import itertools
import json

import numpy as np
import pytest

from biam_tf.metrics import average_precision, evaluate_scores, f1_at_k, format_table
from biam_tf.metrics.bootstrap import (
    average_precision_of_draws,
    bootstrap_differences,
    bootstrap_intervals,
    draw_counts,
)
from biam_tf.metrics.decisions import decision_f1, f1_at_threshold
from biam_tf.metrics.figures_by_part import (
    counted_classes,
    leaving_out,
    notes_on_classes,
    of_one_convention,
)

pytestmark = pytest.mark.unit

NAMES = list("abcdef")
GROUPS = ["seen"] * 4 + ["unseen"] * 2
LEFT_OUT = {"classes_without_positives": "left_out"}
PARTS = {"zsl": slice(4, 6), "gzsl": slice(0, 6), "seen": slice(0, 4)}


@pytest.fixture
def test_set(rng):
    """Class b has no positive, class c no negative, class f neither; some labels are unknown."""
    scores = rng.normal(size=(30, 6))
    labels = rng.choice([-1, 0, 1], p=[0.5, 0.2, 0.3], size=scores.shape)
    labels[:, 1] = np.minimum(labels[:, 1], 0)
    labels[:, 2] = np.maximum(labels[:, 2], 0)
    labels[:, 5] = 0
    return scores, labels


def naive_average_precision(scores, labels):
    """Of a class, by the definition; None where every ranking gives the same value."""
    ranking = sorted((i for i in range(len(labels)) if labels[i]), key=lambda i: (-scores[i], i))
    hits = [rank for rank, image in enumerate(ranking, start=1) if labels[image] > 0]
    if not hits or len(hits) == len(ranking):
        return None
    return sum(n / rank for n, rank in enumerate(hits, start=1)) / len(hits)


def test_only_classes_with_a_positive_and_a_negative_count(test_set):
    scores, labels = test_set
    metrics = evaluate_scores(scores, labels, NAMES, GROUPS, **LEFT_OUT)
    aps = [naive_average_precision(scores[:, c], labels[:, c]) for c in range(6)]
    assert [c for c, ap in enumerate(aps) if ap is None] == [1, 2, 5]
    for part, columns in PARTS.items():
        own, found = aps[columns], metrics[part]
        defined = [ap for ap in own if ap is not None]
        assert found["mAP"] == pytest.approx(np.mean(defined))
        weights = [(labels[:, c] > 0).sum() for c in range(6)][columns]
        pairs = [(ap, w) for ap, w in zip(own, weights, strict=True) if ap is not None]
        expected = sum(ap * w for ap, w in pairs) / sum(w for _, w in pairs)
        assert found["weighted_mAP"] == pytest.approx(expected)
        assert found["classes_counted"] == len(defined)
        assert list(found["per_class"].values()) == pytest.approx(own)
    seen = metrics["seen"]
    assert (seen["classes"], seen["classes_counted"]) == (4, 2)
    assert (seen["classes_without_positives"], seen["classes_without_negatives"]) == (1, 1)
    json.dumps(metrics, allow_nan=False)


def test_the_published_convention_counts_classes_without_a_positive_as_zero_and_says_so(test_set):
    scores, labels = test_set
    metrics = evaluate_scores(scores, labels, NAMES, GROUPS)
    left_out = evaluate_scores(scores, labels, NAMES, GROUPS, **LEFT_OUT)
    seen = metrics["seen"]
    assert seen["classes_counted"] == 3  # the one without a negative still says nothing
    assert seen["mAP"] == pytest.approx(left_out["seen"]["mAP"] * 2 / 3)
    assert seen["other_convention"]["mAP"] == left_out["seen"]["mAP"]
    assert seen["other_convention"]["classes_counted"] == 2
    assert "1 have no photo that shows them and count as 0" in notes_on_classes(metrics)[-1]
    assert all("count as 0" not in note for note in notes_on_classes(left_out))


@pytest.mark.parametrize("convention", ["zero", "left_out"])
@pytest.mark.parametrize(("label", "f1_is_defined"), [(-1, False), (0, False), (1, True)])
def test_labels_of_one_kind_give_no_figures(rng, convention, label, f1_is_defined):
    scores, labels = rng.normal(size=(12, 6)), np.full((12, 6), label)
    metrics = evaluate_scores(scores, labels, NAMES, GROUPS, classes_without_positives=convention)
    for part in PARTS:
        found = metrics[part]
        assert found["mAP"] is found["weighted_mAP"] is found["chance_mAP"] is None
        assert found["other_convention"]["mAP"] is None
        assert found["classes_counted"] == 0
        assert set(found["per_class"].values()) == {None}
    assert (metrics["gzsl"]["F1@3"] is not None) == f1_is_defined
    rows = [line.split() for line in format_table(metrics).splitlines()[1:]]
    assert [row[1:4] for row in rows] == [["0", "of", "2"], ["0", "of", "6"], ["0", "of", "4"]]
    assert all(row[4] == "-" for row in rows)
    reason = "no photo known" if label == 1 else "no photo shows"
    notes = notes_on_classes(metrics)
    assert len(notes) == 3 and ("known not to show" if label == 1 else reason) in notes[0]
    assert bootstrap_intervals(scores, labels, GROUPS, resamples=5).get("zsl", {}).keys() <= {
        "F1@3"
    }
    given = scores > 0
    assert decision_f1(given, labels)["micro"] == dict.fromkeys(("f1", "precision", "recall"))
    assert f1_at_threshold(given, labels, GROUPS)["seen"]["macro"]["f1"] is None


def test_a_table_names_the_classes_that_count(test_set):
    table = format_table(evaluate_scores(*test_set, NAMES, GROUPS, **LEFT_OUT))
    assert "1 of 2" in table and "3 of 6" in table and "2 of 4" in table


def test_macro_f1_is_over_the_classes_of_map(test_set):
    scores, labels = test_set
    given = scores > 0.3
    found = f1_at_threshold(given, labels, GROUPS, "left_out")["seen"]["macro"]
    f1s = []
    for c in (0, 3):  # of the seen ones, b and c are undefined
        right = (given[:, c] & (labels[:, c] > 0)).sum()
        wrong = (given[:, c] & (labels[:, c] < 0)).sum()
        missed = (~given[:, c] & (labels[:, c] > 0)).sum()
        f1s.append(2 * right / (2 * right + wrong + missed))
    assert found["f1"] == pytest.approx(np.mean(f1s))
    with_zero = f1_at_threshold(given, labels, GROUPS)["seen"]["macro"]
    assert with_zero["f1"] == pytest.approx(np.mean([*f1s, 0]))


def drawn(counts, b):
    return np.repeat(np.arange(len(counts)), counts[:, b])


def test_intervals_are_over_the_draws_in_which_a_figure_is_defined(rng):
    # Class a has one positive, class b one negative: many draws have neither.
    scores = rng.normal(size=(10, 3))
    labels = np.array([[1] + [-1] * 9, [-1] + [1] * 9, [1, -1] * 5]).T
    counts = draw_counts(10, 200, seed=4)
    found = average_precision_of_draws(scores, labels, counts)
    maps, f1s = [], []
    for b in range(200):
        rows = drawn(counts, b)
        aps = [naive_average_precision(scores[rows, c], labels[rows, c]) for c in range(3)]
        np.testing.assert_allclose(found[b], [np.nan if ap is None else ap for ap in aps])
        maps.append(np.mean([ap for ap in aps if ap is not None]) if any(aps) else np.nan)
        f1s.append(f1_at_k(scores[rows], labels[rows], 2, "left_out").f1)
    assert np.isnan(found).any(axis=0).tolist()[:2] == [True, True]
    own = bootstrap_intervals(scores, labels, ["seen"] * 3, 2, 4, 200, **LEFT_OUT)["seen"]
    estimate = evaluate_scores(scores, labels, "abc", ["seen"] * 3, ks=(2,), **LEFT_OUT)["seen"]
    for draws, value, interval in (
        (maps, estimate["mAP"], own["mAP"]),
        (f1s, estimate["F1@2"]["f1"], own["F1@2"]),
    ):
        draws = np.array(draws)[~np.isnan(draws)]
        low, high = np.quantile(draws, [0.025, 0.975]) - draws.mean() + value
        assert [interval.low, interval.high] == pytest.approx(np.clip([low, high], 0, 1))


def test_the_interval_of_a_rare_class_has_no_draws_without_it(rng):
    # One positive, ranked first: whenever it is drawn, its average precision is 1.
    scores, labels = np.arange(20.0)[:, None], np.array([[-1]] * 19 + [[1]])
    own = bootstrap_intervals(scores, labels, ["seen"], resamples=100, **LEFT_OUT)["seen"]["mAP"]
    assert (own.low, own.high) == (1.0, 1.0)


def test_differences_go_by_the_same_convention(test_set):
    scores, labels = test_set
    better = scores + labels
    both = [
        bootstrap_differences([scores, better], labels, GROUPS, resamples=20, **convention)[0]
        for convention in ({}, LEFT_OUT)
    ]
    maps = [
        evaluate_scores(own, labels, NAMES, GROUPS, **LEFT_OUT)["seen"]["mAP"]
        for own in (scores, better)
    ]
    zero, left_out = (own["seen"]["mAP"].estimate for own in both)
    assert left_out == pytest.approx(maps[1] - maps[0])
    assert zero == pytest.approx(left_out * 2 / 3)


def early(metrics):
    """Metrics as version 0.1 wrote them: 0 for what is undefined, and no number of classes."""
    value = json.loads(json.dumps(metrics))
    for part in PARTS:
        own = value[part]
        del own["classes_counted"], own["classes_without_negatives"]
        del own["other_convention"]["classes_counted"]
        for key in ("mAP", "weighted_mAP", "chance_mAP"):
            own[key] = 0.0 if own[key] is None else own[key]
    return value


def test_metrics_of_early_versions_are_compared_by_the_classes_that_have_positives(rng):
    scores = rng.normal(size=(40, 6))
    labels = rng.choice([-1, 1], p=[0.7, 0.3], size=scores.shape)
    labels[:, [1, 4, 5]] = -1
    now = evaluate_scores(scores, labels, NAMES, GROUPS, **LEFT_OUT)
    before = early(evaluate_scores(scores, labels, NAMES, GROUPS))
    assert before["seen"]["mAP"] == pytest.approx(now["seen"]["mAP"] * 3 / 4)
    found, same = of_one_convention([before, now])
    assert same == now
    for part in PARTS:
        for key in ("mAP", "weighted_mAP", "chance_mAP", "classes_counted"):
            expected = now[part][key]
            assert found[part][key] == (expected and pytest.approx(expected)), (part, key)
    assert found == leaving_out(before)
    # Beside one another they stay what they are, but for what is undefined.
    (alone,) = of_one_convention([before])
    assert alone["zsl"]["mAP"] is None and alone["seen"] == before["seen"]
    assert counted_classes(before, "seen") == (4, 4) and counted_classes(before, "zsl") == (0, 2)
    assert "count as 0" in notes_on_classes(before)[-1]
    assert format_table(before).splitlines()[1].split()[4] == "-"


def test_what_no_label_contradicts_is_not_measured_by_brute_force(rng):
    """All label matrices of 3 images and 1 class: a figure is there where scores can matter."""
    scores = rng.normal(size=(3, 1))
    for labels in itertools.product([-1, 0, 1], repeat=3):
        own = np.array(labels)[:, None]
        values = {float(average_precision(s[:, None], own)[0]) for s in itertools_scores()}
        found = evaluate_scores(scores, own, "a", ["seen"], ks=(), **LEFT_OUT)["seen"]["mAP"]
        assert (found is None) == (len(values) == 1)


def itertools_scores():
    return [np.array(order, float) for order in itertools.permutations(range(3))]
