"""Speed and memory of average precision and F1@K: `python -m benchmarks.evaluation`.

20,000 photos and 7,586 classes (Open Images has 7,186 seen and 400 unseen ones), random scores, 8
labels per photo with a long-tailed class distribution. Average precision is compared in turns with
a loop that sorts the scores of each class (NumPy) and with scikit-learn's average_precision_score
(extra [report]); F1@5 with a loop over photos. The loops are measured on some of the classes or
photos, each of which takes the same time, and the times are multiplied. Then the 125,456 photos of
Open Images' test set are evaluated, with scores in a file, in a process limited to 4 GB.

--smoke uses small sizes and compares the results.
"""

import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence

import numpy as np

from benchmarks.shared.benchmark_command import benchmark_command
from benchmarks.shared.evaluation_process import evaluate_in_own_process, random_labels
from benchmarks.shared.timing import in_turns, ratios
from biam_tf.errors import UserError
from biam_tf.metrics import average_precision, evaluate_scores, f1_at_k
from biam_tf.metrics.slices import threads
from training.tables.table import Table

SEEN, UNSEEN = 7_186, 400
IN_MEMORY, OPEN_IMAGES = 20_000, 125_456
LOOPED_CLASSES, LOOPED_PHOTOS, ROUNDS = 200, 500, 3
MEMORY_LIMIT = 4_000_000_000
SMOKE_PHOTOS, SMOKE_SEEN, SMOKE_UNSEEN = 300, 50, 10


def main(argv: Sequence[str] | None = None) -> int:
    return benchmark_command("evaluation", __doc__, measure, argv)


def measure(smoke: bool) -> list[Table]:
    """Returns the tables of times and memory."""
    seen, unseen = (SMOKE_SEEN, SMOKE_UNSEEN) if smoke else (SEEN, UNSEEN)
    photos = SMOKE_PHOTOS if smoke else IN_MEMORY
    many = 2 * SMOKE_PHOTOS if smoke else OPEN_IMAGES
    # The other processes first, while this one uses little memory.
    peaks = _peaks(photos, many, seen, unseen)
    return [_times(photos, seen, unseen, 1 if smoke else ROUNDS), peaks]


def loop_over_classes(scores, labels, classes: np.ndarray, kind: str) -> np.ndarray:
    """Returns the average precision of some classes, with one sort per class."""
    result = []
    for c in classes:
        hits = labels[np.argsort(-scores[:, c], kind=kind), c] > 0
        found, rank = np.cumsum(hits), np.arange(1, len(hits) + 1)
        result.append((found[hits] / rank[hits]).sum() / max(1, found[-1]))
    return np.array(result)


def scikit_learn(scores, labels, classes: np.ndarray) -> np.ndarray:
    """Returns the average precision of some classes, computed by scikit-learn."""
    from sklearn.metrics import average_precision_score

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No positive class")
        return np.array([average_precision_score(labels[:, c] > 0, scores[:, c]) for c in classes])


