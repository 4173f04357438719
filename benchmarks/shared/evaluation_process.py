"""One process of `benchmarks.evaluation`: an evaluation whose memory is measured.

`python -m benchmarks.shared.evaluation_process PHOTOS SEEN UNSEEN memory|file`

The scores are computed in batches, as by a model. Prints a JSON object.
"""

import hashlib
import json
import pathlib
import sys
import time
from collections.abc import Iterator

import numpy as np

from benchmarks.shared.timing import in_own_process
from biam_tf.metrics import evaluate_scores, stored_scores

LABELS_PER_PHOTO, BATCH = 8, 256


def evaluate_in_own_process(
    photos: int, seen: int, unseen: int, kept: str, memory_limit: int | None
) -> dict:
    """Runs the command and returns the JSON object that it prints.

    Args:
        photos: Number of photos, N.
        seen: Number of seen classes.
        unseen: Number of unseen classes.
        kept: Where the scores are stored, "memory" or "file".
        memory_limit: Address space of the process in bytes; None for no limit.
    """
    arguments = [str(photos), str(seen), str(unseen), kept]
    return in_own_process("benchmarks.shared.evaluation_process", arguments, memory_limit)


def random_labels(photos: int, classes: int) -> np.ndarray:
    """Returns labels (N, C) int8, -1 except for up to 8 +1 per photo, mostly of common classes."""
    rng = np.random.default_rng(2)
    labels = np.full((photos, classes), -1, np.int8)
    shares = 1 / (20 + np.arange(classes))
    shown = rng.choice(classes, size=(photos, LABELS_PER_PHOTO), p=shares / shares.sum())
    np.put_along_axis(labels, shown, 1, axis=1)
    return labels


def random_batches(photos: int, classes: int) -> Iterator[np.ndarray]:
    """Yields batches of scores (n, C), float32, N rows in total."""
    rng = np.random.default_rng(0)
    for start in range(0, photos, BATCH):
        yield rng.random((min(BATCH, photos - start), classes), np.float32)


def main() -> None:
    """Evaluates once and prints the times, the memory in bytes and a digest of the metrics."""
    photos, seen, unseen = map(int, sys.argv[1:4])
    classes, kept = seen + unseen, sys.argv[4]
    stored_scores.IN_MEMORY = {"memory": sys.maxsize, "file": 0}[kept]
    names, groups = [str(c) for c in range(classes)], ["seen"] * seen + ["unseen"] * unseen
    labels = random_labels(photos, classes)
    base = _memory("VmRSS")
    begun = time.perf_counter()
    scores = stored_scores.collect_scores(random_batches(photos, classes), photos, classes)
    collected = time.perf_counter()
    metrics = evaluate_scores(scores, labels, names, groups)
    evaluated = time.perf_counter()
    in_memory = scores.nbytes if kept == "memory" else 0
    text = json.dumps(metrics)
    print(
        json.dumps(
            {
                "collected": collected - begun,
                "evaluated": evaluated - collected,
                "scores": scores.nbytes,
                "labels": labels.nbytes,
                "additional": _memory("VmHWM") - base - in_memory,
                "peak": _memory("VmHWM"),
                "digest": hashlib.sha256(text.encode()).hexdigest(),
            }
        )
    )


def _memory(key: str) -> int:
    """Returns the memory of this process in bytes: VmRSS, the current, or VmHWM, the peak."""
    status = pathlib.Path("/proc/self/status").read_text()
    return 1024 * int(status.split(f"{key}:")[1].split()[0])


if __name__ == "__main__":
    main()
