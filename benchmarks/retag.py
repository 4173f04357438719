"""Time to score indexed photos: `python -m benchmarks.retag`.

Writes an index of random region embeddings with the sizes of EfficientNet-Lite0 at 224 pixels (7x7
regions) and GloVe with 100 dimensions, k = 10, opens it and scores it against one class and against
many, several times each. Prints medians.

example:
  python -m benchmarks.retag --photos 1000 --classes 10
"""

import argparse
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence

import numpy as np

from benchmarks.shared.random_index import write_random_index
from biam_tf.command_line import run_command
from serving.indexing.photo_index import PhotoIndex

GRID, EMBEDDING_SIZE, POOLED = (7, 7), 100, 10


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.retag",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--photos", type=int, default=10_000, help="default: 10000")
    parser.add_argument("--classes", type=int, nargs="+", default=[1, 10, 1000])
    parser.add_argument("--repeat", type=int, default=7, help="default: 7")
    return run_command(parser, _measure, argv)


def _measure(arguments: argparse.Namespace) -> None:
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        index = pathlib.Path(folder)
        write_random_index(index, arguments.photos, GRID, EMBEDDING_SIZE, POOLED, index)
        size = sum(path.stat().st_size for path in pathlib.Path(folder).iterdir()) / 1e6
        print(f"{arguments.photos} photos, {size:.0f} MB")
        seconds, index = _timed(lambda: PhotoIndex(folder), arguments.repeat)
        print(f"open, with checksums        {seconds:8.3f} s")
        for count in arguments.classes:
            classes = rng.normal(size=(count, EMBEDDING_SIZE)).astype(np.float32)
            seconds, _ = _timed(lambda classes=classes: index.scores(classes), arguments.repeat)
            print(f"score {count:5d} classes         {seconds:8.3f} s")


def _timed(function, repeat: int):
    seconds = []
    for _ in range(repeat):
        start = time.perf_counter()
        result = function()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), result


if __name__ == "__main__":
    sys.exit(main())
