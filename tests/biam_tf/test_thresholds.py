import json

import numpy as np
import pytest

from biam_tf.errors import UserError
from biam_tf.metrics.stacking import seen_unseen_curve
from biam_tf.thresholds import Thresholds, best_cut, fit_thresholds, reason_not_to_fit

pytestmark = pytest.mark.unit

CLASSES = 14
GROUPS = ["seen"] * 10 + ["unseen"] * 4
NAMES = [f"class {c}" for c in range(CLASSES)]


def draw(rng, photos: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores whose true probability is sigmoid(2 s - 3 + d) with an offset d of each class."""
    scores = rng.normal(size=(photos, CLASSES)) * 1.5
    offsets = np.linspace(-1.5, 1.5, CLASSES)
    probabilities = 1 / (1 + np.exp(-(2 * scores - 3 + offsets)))
    return scores, np.where(rng.random(scores.shape) < probabilities, 1, -1)


@pytest.fixture(scope="module")
def data():
    return draw(np.random.default_rng(0), 600)


@pytest.fixture(scope="module")
def fitted(data) -> Thresholds:
    return fit_thresholds(*data, NAMES, GROUPS, seed=1)


def f1(given, labels) -> float:
    right = (given & (labels > 0)).sum()
    return 2 * right / max(1, (given & (labels != 0)).sum() + (labels > 0).sum())


def test_the_best_cut_is_the_best_of_all_cuts(rng):
    for _ in range(30):
        scores = rng.normal(size=25).round(1)
        labels = rng.choice([-1, 0, 1], size=25)
        if not (labels > 0).any():
            continue
        cut = best_cut(scores, labels)
        tried = {c: f1(scores >= c, labels) for c in scores}
        assert f1(scores >= cut, labels) == pytest.approx(max(tried.values()))
        # Of equally good cuts the one that gives the fewest tags.
        given = ((scores >= cut) & (labels != 0)).sum()
        best = [c for c, value in tried.items() if value > max(tried.values()) - 1e-12]
        assert given == min(((scores >= c) & (labels != 0)).sum() for c in best)


def test_the_best_cut_lies_halfway_to_the_next_score():
    assert best_cut([3.0, 1.0, 0.0], [1, -1, -1]) == 2.0
    assert best_cut([3.0, 1.0], [1, 1]) == 1.0  # all are tags
    assert np.isnan(best_cut([3.0, 1.0], [-1, 0]))


def log_likelihood(logits, labels) -> float:
    positives, negatives = (labels > 0).sum(), (labels < 0).sum()
    target = np.where(labels > 0, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    return np.sum(target * logits - np.logaddexp(0, logits))


def test_the_global_calibration_makes_seen_labels_most_likely(data, fitted):
    scores, labels = data[0][:, :10], data[1][:, :10]

    def value(slope, offset) -> float:
        return log_likelihood(slope * scores + offset, labels)

    slope, offset = fitted.global_slope, fitted.global_offset
    for change in (-0.01, 0.01):
        assert value(slope, offset) > max(
            value(slope + change, offset), value(slope, offset + change)
        )


def test_the_calibration_of_seen_classes_is_the_most_probable_one(data, fitted):
    scores, labels = data[0][:, :10], data[1][:, :10]
    slope, offsets = fitted.slopes[0], fitted.offsets[:10]
    assert (fitted.slopes[:10] == slope).all()

    def value(slope, offset, moves) -> float:
        return log_likelihood(slope * scores + offset + moves, labels) - np.sum(moves**2) / 2

    offset = offsets.mean()  # where the moves sum to 0, as the prior makes them
    best = value(slope, offset, offsets - offset)
    for change in (-0.01, 0.01):
        assert best > value(slope + change, offset, offsets - offset)
        assert best > value(slope, offset + change, offsets - offset)
        for c in range(10):
            moved = offsets - offset + change * (np.arange(10) == c)
            assert best > value(slope, offset, moved)


def test_probabilities_come_true_on_other_photos(fitted):
    scores, labels = draw(np.random.default_rng(5), 4000)
    probabilities, present = fitted.probabilities(scores)[:, :10], labels[:, :10] > 0
    for low in np.arange(0, 1, 0.2):
        own = (probabilities >= low) & (probabilities < low + 0.2)
        assert present[own].mean() == pytest.approx(probabilities[own].mean(), abs=0.04)


def test_thresholds_are_near_the_best_of_other_photos(fitted):
    scores, labels = draw(np.random.default_rng(6), 4000)
    given = fitted.decide(scores)
    for c in range(10):
        best = max(f1(scores[:, c] >= cut, labels[:, c]) for cut in np.linspace(-4, 5, 181))
        assert f1(given[:, c], labels[:, c]) > best - 0.05


def test_labels_of_unseen_classes_change_neither_calibration_nor_thresholds(data, fitted):
    scores, labels = data[0], data[1].copy()
    labels[:, 10:] *= -1
    other = fit_thresholds(scores, labels, NAMES, GROUPS, seed=1)
    np.testing.assert_array_equal(other.cuts, fitted.cuts)
    np.testing.assert_array_equal(other.offsets, fitted.offsets)
    assert other.sources == fitted.sources and set(fitted.sources[10:]) == {"standardized"}
    assert other.fitted_on == fitted.fitted_on and other.stacking != fitted.stacking


def test_an_unseen_class_is_treated_alike_whatever_the_level_of_its_scores(data, fitted):
    scores = data[0].copy()
    scores[:, 11] = 3 * scores[:, 11] - 40
    other = fit_thresholds(scores, data[1], NAMES, GROUPS, seed=1)
    np.testing.assert_allclose(other.probabilities(scores), fitted.probabilities(data[0]))
    np.testing.assert_array_equal(other.decide(scores), fitted.decide(data[0]))


def test_unseen_classes_take_the_seen_classes_best_cut_of_standardized_scores(data, fitted):
    scores, labels = data
    z = (scores - scores.mean(axis=0)) / scores.std(axis=0)
    fold_of = np.random.default_rng(1).permutation(np.arange(len(scores)) % 5)
    cut = np.mean(
        [best_cut(z[fold_of != f][:, :10], labels[fold_of != f][:, :10]) for f in range(5)]
    )
    np.testing.assert_array_equal(fitted.decide(scores)[:, 10:], z[:, 10:] >= cut)
    # Nothing tells what these scores mean, so they get no probability.
    assert np.isnan(fitted.probabilities(scores)[:, 10:]).all()
    assert not np.isnan(fitted.probabilities(scores)[:, :10]).any()


def test_a_class_without_positives_takes_the_global_cut_through_its_own_calibration(data):
    scores, labels = data[0], data[1].copy()
    labels[:, 4] = -1
    fitted = fit_thresholds(scores, labels, NAMES, GROUPS)
    assert fitted.sources[4] == "global" and fitted.offsets[4] < fitted.offsets[[3, 5]].min()
    at_cut = fitted.slopes[4] * fitted.cuts[4] + fitted.offsets[4]
    assert at_cut == pytest.approx(fitted.global_logit)
    assert fitted.fitted_on["seen_classes_without_positives"] == 1


def test_a_class_with_few_photos_has_no_threshold_of_its_own(data):
    scores, labels = data[0], data[1].copy()
    labels[:, 3] = np.where(np.arange(len(labels)) < 7, 1, -1)
    assert fit_thresholds(scores, labels, NAMES, GROUPS).sources[3] == "global"


def test_own_thresholds_are_those_that_did_better_on_photos_left_out(data):
    """The rule once more, fold by fold and class by class."""
    scores, labels = data
    fitted = fit_thresholds(scores, labels, NAMES, GROUPS, folds=3, seed=2)
    fold_of = np.random.default_rng(2).permutation(np.arange(len(scores)) % 3)
    own_tags, cuts = np.zeros(scores.shape, bool), np.zeros((3, CLASSES))
    global_tags, logits = np.zeros(scores.shape, bool), []
    for fold in range(3):
        rest, out = fold_of != fold, fold_of == fold
        part = fit_thresholds(scores[rest], labels[rest], NAMES, GROUPS)
        calibrated = part.slopes * scores + part.offsets
        logits.append(best_cut(calibrated[rest][:, :10], labels[rest][:, :10]))
        global_tags[out] = calibrated[out] >= logits[-1]
        for c in range(10):
            cuts[fold, c] = best_cut(scores[rest, c], labels[rest, c])
        own_tags[out] = scores[out] >= cuts[fold]
    assert fitted.global_logit == pytest.approx(np.mean(logits))
    for c in range(10):
        own, other = (f1(tags[:, c], labels[:, c]) for tags in (own_tags, global_tags))
        assert fitted.sources[c] == ("own" if own > other else "global")
        if own > other:
            assert fitted.cuts[c] == pytest.approx(cuts[:, c].mean())
    assert "own" in fitted.sources[:10] and "global" in fitted.sources[:10]


def test_the_seed_fixes_the_fit(data, fitted):
    again, other = (fit_thresholds(*data, NAMES, GROUPS, seed=seed) for seed in (1, 2))
    assert again.to_json() == fitted.to_json() != other.to_json()


def test_a_file_of_thresholds_is_read_back_to_the_same(fitted, tmp_path):
    path = tmp_path / "thresholds.json"
    path.write_text(fitted.to_json(), encoding="utf-8")
    assert Thresholds.load(path).to_json() == fitted.to_json()
    entry = json.loads(path.read_text())["classes"][3]
    assert entry["name"] == "class 3" and entry["threshold"] == fitted.cuts[3]


@pytest.mark.parametrize(
    "text", ["", "[]", '{"format": 2}', '{"format": 3}', '{"format": 1, "classes": [{}]}']
)
def test_a_file_that_is_none_is_named(tmp_path, text):
    path = tmp_path / "thresholds.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"thresholds\.json: not a file of thresholds"):
        Thresholds.load(path)


def test_classes_named_later_take_the_global_cut_and_no_probability(fitted):
    other = fitted.for_names(["new", "class 2"])
    assert other.cuts.tolist() == [fitted.global_cut, fitted.cuts[2]]
    assert other.sources == ("global", fitted.sources[2])
    cut = other.global_cut
    assert other.decide([[cut, 0.0], [cut - 1e-9, 0.0]])[:, 0].tolist() == [True, False]
    assert np.isnan(other.probabilities([cut, 0.0])).tolist() == [True, False]


def test_the_constant_of_stacking_is_validations_best(data, fitted):
    curve = seen_unseen_curve(*data, GROUPS, 3)
    assert fitted.stacking["constant"] == curve.best_constant()
    labels = data[1].copy()
    labels[:, 10:] = -1
    assert fit_thresholds(data[0], labels, NAMES, GROUPS).stacking is None


def test_scores_that_tell_nothing_still_give_finite_thresholds(rng):
    labels = np.where(rng.random((40, CLASSES)) < 0.2, 1, -1)
    fitted = fit_thresholds(np.zeros(labels.shape), labels, NAMES, GROUPS)
    assert np.isfinite(fitted.cuts).all()
    assert fitted.probabilities(np.zeros(CLASSES))[:10] == pytest.approx(0.2, abs=0.1)


def test_few_labeled_photos_among_many_are_enough(rng):
    labels = np.zeros((400, CLASSES), int)
    labels[[3, 200, 201]] = -1
    labels[200, 1] = 1
    for seed in range(5):
        fitted = fit_thresholds(rng.normal(size=labels.shape), labels, NAMES, GROUPS, seed=seed)
        assert np.isfinite(fitted.cuts).all() and np.isfinite(fitted.offsets[:10]).all()
        assert fitted.fitted_on["images"] == fitted.fitted_on["folds"] == 3


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            np.eye(3, CLASSES, dtype=int) * [[1], [0], [0]],
            "1 validation photos have labels of seen classes; at least 2",
        ),
        (-np.ones((9, CLASSES)), "no validation photo shows a seen class"),
        (np.ones((9, CLASSES)), "or every one shows all of them"),
    ],
)
def test_labels_that_allow_no_thresholds_are_named(labels, message):
    assert message in reason_not_to_fit(labels, GROUPS)
    with pytest.raises(UserError, match=message):
        fit_thresholds(np.zeros(labels.shape), labels, NAMES, GROUPS)
