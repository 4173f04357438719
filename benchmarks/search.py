"""Searches of large photo indexes, exact and in two stages: `python -m benchmarks.search`.

Writes indexes of simulated photos (`benchmarks.shared.random_index`): 7x7 regions, vectors of 64
numbers, k = 10. Each step runs in a process of its own: opening, an exact search of one class for
the first time (which compares the checksums) and again, `serving.nearest`, a search of the nearest
photos. Times are those of the clock and, in brackets, of the processor, which other programs do not
lengthen. The recall is the share of the best 100 photos of --classes that the second way finds.
A million photos take 6.3 GB on the disk and about 15 minutes on a 2-core CPU.

With --index: the recall on an index of real photos, with the model's own classes. It is prepared
with `serving.nearest`.
"""

import pathlib
import sys
import tempfile

import numpy as np

from benchmarks.shared.benchmark_command import benchmark_command
from benchmarks.shared.random_index import SimulatedPhotos, write_random_index
from benchmarks.shared.timing import in_own_process
from biam_tf.errors import UserError
from serving.indexing.nearest_photos import DIRECTIONS
from serving.indexing.photo_index import PhotoIndex
from training.tables.table import Table

GRID, SIZE, POOLED = (7, 7), 64, 10
OPTIONS = {
    "--photos": {"type": int, "nargs": "+", "default": [10_000, 100_000, 1_000_000]},
    "--classes": {"type": int, "default": 100, "help": "simulated classes to search for"},
    "--directions": {"type": int, "default": DIRECTIONS},
    "--candidates": {"type": int, "default": 0, "help": "per class; default: those of a search"},
    "--index": {"type": pathlib.Path, "help": "folder of an index of real photos"},
    "--folder": {"type": pathlib.Path, "help": "where to write the indexes, on a fast disk"},
}


def main(argv=None) -> int:
    return benchmark_command("search", __doc__, _measure, argv, OPTIONS)


def _measure(
    smoke: bool,
    photos: list[int],
    classes: int,
    directions: int,
    candidates: int,
    index: pathlib.Path | None,
    folder: pathlib.Path | None,
) -> list[Table]:
    columns = {}
    with tempfile.TemporaryDirectory(dir=folder) as aside:
        place = pathlib.Path(aside)
        if index is not None:
            opened = PhotoIndex(index)
            vectors = opened.class_vectors(opened.vocabulary.embeddings)
            columns[f"{len(opened):,}"] = _steps(index, vectors, place, directions, candidates)
        for count in [] if index is not None else [600] if smoke else photos:
            own = place / f"{count}.index"
            own.mkdir()
            simulated = SimulatedPhotos(GRID, SIZE)
            write_random_index(own, count, GRID, SIZE, POOLED, own, vectors=simulated.vectors)
            vectors = simulated.classes(10 if smoke else classes)
            columns[f"{count:,}"] = _steps(own, vectors, place, directions, candidates)
            for path in own.iterdir():
                path.unlink()
    rows = list(next(iter(columns.values())))
    return [
        Table(
            "Searches of photo indexes",
            ["photos", *columns],
            [[row, *(column[row] for column in columns.values())] for row in rows],
        )
    ]


def _steps(
    index: pathlib.Path, classes: np.ndarray, place: pathlib.Path, directions: int, candidates: int
) -> dict[str, str]:
    file = place / "classes.npy"
    np.save(file, classes.astype(np.float32))
    arguments = [str(index), str(file), str(directions), str(candidates)]
    size = sum(path.stat().st_size for path in index.iterdir())
    exact, built, nearest = (
        in_own_process("benchmarks.shared.search_process", [step, *arguments])
        for step in ("exact", "build", "nearest")
    )
    if not nearest["recall"] > 0.5:
        raise UserError(f"{index}: only {nearest['recall']:.0%} of the best photos were found")
    return {
        "index": f"{size / 1e9:.2f} GB",
        "opened in": _seconds(exact["open"]),
        "exact: the first search": _seconds(exact["first"]),
        "exact: further searches": _seconds(exact["again"]),
        "exact: peak memory": f"{exact['memory'] / 1e6:.0f} MB",
        "`serving.nearest`": _seconds(built["build"]),
        "its peak memory": f"{built['memory'] / 1e6:.0f} MB",
        "its files": f"{built['size'] / 1e6:.0f} MB",
        "nearest: opened in": _seconds(nearest["nearest open"]),
        "nearest: the first search": _seconds(nearest["first"]),
        "nearest: further searches": _seconds(nearest["again"]),
        "nearest: peak memory": f"{nearest['memory'] / 1e6:.0f} MB",
        "recall at 100: mean, least": f"{nearest['recall']:.3f}, {nearest['least']:.2f}",
    }


def _seconds(times: list[float]) -> str:
    """By the clock, and of the processor."""
    clock, processor = (f"{time:.0f}" if time > 20 else f"{time:.2f}" for time in times)
    return f"{clock} s ({processor} s)"


if __name__ == "__main__":
    sys.exit(main())
