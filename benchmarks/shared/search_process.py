"""One step of `benchmarks.search` in a process of its own; prints a JSON object.

The peak memory includes the files that are memory-mapped at the moment.
"""

import json
import pathlib
import resource
import sys
import time

import numpy as np

from benchmarks.shared.timing import milliseconds
from serving.indexing.match_table import best_rows
from serving.indexing.nearest_photos import NEAREST, NearestPhotos, build_nearest
from serving.indexing.photo_index import PhotoIndex

FOUND = 100  # photos of a class


def main() -> None:
    step, folder, classes, directions, candidates = sys.argv[1:]
    vectors = np.load(classes)
    start = time.perf_counter()
    index = PhotoIndex(folder)
    found: dict = {"open": time.perf_counter() - start}
    if step == "exact":
        found |= _exact(index, vectors, pathlib.Path(classes))
    elif step == "build":
        start = time.perf_counter()
        build_nearest(index, int(directions))
        found |= {
            "build": time.perf_counter() - start,
            "size": (index.folder / NEAREST).stat().st_size,
        }
    else:
        found |= _nearest(index, vectors, pathlib.Path(classes), int(candidates) or None)
    memory = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({**found, "memory": memory}))


def _exact(index: PhotoIndex, vectors: np.ndarray, classes: pathlib.Path) -> dict:
    start = time.perf_counter()
    best_rows(index.score_blocks(vectors[:1]), 1, FOUND)
    first = time.perf_counter() - start
    start = time.perf_counter()
    best_rows(index.score_blocks(vectors[:1]), 1, FOUND)
    again = time.perf_counter() - start
    rows = [rows for rows, _ in best_rows(index.score_blocks(vectors), len(vectors), FOUND)]
    np.savez(classes.with_suffix(".best.npz"), *rows)
    return {"first": first, "again": again}


def _nearest(
    index: PhotoIndex, vectors: np.ndarray, classes: pathlib.Path, candidates: int | None
) -> dict:
    start = time.perf_counter()
    nearest = NearestPhotos.open(index)
    opened = time.perf_counter() - start
    seconds, recalls = [], []
    with np.load(classes.with_suffix(".best.npz")) as best:
        for number in range(len(vectors)):
            start = time.perf_counter()
            ((rows, _),) = nearest.search(vectors[number : number + 1], FOUND, candidates)
            seconds.append(time.perf_counter() - start)
            exact = best[f"arr_{number}"]
            recalls.append(np.isin(exact, rows).mean())
    return {
        "nearest open": opened,
        "first": seconds[0],
        "median": milliseconds(seconds[1:]),
        "recall": float(np.mean(recalls)),
        "least": float(np.min(recalls)),
    }


if __name__ == "__main__":
    main()
