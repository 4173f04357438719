import pathlib
import subprocess
import sys

import numpy as np
import pytest

from biam_tf.errors import UserError
from biam_tf.metrics import average_precision, evaluate_scores, stored_scores
from biam_tf.metrics.bootstrap import bootstrap_intervals
from biam_tf.metrics.decisions import Decisions, f1_at_threshold
from biam_tf.metrics.stacking import seen_unseen_curve
from biam_tf.metrics.stored_scores import StoredScores, by_class, collect_scores
from biam_tf.thresholds import fit_thresholds

pytestmark = pytest.mark.unit

NAMES = [f"class {c}" for c in range(9)]
GROUPS = ["seen", "unseen", "seen"] * 3


@pytest.fixture
def test_set(rng):
    scores = rng.normal(size=(70, 9)).round(1).astype(np.float32)
    return scores, rng.choice([-1, 0, 1], p=[0.6, 0.2, 0.2], size=scores.shape).astype(np.int8)


@pytest.fixture
def stored(test_set, monkeypatch):
    """The scores in a file: tiles of 11 rows, the last of 4, from batches of 8."""
    monkeypatch.setattr(stored_scores, "_TILE", 100)
    monkeypatch.setattr(stored_scores, "IN_MEMORY", 0)
    scores, _ = test_set
    return collect_scores((scores[i : i + 8] for i in range(0, 70, 8)), *scores.shape)


def test_any_rows_and_columns_come_back(test_set, stored):
    scores, _ = test_set
    assert isinstance(stored, StoredScores) and stored.tile == 11
    assert stored.shape == (70, 9) and stored.nbytes == scores.nbytes and stored.nans == 0
    for rows in (slice(0, 70), slice(5, 40), slice(11, 22), slice(69, None), slice(30, 30)):
        np.testing.assert_array_equal(stored[rows], scores[rows])
    for columns in (3, -1, slice(2, 7), slice(None), slice(4, 4)):
        np.testing.assert_array_equal(stored[:, columns], scores[:, columns])


def test_figures_of_scores_in_a_file_are_the_same_to_the_last_bit(test_set, stored):
    scores, labels = test_set
    for of in (
        lambda s: evaluate_scores(s, labels, NAMES, GROUPS),
        lambda s: average_precision(s, labels).tolist(),
        lambda s: bootstrap_intervals(s, labels, GROUPS, resamples=100),
        lambda s: seen_unseen_curve(s, labels, GROUPS).constants.tolist(),
        lambda s: f1_at_threshold(Decisions(s, np.zeros(9)), labels, GROUPS),
        lambda s: Decisions(s, np.zeros(9)).tags_per_image(),
        lambda s: fit_thresholds(s, labels, NAMES, GROUPS).to_json(),
    ):
        assert of(stored) == of(scores)


def test_small_scores_stay_in_memory(test_set):
    scores, _ = test_set
    found = collect_scores([scores[:30].astype(np.float16), scores[30:]], 70, 9)
    assert isinstance(found, np.ndarray) and found.dtype == np.float32
    np.testing.assert_array_equal(found[30:], scores[30:])


@pytest.mark.parametrize("in_memory", [0, 2**30])
@pytest.mark.parametrize(("rows", "message"), [(4, "4 .*5"), (6, "6 rows.*expected 5")])
def test_another_number_of_rows_than_announced_is_named(in_memory, rows, message, monkeypatch):
    monkeypatch.setattr(stored_scores, "IN_MEMORY", in_memory)
    with pytest.raises(ValueError, match=message):
        collect_scores([np.zeros((rows, 2), np.float32)], 5, 2)[:5]


def test_nan_in_a_file_is_counted_in_the_error(rng):
    stored = StoredScores(2, 2)
    stored.append([[np.float32(1), np.float32(np.nan)]])
    stored.append(np.array([[np.nan, 0]], np.float16))
    with pytest.raises(ValueError, match="2 of 4 scores are NaN"):
        average_precision(stored, np.ones((2, 2), np.int8))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda s: s.append(np.zeros((1, 3), np.float32)), ValueError, r"\(1, 3\).*\(n, 2\)"),
        (lambda s: s.append(np.zeros((1, 2))), ValueError, "float32, which .* float64"),
        (lambda s: s[::2], TypeError, "steps of 1"),
        (lambda s: s[[0]], TypeError, r"not by \[0\]"),
        (lambda s: s[:, 2], IndexError, "column 2 of 2"),
        (lambda s: np.asarray(s), TypeError, "not read into memory at once"),
    ],
)
def test_what_a_file_does_not_do_is_named(call, error, message):
    stored = StoredScores(1, 2)
    if "append" not in call.__code__.co_names:
        stored.append(np.zeros((1, 2), np.float32))
    with pytest.raises(error, match=message):
        call(stored)


def test_a_folder_without_room_is_named():
    with pytest.raises(UserError, match=r"4000000\.0 GB of scores .* TMPDIR"):
        StoredScores(10**9, 10**6)


@pytest.mark.parametrize("images", [1, 255, 256, 600])
def test_classes_become_rows(images):
    matrix = np.arange(images * 7).reshape(images, 7)
    np.testing.assert_array_equal(by_class(matrix[:, 1:5]), matrix[:, 1:5].T)
    assert by_class(matrix).flags.c_contiguous


@pytest.mark.integration
@pytest.mark.skipif(not pathlib.Path("/proc/self/status").exists(), reason="reads /proc")
@pytest.mark.parametrize("kept", ["in memory", "in a file"])
def test_figures_take_no_more_memory_than_announced(kept):
    """In a process of its own: 20,000 x 1,500, 120 MB of scores and 30 MB of labels."""
    program = f"""
import numpy as np
from biam_tf import metrics
from biam_tf.metrics import slices, stored_scores
def peak():
    status = open("/proc/self/status").read()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])
images, classes = 20_000, 1_500
stored_scores.IN_MEMORY = {2**30 if kept == "in memory" else 0}
slices.BLOCK_SIZE = 500_000  # 24 MB
stored_scores._TILE = 250_000  # half as much
rng = np.random.default_rng(0)
labels = np.full((images, classes), -1, np.int8)
labels[np.arange(images), rng.integers(classes, size=images)] = 1
names, groups = [str(c) for c in range(classes)], ["seen"] * 1_400 + ["unseen"] * 100
batch = rng.random((500, classes), np.float32)
metrics.evaluate_scores(batch, labels[:500], names, groups)
before = peak()
batches = (rng.random((500, classes), np.float32) for _ in range(images // 500))
scores = stored_scores.collect_scores(batches, images, classes)
metrics.evaluate_scores(scores, labels, names, groups)
print(peak() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    kept_scores = 20_000 * 1_500 * 4 if kept == "in memory" else 0
    assert int(done.stdout) < kept_scores + 60e6
