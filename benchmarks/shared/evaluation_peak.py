"""One evaluation whose memory is measured; `benchmarks.evaluation` runs it in processes of its own.

    python -m benchmarks.shared.evaluation_peak PHOTOS SEEN UNSEEN memory|file

Scores come in batches, as from a model. Prints a JSON object.
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

LABELS_OF_A_PHOTO, BATCH = 8, 256


def evaluate_in_own_process(
    photos: int, seen: int, unseen: int, kept: str, memory_limit: int | None
) -> dict:
    """Returns what the command prints.

    Args:
        photos: N.
        seen: number of seen classes.
        unseen: number of unseen classes.
        kept: "memory" or "file", where the scores lie.
        memory_limit: bytes of address space the process may take; None for no limit.
    """
    arguments = [str(photos), str(seen), str(unseen), kept]
    return in_own_process("benchmarks.shared.evaluation_peak", arguments, memory_limit)


def random_labels(photos: int, classes: int) -> np.ndarray:
    """Returns (N, C) int8 of -1 and, for each photo, up to 8 times +1, of common classes mostly."""
    rng = np.random.default_rng(2)
    labels = np.full((photos, classes), -1, np.int8)
    shares = 1 / (20 + np.arange(classes))
    shown = rng.choice(classes, size=(photos, LABELS_OF_A_PHOTO), p=shares / shares.sum())
    np.put_along_axis(labels, shown, 1, axis=1)
    return labels


def random_batches(photos: int, classes: int) -> Iterator[np.ndarray]:
    """Yields (n, C) float32 until there are N rows."""
    rng = np.random.default_rng(0)
    for start in range(0, photos, BATCH):
        yield rng.random((min(BATCH, photos - start), classes), np.float32)


def main() -> None:
    """Evaluates once and prints seconds, bytes and a digest of the figures."""
    photos, seen, unseen = map(int, sys.argv[1:4])
    classes, kept = seen + unseen, sys.argv[4]
    stored_scores.IN_MEMORY = {"memory": sys.maxsize, "file": 0}[kept]
    names, groups = [str(c) for c in range(classes)], ["seen"] * seen + ["unseen"] * unseen
    labels = random_labels(photos, classes)
    held = _memory("VmRSS")
    begun = time.perf_counter()
    scores = stored_scores.collect_scores(random_batches(photos, classes), photos, classes)
    collected = time.perf_counter()
    figures = evaluate_scores(scores, labels, names, groups)
    evaluated = time.perf_counter()
    in_memory = scores.nbytes if kept == "memory" else 0
    text = json.dumps(figures)
    print(
        json.dumps(
            {
                "collected": collected - begun,
                "evaluated": evaluated - collected,
                "scores": scores.nbytes,
                "labels": labels.nbytes,
                "beyond": _memory("VmHWM") - held - in_memory,
                "peak": _memory("VmHWM"),
                "digest": hashlib.sha256(text.encode()).hexdigest(),
            }
        )
    )


def _memory(key: str) -> int:
    """Returns bytes of this process: VmRSS, held now, or VmHWM, the most it ever held."""
    status = pathlib.Path("/proc/self/status").read_text()
    return 1024 * int(status.split(f"{key}:")[1].split()[0])


if __name__ == "__main__":
    main()
