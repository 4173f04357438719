"""Training steps and scoring, compared with the released method: `benchmarks.training_step`.

The head of the released code with its sizes: 14x14x512 region features, a scene feature of 4,096,
class embeddings of 300 numbers, 256 channels, 8 heads. A step is loss, gradients and Adam. Measured
in turns, each method in its own process:

1. steps and scoring with 925 classes (NUS-WIDE's seen classes), 32 photos;
2. steps and scoring with 7,186 classes (Open Images' seen classes), 8 photos;
3. scoring compared with its floor, the time of the same number of operations in large matrix
   products;
4. our step with `mixed_bfloat16` and float32, also for 7x7x320 region features and 205 classes
   (Corel5k), there also compiled by XLA.

Then the peak memory of the steps, and whether 32 photos with 7,186 classes fit into 24 GB of
address space. First, scores, losses and gradients of both methods are compared with the same
weights. Requires the extra [benchmarks], PyTorch.
"""

import argparse
import contextlib
import functools
import json
import os
import pathlib
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is first imported

from benchmarks.shared.benchmark_command import benchmark_command
from benchmarks.shared.compared_heads import Ours, Product, Rival, make_arrays
from benchmarks.shared.timing import RemoteObject, in_own_process, in_turns, milliseconds, ratios
from biam_tf.errors import UserError
from training.tables.table import Table

SMOKE = {"channels": 32, "fused_channels": 64}
SIDES = ("ours", "released method")
ADDRESS_SPACE = 24 << 30


def measure(smoke: bool) -> list[Table]:
    """Returns the tables described in the module docstring."""
    settings = SMOKE if smoke else {}
    tables = [_agreement(make_arrays(50, 2), settings)]
    sizes = {"925 classes, 32 photos": (925, 32), "7,186 classes, 8 photos": (7186, 8)}
    rounds = 7
    if smoke:
        sizes, rounds = {"50 classes, 2 photos": (50, 2)}, 1
    rows = []
    for title, (classes, photos) in sizes.items():
        arrays = make_arrays(classes, photos)
        fewer = rounds if classes < 1000 else 3
        sides = {"ours": Ours, "rival": Rival}
        for what, seconds in _times(sides, arrays, ("step", "score"), fewer, settings).items():
            rows.append(_compared(f"{what}, {title}", seconds))
    columns = ("", "released method", "ours", "speed-up (range over rounds)")
    tables.append(Table("Training steps and scoring against the released method", columns, rows))
    classes, photos = next(iter(sizes.values()))
    tables.append(_floor(classes, photos, rounds, settings))
    tables.append(_other_settings(classes, photos, rounds, settings))
    tables.append(_memory(sizes if smoke else {**sizes, "7,186 classes, 32 photos": (7186, 32)}))
    return tables


def _compared(title: str, seconds: dict) -> tuple[str, ...]:
    ours, rival = seconds["ours"], seconds["rival"]
    return title, milliseconds(rival), milliseconds(ours), ratios(rival, ours)


def _times(sides: dict, arrays: dict, methods, rounds: int, settings: dict) -> dict:
    """Returns the seconds of each method of each side, in turns, each side in its own process."""
    with contextlib.ExitStack() as stack:
        made = {
            name: stack.enter_context(RemoteObject(make, arrays, **settings))
            for name, make in sides.items()
        }
        return {
            method: in_turns(
                {name: functools.partial(side.call, method) for name, side in made.items()}, rounds
            )
            for method in methods
        }


def _agreement(arrays: dict, settings: dict) -> Table:
    """Returns the table of the largest relative differences with the weights of the rival.

    Each method in its own process: PyTorch and TensorFlow with their own CUDA libraries end a
    process that loads both.

    Raises:
        UserError: The methods differ.
    """
    import numpy as np

    with (
        tempfile.TemporaryDirectory() as folder,
        RemoteObject(Rival, arrays, **settings) as rival,
        RemoteObject(Ours, arrays, **settings) as ours,
    ):
        path = str(pathlib.Path(folder) / "rival.pth")
        rival.call("save", path)
        ours.call("load", path)
        scores, own_scores = rival.call("score"), ours.call("score")
        loss, gradient = rival.call("loss_and_gradient", scores.copy())
        own_loss, own_gradient = ours.call("loss_and_gradient", scores)
    differences = {
        "scores": np.abs(own_scores - scores).max() / np.abs(scores).max(),
        "loss": abs(own_loss - loss) / loss,
        "gradient of the loss": np.abs(own_gradient - gradient).max() / np.abs(gradient).max(),
    }
    for what, difference in differences.items():
        if difference > 1e-4:
            raise UserError(f"{what}: ours and the rival's differ by {difference:.1e}")
    rows = [(what, f"{difference:.1e}") for what, difference in differences.items()]
    return Table("Same weights, same photos", ("", "largest relative difference"), rows)


