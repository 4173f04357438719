"""One process of `benchmarks.memory --labels`: labels with the sizes of Open Images, simulated.

`python -m benchmarks.shared.open_images_labels PART`

`labels` reads as many labels as 9 million training photos have, from the arrays that the reader of
the label files collects, and makes of them what training needs. `thresholds` fits the thresholds to
the scores of the validation photos, `bootstrap` draws the test photos. Prints a JSON object.
"""

import json
import sys
import time
from collections.abc import Iterator

import numpy as np

from biam_tf.metrics.bootstrap import bootstrap_intervals, number_of_resamples
from biam_tf.metrics.stored_scores import Scores, collect_scores
from biam_tf.sparse_labels import SparseLabels
from biam_tf.thresholds import fit_thresholds
from training.machine import peak_memory

TRAIN, VAL, TEST, SEEN, UNSEEN = 9_011_219, 41_620, 125_456, 7_186, 400
LABELS_PER_PHOTO, PRESENT, BATCH = 9, 0.7, 256


def simulated_labels(photos: int, classes: int) -> SparseLabels:
    """Returns labels (N, C), 0 but for nine per photo, 70 % of them +1 and the others -1."""
    rng = np.random.default_rng(0)
    rows = np.repeat(np.arange(photos, dtype=np.int32), LABELS_PER_PHOTO)
    columns = np.empty(len(rows), np.uint16)
    values = np.empty(len(rows), np.int8)
    for start in range(0, len(rows), 2**22):
        some = slice(start, min(start + 2**22, len(rows)))
        count = some.stop - some.start
        columns[some] = (classes * rng.random(count, np.float32) ** 3).astype(np.uint16)
        values[some] = np.where(rng.random(count, np.float32) < PRESENT, 1, -1)
    return SparseLabels.of_entries(rows, columns, values, (photos, classes), 0)


def simulated_scores(labels: SparseLabels) -> Scores:
    """Returns scores that tell a little about the labels, in a file if they are many."""
    rng = np.random.default_rng(1)

    def batches() -> Iterator[np.ndarray]:
        for start in range(0, len(labels), BATCH):
            own = labels[start : start + BATCH]
            yield rng.random(own.shape, np.float32) + np.float32(0.5) * (own > 0)

    return collect_scores(batches(), *labels.shape)


def main() -> None:
    """Measures one part."""
    part, base = sys.argv[1], peak_memory()
    if part == "labels":
        started = time.perf_counter()
        labels = simulated_labels(TRAIN, SEEN + UNSEEN)
        seen = labels.columns(np.arange(SEEN))
        shown = seen.count(1, axis=1)
        trained = seen.rows(shown > 0)
        counts = trained.count(1, axis=0)
        rng = np.random.default_rng(2)
        for _ in range(100):
            trained[rng.integers(0, len(trained), BATCH)]
        made = time.perf_counter() - started
        found = {"matrix": labels.size, "kept": labels.nbytes, "labels": int(counts.sum())}
        print(json.dumps({"seconds": made, "base": base, "peak": peak_memory(), **found}))
        return
    labels = simulated_labels(VAL if part == "thresholds" else TEST, SEEN + UNSEEN)
    scores = simulated_scores(labels)
    names = [str(c) for c in range(SEEN + UNSEEN)]
    groups = ["seen"] * SEEN + ["unseen"] * UNSEEN
    started = time.perf_counter()
    if part == "thresholds":
        fit_thresholds(scores, labels, names, groups)
    else:
        bootstrap_intervals(scores, labels, groups)
    print(
        json.dumps(
            {
                "seconds": time.perf_counter() - started,
                "base": base,
                "peak": peak_memory(),
                "matrix": labels.size,
                "kept": labels.nbytes,
                "resamples": number_of_resamples(labels),
            }
        )
    )


if __name__ == "__main__":
    main()
