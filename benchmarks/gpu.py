"""Head, loss and step on a GPU, against the released method in PyTorch: `benchmarks.gpu`.

Takes at most eight minutes; each measurement is a process of its own, and what cannot be run is
said below the tables. The head of the released code with its sizes (14x14x512 region features), in
float32 (TF32 where the GPU has it) and bfloat16, with 925 and 7,186 classes and 32 and 256 photos:

1. forward pass, ranking loss with its gradient, and training step (loss, gradients, Adam) of this
   project on the JAX backend of Keras, compiled by XLA, and of the released method in PyTorch;
2. the same times against a floor: the operations and bytes that XLA counts in its compiled program,
   at the rates of a large matrix product and a large copy on the same device;
3. where TensorFlow has a GPU, the trainer itself: images per second, share of the time spent
   waiting for data, memory, on one GPU and on all (`mirrored`).

Needs jax with CUDA (`pip install "jax[cuda12]"`) and PyTorch. Without a GPU it runs on the CPU with
`--smoke` alone.
"""

import dataclasses
import sys
import time

from benchmarks.shared.benchmark_command import benchmark_command
from benchmarks.shared.timing import in_own_process
from biam_tf.errors import UserError
from training.tables.table import Table

LIMIT_SECONDS = 8 * 60
PRECISIONS = ("float32", "bfloat16")
SIZES = ((925, 32), (925, 256), (7186, 32), (7186, 256))
SMOKE_SIZES = ((50, 2),)
OURS, RELEASED = "ours, JAX", "released, PyTorch"
PROCESS = "benchmarks.shared.gpu_process"


@dataclasses.dataclass
class _Lap:
    """What is measured within the time limit.

    Attributes:
        smoke: whether to use the smallest sizes, on a CPU too.
        left_out: what could not be run, and why.
        unusable: sides whose package is missing or has no GPU, by name.
    """

    smoke: bool
    started: float = dataclasses.field(default_factory=time.monotonic)
    left_out: list[str] = dataclasses.field(default_factory=list)
    unusable: set[str] = dataclasses.field(default_factory=set)

    def measure(self, side: str, title: str, *options: str) -> dict | None:
        """Returns what a process of `gpu_process` measured; `None`, with a reason, if nothing."""
        if side in self.unusable:
            return None
        left = LIMIT_SECONDS - (time.monotonic() - self.started)
        if left < 10:
            self.left_out.append(f"{side}, {title}: the eight minutes were over")
            return None
        command = ["--side", side, *options, *(["--smoke"] if self.smoke else [])]
        try:
            found = in_own_process(PROCESS, command, seconds=left, keras_backend=BACKENDS[side])
        except UserError as error:
            self.left_out.append(f"{side}, {title}: {' '.join(str(error).split())[-300:]}")
            return None
        if "unusable" in found:
            self.unusable.add(side)
            self.left_out.append(f"{side}: {found['unusable']}")
            return None
        if "failed" in found:
            self.left_out.append(f"{side}, {title}: {found['failed']}")
            return None
        return found


BACKENDS = {OURS: "jax", RELEASED: "torch", "trainer": "tensorflow"}


def measure(smoke: bool) -> list[Table]:
    """Returns the tables described in the module docstring.

    Raises:
        UserError: nothing could be measured.
    """
    lap = _Lap(smoke)
    compared, floors = [], []
    device = None
    for classes, photos in SMOKE_SIZES if smoke else SIZES:
        for precision in PRECISIONS[:1] if smoke else PRECISIONS:
            title = f"{classes:,} classes, {photos} photos, {precision}"
            options = ("--classes", str(classes), "--photos", str(photos), "--precision", precision)
            ours = lap.measure(OURS, title, *options)
            rival = lap.measure(RELEASED, title, *options)
            for found in (ours, rival):
                device = device or (found and found["device"])
            for what in ("forward", "loss", "step"):
                times = [found[what] if found else None for found in (rival, ours)]
                if times != [None, None]:
                    compared.append((f"{what}, {title}", *map(_ms, times), _ratio(*times)))
            if ours:
                floors += [_against_floor(what, title, ours) for what in ("forward", "step")]
    trainer = _trainer(lap)
    if not compared and not trainer:
        raise UserError("nothing could be measured: " + "; ".join(lap.left_out))
    columns = ("", RELEASED, OURS, "speed-up")
    tables = [
        Table(f"Head, loss and step on {device}", columns, compared),
        Table(
            "Against the operations and bytes of the program that XLA compiled",
            ("", "operations", "bytes", "floor", "time", "time / floor"),
            floors,
        ),
        Table(
            "The trainer",
            ("", "photos per second", "waiting for data", "memory"),
            trainer,
            note=_said(lap.left_out),
        ),
    ]
    return [table for table in tables if table.rows or table.note]


def _trainer(lap: _Lap) -> list[tuple[str, ...]]:
    rows = []
    for strategy in ("default",) if lap.smoke else ("default", "mirrored"):
        found = lap.measure("trainer", strategy, "--strategy", strategy)
        if found:
            rows.append(
                (
                    f"{found['device']}, {strategy}, {found['precision']}",
                    f"{found['images_per_second']:.0f}",
                    f"{found['data_wait_share']:.1%}",
                    f"{found['memory'] / 1e9:.2f} GB",
                )
            )
    return rows


def _against_floor(what: str, title: str, found: dict) -> tuple[str, ...]:
    operations, size = found[f"{what} operations"], found[f"{what} bytes"]
    floor = max(operations / found["operations per second"], size / found["bytes per second"])
    return (
        f"{what}, {title}",
        f"{operations / 1e9:.3g} GFLOP",
        f"{size / 1e9:.3g} GB",
        _ms(floor),
        _ms(found[what]),
        f"{found[what] / floor:.2f}",
    )


def _ms(seconds: float | None) -> str:
    return "" if seconds is None else f"{1e3 * seconds:.3g} ms"


def _ratio(slower: float | None, faster: float | None) -> str:
    return "" if slower is None or faster is None else f"{slower / faster:.2f}"


def _said(left_out: list[str]) -> str:
    return f"Not run: {'; '.join(left_out)}." if left_out else "Everything was run."


def main(argv=None) -> int:
    return benchmark_command("gpu", __doc__, measure, argv)


if __name__ == "__main__":
    sys.exit(main())