def _floor(classes: int, photos: int, rounds: int, settings: dict) -> Table:
    """Returns the table of scoring and the time of as many operations in large products."""
    import numpy as np

    arrays = make_arrays(classes, photos)
    size = 256 if settings else 2048
    with RemoteObject(Ours, arrays, **settings) as ours, RemoteObject(Product, size) as product:
        operations = ours.call("count_operations")
        functions = {
            "ours": functools.partial(ours.call, "score"),
            "product": functools.partial(product.call, "run"),
        }
        seconds = in_turns(functions, rounds)
    rate = [2 * size**3 / second for second in seconds["product"]]
    floor = [operations / each for each in rate]
    row = (
        f"{operations / 1e9:.1f} GFLOP",
        f"{np.median(rate) / 1e9:.0f} GFLOP/s",
        milliseconds(floor),
        milliseconds(seconds["ours"]),
        ratios(seconds["ours"], floor),
    )
    title = f"Scoring {classes} classes, {photos} photos, and its floor"
    columns = ("operations", f"product of {size}x{size} matrices", "floor", "ours", "ours / floor")
    return Table(title, columns, [row])


def _other_settings(classes: int, photos: int, rounds: int, settings: dict) -> Table:
    """Returns the table of our step with mixed precision and XLA."""
    large, small = make_arrays(classes, photos), make_arrays(205, photos, (7, 7, 320))
    half = functools.partial(Ours, precision="mixed_bfloat16")
    compiled = functools.partial(Ours, xla=True, in_blocks=False)
    rows = []
    for arrays, ways in (
        (large, {"mixed_bfloat16": half}),
        (small, {"mixed_bfloat16": half, "float32, XLA": compiled}),
    ):
        title = "x".join(map(str, arrays["region_features"].shape[1:]))
        title += f" regions, {arrays['labels'].shape[1]} classes"
        for way, make in ways.items():
            sides = {"float32": Ours, "other": make}
            seconds = _times(sides, arrays, ("step",), rounds, settings)["step"]
            times = [milliseconds(seconds[name]) for name in ("float32", "other")]
            rows.append((f"{title}, {way}", *times, ratios(seconds["float32"], seconds["other"])))
    columns = ("", "float32", "other setting", "speed-up")
    return Table(f"Our step with other settings, {photos} photos", columns, rows)


def _memory(sizes: dict) -> Table:
    rows = []
    for title, (classes, photos) in sizes.items():
        peaks = []
        for side in SIDES:
            options = ["--side", side, "--classes", str(classes), "--photos", str(photos)]
            try:
                found = in_own_process("benchmarks.training_step", options, ADDRESS_SPACE)
            except UserError:
                peaks.append(None)
                continue
            peaks.append(found["peak"] - found["before"])
        ours, rival = peaks
        if ours is None:
            raise UserError(f"our step with {title} does not fit into {ADDRESS_SPACE >> 30} GB")
        rows.append(
            (
                title,
                "does not run" if rival is None else f"{rival / 1e9:.2f} GB",
                f"{ours / 1e9:.2f} GB",
                "" if rival is None else f"{rival / ours:.1f}",
            )
        )
    columns = ("", "released method", "ours", "ratio")
    note = f"Without the imports, each in its own process with {ADDRESS_SPACE >> 30} GB."
    return Table("Peak memory of three steps", columns, rows, note)


def _peak_of_side(argv: list[str]) -> int:
    """Runs in the child process of `_memory`: prints the peak memory of three steps."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--side", choices=SIDES)
    parser.add_argument("--classes", type=int)
    parser.add_argument("--photos", type=int)
    arguments = parser.parse_args(argv)

    from training.machine import peak_memory

    make = {"ours": Ours, "released method": Rival}[arguments.side]
    if arguments.side == "ours":
        import training.loop.train_step  # noqa: F401
    else:
        import torch  # noqa: F401
    before = peak_memory()
    side = make(make_arrays(arguments.classes, arguments.photos))
    for _ in range(3):
        side.step()
    print(json.dumps({"peak": peak_memory(), "before": before}))
    return 0


def main(argv=None) -> int:
    argv = sys.argv[1:] if argv is None else list(argv)
    if "--side" in argv:
        return _peak_of_side(argv)
    return benchmark_command("training_step", __doc__, measure, argv)


if __name__ == "__main__":
    sys.exit(main())
