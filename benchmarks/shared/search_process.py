"""One step of `benchmarks.search` in a process of its own; prints a JSON object.

The peak memory includes the files that are memory-mapped at the moment.
"""

import json
import pathlib
import resource
import sys
import time

import numpy as np

from serving.indexing.match_table import best_rows
from serving.indexing.nearest_photos import NEAREST, NearestPhotos, build_nearest
from serving.indexing.photo_index import PhotoIndex

FOUND = 100  # photos of a class


def _now() -> np.ndarray:
    """Seconds by the clock, and of the processor, which other programs do not lengthen."""
    return np.array([time.perf_counter(), time.process_time()])


def main() -> None:
    step, folder, classes, directions, candidates = sys.argv[1:]
    vectors = np.load(classes)
    start = _now()
    index = PhotoIndex(folder)
    found: dict = {"open": (_now() - start).tolist()}
    if step == "exact":
        found |= _exact(index, vectors, pathlib.Path(classes))
    elif step == "build":
        start = _now()
        build_nearest(index, int(directions))
        found |= {
            "build": (_now() - start).tolist(),
            "size": (index.folder / NEAREST).stat().st_size,
        }
    else:
        found |= _nearest(index, vectors, pathlib.Path(classes), int(candidates) or None)
    memory = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({**found, "memory": memory}))


def _exact(index: PhotoIndex, vectors: np.ndarray, classes: pathlib.Path) -> dict:
    start = _now()
    best_rows(index.score_blocks(vectors[:1]), 1, FOUND)
    first = _now() - start
    start = _now()
    best_rows(index.score_blocks(vectors[:1]), 1, FOUND)
    again = _now() - start
    rows = [rows for rows, _ in best_rows(index.score_blocks(vectors), len(vectors), FOUND)]
    np.savez(classes.with_suffix(".best.npz"), *rows)
    return {"first": first.tolist(), "again": again.tolist()}


def _nearest(
    index: PhotoIndex, vectors: np.ndarray, classes: pathlib.Path, candidates: int | None
) -> dict:
    start = _now()
    nearest = NearestPhotos.open(index)
    opened = _now() - start
    seconds, recalls = [], []
    with np.load(classes.with_suffix(".best.npz")) as best:
        for number in range(len(vectors)):
            start = _now()
            ((rows, _),) = nearest.search(vectors[number : number + 1], FOUND, candidates)
            seconds.append(_now() - start)
            exact = best[f"arr_{number}"]
            recalls.append(np.isin(exact, rows).mean())
    return {
        "nearest open": opened.tolist(),
        "first": seconds[0].tolist(),
        "again": np.median(seconds[1:], axis=0).tolist(),
        "recall": float(np.mean(recalls)),
        "least": float(np.min(recalls)),
    }


if __name__ == "__main__":
    main()
