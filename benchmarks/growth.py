"""Growth of time and memory: `python -m benchmarks.growth [--plot FILE.png]`.

A training step (preset `released`, 256 channels) with more classes, regions and photos in a batch,
and average precision with more photos, each point in its own process. A power law is fitted to each
series; an exponent of 1 means linear growth. Memory is the peak without the imports.
"""

import json
import os
import pathlib
import statistics
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is first imported

import numpy as np

from benchmarks.shared.benchmark_command import benchmark_command
from benchmarks.shared.timing import in_own_process, milliseconds
from training.tables.plots import new_panels, save_figure
from training.tables.table import Table

BASE = {"classes": 1000, "grid": 14, "batch": 16}
AXES = {
    "classes": [1000, 2000, 4000, 8000, 16000],
    "grid": [7, 14, 20, 28],
    "batch": [8, 16, 32, 64],
    "photos": [5000, 10000, 20000, 40000],
}
SMOKE_BASE = {"classes": 20, "grid": 4, "batch": 2}
SMOKE_AXES = {"classes": [20, 40], "photos": [100, 200]}
TITLES = {
    "classes": "step: classes",
    "grid": "step: regions",
    "batch": "step: photos in a batch",
    "photos": "average precision of 500 classes: photos",
}
STEPS = 4


def measure(smoke: bool, plot: pathlib.Path | None = None) -> list[Table]:
    """Returns the table of points and exponents; draws the plot to `plot` unless it is None."""
    rows, lines, base = [], {}, SMOKE_BASE if smoke else BASE
    for axis, values in (SMOKE_AXES if smoke else AXES).items():
        # The figures of a smoke test tell nothing: it starts one process, for the fastest point.
        first = [] if smoke and axis != "photos" else values[: 1 if smoke else None]
        points = [_in_own_process(axis, value) for value in first]
        points += [_point(axis, value, base) for value in values[len(points) :]]
        sizes = [value**2 if axis == "grid" else value for value in values]
        lines[axis] = sizes, points
        exponents = [
            np.polyfit(np.log(sizes), np.log([point[what] for point in points]), 1)[0]
            for what in ("seconds", "bytes")
        ]
        rows.append(
            (
                TITLES[axis],
                ", ".join(f"{size:,}" for size in sizes),
                ", ".join(milliseconds([point["seconds"]]) for point in points),
                f"{exponents[0]:.2f}",
                ", ".join(f"{point['bytes'] / 1e9:.2f}" for point in points),
                f"{exponents[1]:.2f}",
            )
        )
    if plot is not None:
        _draw(lines, plot)
    others = ", ".join(f"{size} {name}" for name, size in base.items() if name != "grid")
    note = f"By default: {others}, {base['grid']}x{base['grid']} regions."
    columns = ("varied size", "values", "time", "exponent", "memory, GB", "exponent")
    return [Table("Growth of time and memory", columns, rows, note)]


def _draw(lines: dict, path: pathlib.Path) -> None:
    figure, axes = new_panels(len(lines), 3 * len(lines), 5, rows=2)
    for column, (axis, (sizes, points)) in enumerate(lines.items()):
        for row, (what, scale, label) in enumerate(
            [("seconds", 1, "seconds"), ("bytes", 1e-9, "memory, GB")]
        ):
            own = axes[row * len(lines) + column]
            values = [scale * point[what] for point in points]
            own.loglog(sizes, values, "o-")
            own.set_ylabel(label)
            own.minorticks_off()
            own.set_xticks(sizes, [f"{size:,}" for size in sizes], rotation=30, fontsize=8)
            own.set_yticks(values, [f"{value:.2g}" for value in values], fontsize=8)
            own.grid(True, alpha=0.3)
        axes[column].set_title(TITLES[axis].replace(": ", ":\n"), fontsize=9)
    save_figure(figure, path)


def _in_own_process(axis: str, value: int) -> dict:
    return in_own_process("benchmarks.growth", ["--point", axis, str(value)])


def _point(axis: str, value: int, base: dict[str, int] = BASE) -> dict:
    """Measures the time and the memory of one point in this process."""
    from training.machine import peak_memory

    function, before = (
        _average_precision(value) if axis == "photos" else _step({**base, axis: value})
    )
    function()
    seconds = []
    for _ in range(STEPS):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    # In a process that has used more memory before, the peak does not grow.
    return {"seconds": statistics.median(seconds), "bytes": max(1, peak_memory() - before)}


def _average_precision(photos: int):
    from biam_tf.metrics import average_precision
    from training.machine import peak_memory

    rng = np.random.default_rng(0)
    before = peak_memory()
    scores = rng.random((photos, 500), np.float32)
    labels = np.where(rng.random((photos, 500), np.float32) < 0.01, 1, -1).astype(np.int8)
    return lambda: average_precision(scores, labels), before


def _step(sizes: dict[str, int]):
    import training.loop.train_step  # noqa: F401
    from benchmarks.shared.compared_heads import REGIONS, Ours, make_arrays
    from training.machine import peak_memory

    before = peak_memory()
    shape = (sizes["grid"], sizes["grid"], REGIONS[-1])
    return Ours(make_arrays(sizes["classes"], sizes["batch"], shape)).step, before


def main(argv=None) -> int:
    argv = sys.argv[1:] if argv is None else list(argv)
    if argv[:1] == ["--point"]:
        print(json.dumps(_point(argv[1], int(argv[2]))))
        return 0
    plot = {"type": pathlib.Path, "metavar": "FILE.png", "help": "also plot the points"}
    return benchmark_command("growth", __doc__, measure, argv, {"--plot": plot})


if __name__ == "__main__":
    sys.exit(main())
