import numpy as np
import pytest

from biam_tf.errors import UserError
from biam_tf.metrics.cuts import F1, Target
from biam_tf.metrics.held_out import HeldOutFold, fit_held_out, read_folds
from biam_tf.thresholds import Fitting, Thresholds, fit_thresholds

pytestmark = pytest.mark.unit

PHOTOS, SEEN = 3000, 12
UNTRAINED = (0.5, -1.5)  # slope and offset of the logits of classes that were not trained


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.fixture(scope="module")
def truth():
    """Logits that are right for trained classes, and labels of 12 classes; the first 4 left out."""
    rng = np.random.default_rng(3)
    logits = rng.normal(-2, 2, (PHOTOS, SEEN))
    right = logits.copy()
    right[:, :4] = UNTRAINED[0] * logits[:, :4] + UNTRAINED[1]
    labels = np.where(rng.random(right.shape) < sigmoid(right), 1, -1)
    return logits, labels


def fold_of(logits, slope: float, offset: float) -> HeldOutFold:
    """A fold whose scores have these logits by the calibration of its trained classes."""
    scores = ((logits - offset) / slope).astype(np.float32)
    return HeldOutFold(np.arange(len(logits)), np.arange(SEEN), np.arange(SEEN) < 4, scores)


def test_the_rule_of_untrained_classes_is_found_whatever_the_scale_of_the_scores(truth):
    logits, labels = truth
    for slope, offset in ((1.0, 0.0), (0.2, 7.0)):
        found = fit_held_out([fold_of(logits, slope, offset)], labels, F1)
        assert found.untrained.slope == pytest.approx(UNTRAINED[0], abs=0.08)
        assert found.untrained.offset == pytest.approx(UNTRAINED[1], abs=0.15)
        assert found.trained is None and found.classes == 4


def test_an_unseen_class_is_calibrated_by_the_classes_left_out(truth):
    """The run's own scores are on another scale; unseen and named classes take the same rule."""
    logits, labels = truth
    rng = np.random.default_rng(4)
    unseen_logits = rng.normal(-1, 2, (PHOTOS, 1))
    run_scores = np.hstack([logits, unseen_logits]) * 3 + 5
    run_labels = np.hstack([labels, -np.ones((PHOTOS, 1))])
    names, groups = [f"class {c}" for c in range(13)], ["seen"] * 12 + ["unseen"]
    held_out = [fold_of(logits, 1.0, 0.0)]
    fitting = Fitting(held_out=held_out)
    fitted = fit_thresholds(run_scores, run_labels, names, groups, fitting=fitting)
    named = fitted.for_names(["a new one"])
    rule = fit_held_out(held_out, run_labels, F1)
    expected = rule.untrained.of(fitted.global_slope * run_scores[:, 12] + fitted.global_offset)
    np.testing.assert_allclose(fitted.probabilities(run_scores)[:, 12], sigmoid(expected))
    assert named.slopes[0] == fitted.slopes[12] and named.cuts[0] == fitted.cuts[12]
    assert fitted.sources[12] == named.sources[0] == "held_out"
    assert fitted.slopes[12] * fitted.cuts[12] + fitted.offsets[12] == pytest.approx(rule.cut)
    other = run_labels.copy()
    other[:, 12] = 1  # no label of an unseen class counts
    again = fit_thresholds(run_scores, other, names, groups, fitting=fitting)
    np.testing.assert_array_equal(again.cuts, fitted.cuts)
    np.testing.assert_array_equal(again.offsets, fitted.offsets)


def test_photos_without_unseen_classes_make_others_less_certain():
    """Held-out objects raise scores of trained classes, as unseen ones will; classes are rarer."""
    rng = np.random.default_rng(5)
    labels = np.where(rng.random((PHOTOS, SEEN)) < 0.1, 1, -1)
    scores = np.where(labels > 0, 3.0, -3.0) + rng.normal(0, 1.5, labels.shape)
    confused = (labels[:, :4] > 0).any(axis=1)
    scores[confused, 4:] += 2.0
    fold = HeldOutFold(np.arange(PHOTOS), np.arange(SEEN), np.arange(SEEN) < 4, scores)
    natural = fit_held_out([fold], labels, F1)
    chosen = fit_held_out([fold], labels, F1, share_of_unseen=1 / 3)
    assert natural.trained is None and chosen.trained.slope < 0.8
    # A trained class with the logit 3 among photos without unseen classes is right less often.
    assert chosen.trained.of(3.0) < 2.0


def test_thresholds_can_aim_at_a_precision(truth):
    logits, labels = truth
    target = Target(0.8)
    cut = target.cut(logits, labels)
    tags = logits >= cut
    assert (labels[tags] > 0).mean() >= 0.8
    lower = np.unique(logits[logits < cut])[-200:]  # no lower cut is good enough
    assert all((labels[logits >= c] > 0).mean() < 0.8 for c in lower)
    assert target.cut([3.0, 2.0, 1.0], [-1, 1, -1]) > 3.0  # no cut reaches it: no tag


def test_scores_of_folds_are_read_back_and_damage_is_named(truth, tmp_path):
    fold = fold_of(truth[0], 1.0, 0.0)
    fold.save(tmp_path / "fold_1.npz")
    assert read_folds(tmp_path, 2) == [] == read_folds(tmp_path, 0)  # one of two is missing
    (read,) = read_folds(tmp_path, 1)
    np.testing.assert_array_equal(read.scores, fold.scores)
    (tmp_path / "fold_1.npz").write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(UserError, match=r"fold_1\.npz: damaged"):
        read_folds(tmp_path, 1)


def test_few_validation_photos_give_no_probability(truth):
    logits, labels = truth
    names, groups = [f"class {c}" for c in range(SEEN)], ["seen"] * SEEN
    few = fit_thresholds(logits[:49], labels[:49], names, groups, fitting=Fitting(fewest_photos=50))
    assert np.isnan(few.probabilities(logits)).all() and np.isfinite(few.cuts).all()
    enough = fit_thresholds(
        logits[:50], labels[:50], names, groups, fitting=Fitting(fewest_photos=50)
    )
    assert np.isfinite(enough.probabilities(logits)).all()
    assert few.fitted_on["fewest_images"] == 50


def test_files_say_where_there_is_no_probability(truth, tmp_path):
    logits, labels = truth
    names, groups = [f"class {c}" for c in range(SEEN)], ["seen"] * 10 + ["unseen"] * 2
    fitted = fit_thresholds(logits, labels, names, groups)
    path = tmp_path / "thresholds.json"
    path.write_text(fitted.to_json(), encoding="utf-8")
    read = Thresholds.load(path)
    assert np.isnan(read.slopes[10:]).all() and np.isnan(read.rule.slopes).all()
    assert read.to_json() == fitted.to_json()
