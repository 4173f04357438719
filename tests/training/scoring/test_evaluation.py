import numpy as np
import pytest

from biam_tf.metrics import evaluate_scores, format_table
from biam_tf.metrics.stacking import harmonic_mean
from biam_tf.thresholds import fit_thresholds
from training.scoring.evaluation import format_figures, stacking_curve, stacking_figures

pytestmark = pytest.mark.unit

GROUPS = ["seen"] * 4 + ["unseen"] * 2


@pytest.fixture
def test_set(rng):
    labels = rng.choice([-1, 1], p=[0.7, 0.3], size=(40, 6))
    return labels + rng.normal(size=labels.shape) + 2 * (np.arange(6) < 4), labels


def test_stacking_is_told_without_a_constant_and_with_validations_best(test_set):
    scores, labels = test_set
    curve = stacking_curve(scores, labels, GROUPS)
    thresholds = fit_thresholds(scores, labels, list("abcdef"), GROUPS)
    found = stacking_figures(curve, thresholds)
    seen, unseen = curve.at(0.0)
    both = float(harmonic_mean(seen, unseen))
    expected = {"seen_recall": seen, "unseen_recall": unseen, "harmonic_mean": both}
    assert found["without_constant"] == pytest.approx(expected)
    assert found["best_constant_on_validation"] == curve.best_constant() > 0
    best = found["with_best_constant"]["harmonic_mean"]
    assert best == pytest.approx(harmonic_mean(curve.seen, curve.unseen).max())
    assert found["area"] == curve.area
    without = stacking_figures(curve, None)
    assert without["best_constant_on_validation"] is without["with_best_constant"] is None


def test_there_is_no_curve_without_labels_of_both_groups(test_set):
    scores, labels = test_set
    assert stacking_curve(scores, labels, ["seen"] * 6) is None
    assert stacking_curve(scores, np.where(np.arange(6) < 4, labels, -1), GROUPS) is None


def test_figures_are_told_as_far_as_there_are_any(test_set):
    metrics = evaluate_scores(*test_set, list("abcdef"), GROUPS)
    assert format_figures(metrics) == format_table(metrics)  # of a run made by an older version
    metrics["at_threshold"] = {
        "zsl": None,
        "gzsl": {kind: {"f1": 0.5} for kind in ("micro", "macro", "sample")},
        "seen": {"micro": {"f1": 1.0}, "macro": {"f1": 0.25}, "sample": {"f1": 0.0}},
        "tags_per_image": 2.54,
    }
    recalls = {"seen_recall": 0.5, "unseen_recall": 0.125}
    metrics["calibrated_stacking"] = {
        "k": 3,
        "area": 0.25,
        "without_constant": recalls,
        "best_constant_on_validation": 1.5,
        "with_best_constant": {"seen_recall": 0.4, "unseen_recall": 0.3},
    }
    assert format_figures(metrics).splitlines()[4:] == [
        "",
        "at threshold   micro F1   macro F1  sample F1",
        "GZSL               50.0       50.0       50.0",
        "seen              100.0       25.0        0.0",
        "2.5 tags a photo",
        "",
        "recall@3 of all classes' joint ranking, seen and unseen labels: 50.0 and 12.5; with 1.50 "
        "subtracted from seen scores: 40.0 and 30.0; area under the curve 0.250",
    ]