def loop_over_photos(scores: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Returns F1@K, with one sort per photo."""
    right = positives = 0
    for own_scores, own_labels in zip(scores, labels, strict=True):
        best = np.argsort(-own_scores, kind="stable")[:k]
        right += np.count_nonzero(own_labels[best] > 0)
        positives += np.count_nonzero(own_labels > 0)
    return 2 * right / (k * len(scores) + positives)


def _times(photos: int, seen: int, unseen: int, rounds: int) -> Table:
    classes = seen + unseen
    scores = np.random.default_rng(0).random((photos, classes), np.float32)
    labels = random_labels(photos, classes)
    names, groups = [str(c) for c in range(classes)], ["seen"] * seen + ["unseen"] * unseen
    whole = scores, labels
    some = np.random.default_rng(1).permutation(classes)[:LOOPED_CLASSES]
    rows = scores[:LOOPED_PHOTOS], labels[:LOOPED_PHOTOS]
    _require_agreement(*whole, some, rows)
    # By name: function, factor for its seconds, name of the function to compare with.
    ap, f1, of_classes, of_photos = "average precision", "F1@5", len(some), len(rows[0])
    compared = {
        ap: (lambda: average_precision(*whole), 1, None),
        f"{ap} on one CPU": (lambda: _on_one_cpu(average_precision, *whole), 1, ap),
        "loop over classes, unstable argsort": (
            lambda: loop_over_classes(*whole, some, "quicksort"),
            classes / of_classes,
            ap,
        ),
        "loop over classes, stable argsort": (
            lambda: loop_over_classes(*whole, some, "stable"),
            classes / of_classes,
            ap,
        ),
        "scikit-learn's average_precision_score": (
            lambda: scikit_learn(*whole, some),
            classes / of_classes,
            ap,
        ),
        f1: (lambda: f1_at_k(*whole, 5), 1, None),
        "loop over photos, stable argsort": (
            lambda: loop_over_photos(*rows, 5),
            photos / of_photos,
            f1,
        ),
        "all metrics (evaluate_scores)": (lambda: evaluate_scores(*whole, names, groups), 1, None),
    }
    cpu = {name: [] for name in compared}

    def counted(name: str) -> Callable[[], None]:
        def call() -> None:
            begun = time.process_time()
            compared[name][0]()
            cpu[name].append(time.process_time() - begun)

        return call

    seconds = in_turns({name: counted(name) for name in compared}, rounds)
    cells = []
    for name, (_, multiplied, ours) in compared.items():
        row = [name]
        # The first call of each is a warm-up, not a round.
        for own in (seconds, {name: calls[1:] for name, calls in cpu.items()}):
            taken = [multiplied * one for one in own[name]]
            row += [
                f"{statistics.median(taken):.2f}",
                ratios(taken, own[ours]) if ours else "",
            ]
        cells.append(row)
    return Table(
        f"Scores in memory, {photos:,} photos x {classes:,} classes",
        ["", "seconds", "ratio", "CPU seconds", "ratio"],
        cells,
        f"Median of {rounds} rounds in turns, on {threads()} CPUs. The loops and scikit-learn are "
        f"measured on {of_classes} classes, the loop over photos on {of_photos} photos, and "
        f"multiplied by {classes / of_classes:.2f} and {photos / of_photos:.0f}. All metrics: mAP, "
        "weighted and chance mAP, F1@3 and F1@5 of seen, unseen and all classes, by both "
        "conventions.",
    )


def _on_one_cpu(function: Callable, *arguments):
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        return function(*arguments)
    finally:
        os.sched_setaffinity(0, allowed)


def _require_agreement(scores, labels, some, rows) -> None:
    ours = average_precision(scores, labels)[some]
    different = _without_ties(scores[:, some], labels[:, some])
    for kind in ("quicksort", "stable"):
        found = loop_over_classes(scores, labels, some, kind)
        _require_close(f"loop, {kind}", found, ours, different | (kind == "stable"))
    # scikit-learn treats images with equal scores as one rank.
    _require_close("scikit-learn", scikit_learn(scores, labels, some), ours, different)
    loop = loop_over_photos(*rows, 5)
    _require_close("F1@5", np.array([loop]), np.array([f1_at_k(*rows, 5).f1]), np.ones(1, bool))


def _require_close(name: str, found, ours, compared) -> None:
    apart = np.abs(found - ours)[compared].max()
    if not compared.any() or apart > 1e-12:
        raise UserError(f"{name} gives different results, {apart:.1e} apart")


def _without_ties(scores, labels) -> np.ndarray:
    """Returns a mask of the classes without a positive whose score equals that of another image."""

    def tied(column: np.ndarray, present: np.ndarray) -> bool:
        values, counts = np.unique(column, return_counts=True)
        return bool(np.isin(column[present], values[counts > 1]).any())

    return np.array([not tied(s, t > 0) for s, t in zip(scores.T, labels.T, strict=True)])


def _peaks(photos: int, many: int, seen: int, unseen: int) -> Table:
    rows = []
    results = {}
    for count, kept, limit in (
        (photos, "memory", None),
        (photos, "file", None),
        (many, "file", MEMORY_LIMIT),
    ):
        own = evaluate_in_own_process(count, seen, unseen, kept, limit)
        results[count, kept] = own["digest"]
        rows.append(
            [
                f"{count:,} x {seen + unseen:,}, scores in {kept}",
                f"{own['collected']:.1f}",
                f"{own['evaluated']:.1f}",
                *(f"{own[size] / 1e6:.0f}" for size in ("scores", "labels", "additional", "peak")),
            ]
        )
    if results[photos, "memory"] != results[photos, "file"]:
        raise UserError("scores in a file and in memory give different results")
    return Table(
        "Peak memory, each in its own process",
        [
            "",
            "seconds to collect scores",
            "seconds for all metrics",
            "scores, MB",
            "labels, MB",
            "additional, MB",
            "peak of the process, MB",
        ],
        rows,
        "Collecting includes drawing the random scores. Additional: the peak without the memory of "
        "the process before, the labels and, if they are in memory, the scores. The metrics from "
        "the file and from memory are equal to the last bit. The largest process was limited to "
        f"{MEMORY_LIMIT / 1e9:.0f} GB of address space.",
    )


if __name__ == "__main__":
    sys.exit(main())
