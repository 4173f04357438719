"""Estimated cost of the paper's data sets on 1, 8 and 64 GPUs: `python -m benchmarks.scale`.

An estimate, not a measurement. A training step takes the time of the matrix products of the head
and of summing the gradients over the devices, or the time to read the next features, whichever is
longer. Operations are counted from the graph, bytes follow from the shapes; the rates of decoding
and evaluation were measured on a CPU (docs/performance.md). The rates of GPU,
storage and network are assumptions and can be set with options. As a check, a step on this machine
is estimated in the same way and measured.

examples:
  python -m benchmarks.scale
  python -m benchmarks.scale --gpu-tflops 312 --storage 8
"""

import dataclasses
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is first imported

from benchmarks.shared.benchmark_command import benchmark_command
from benchmarks.shared.timing import in_turns
from training.tables.table import Table

GPUS = (1, 8, 64)
GPUS_PER_MACHINE = 8
BATCH = 32  # photos per GPU and step
GRID, CHANNELS, SCENE, EMBEDDING = 14, 512, 4096, 300
# VGG19 at 224 pixels: sixteen convolutions and two dense layers; a multiply-add counts as two.
BACKBONE_OPERATIONS = 39.3e9
FEATURE_BYTES = 2 * (GRID * GRID * CHANNELS + SCENE)  # half precision


@dataclasses.dataclass(frozen=True)
class DataSet:
    """A data set of the paper.

    Attributes:
        name: Name of the data set.
        photos: Number of all photos.
        training_photos: Number of training photos.
        test_photos: Number of test photos.
        seen: Number of seen classes.
        classes: Number of seen and unseen classes.
        epochs: Number of epochs in the paper.
        labels: Labels per training photo that are kept: those that differ from most.
    """

    name: str
    photos: int
    training_photos: int
    test_photos: int
    seen: int
    classes: int
    epochs: int
    labels: float


DATA_SETS = (
    DataSet("NUS-WIDE", 269_648, 161_789, 107_859, 925, 1_006, 40, 5),
    DataSet("Open Images v4", 9_011_219 + 41_620 + 125_436, 9_011_219, 125_436, 7_186, 7_586, 2, 9),
)


def _rate(default, help_text: str):
    return dataclasses.field(default=default, metadata={"help": help_text})


@dataclasses.dataclass(frozen=True)
class Rates:
    """Rates per second of a machine; the fields are the options of the command."""

    gpu_tflops: float = _rate(156.0, "peak rate of a GPU's matrix products in TFLOP/s; A100, TF32")
    utilization: float = _rate(0.35, "share of the peak rate that the head reaches")
    launch: float = _rate(0.004, "seconds per step to launch its operations")
    storage: float = _rate(2.0, "GB/s of stored features that one machine reads")
    photo_storage: float = _rate(1.0, "GB/s of photos that one machine reads")
    link: float = _rate(200.0, "GB/s between two GPUs of a machine")
    network: float = _rate(25.0, "GB/s between two machines")
    cores: int = _rate(12, "CPU cores per GPU")
    decode: float = _rate(218.0, "photos per second that a core decodes")
    metrics: float = _rate(40.0, "million scores per second that one machine evaluates")
    photo_bytes: float = _rate(120e3, "size of a photo file in bytes")

    @property
    def operations(self) -> float:
        """Operations per second that a GPU reaches."""
        return self.gpu_tflops * 1e12 * self.utilization


@dataclasses.dataclass(frozen=True)
class Head:
    """The released head on the classes of a data set.

    Attributes:
        operations: Operations per photo in inference.
        first_operations: Operations of the first convolution, whose input needs no gradient.
        parameters: Number of trained parameters.
    """

    operations: float
    first_operations: float
    parameters: int

    @property
    def step_operations(self) -> float:
        """Operations per photo in training: forward pass, gradients of inputs and of weights."""
        return 3 * self.operations - self.first_operations


def count_head(classes: int, grid: int, channels: int, scene: int, embedding: int) -> Head:
    """Builds the head and counts its operations from the graph."""
    import numpy as np

    from biam_tf.models import build_head
    from training.reproduction.costs import count_operations

    head = build_head((grid, grid, channels), scene, embedding, preset="released")
    operations = count_operations(head, np.zeros((classes, embedding), np.float32))
    kernel = head.get_layer("region_embedding").conv.kernel.shape
    first = 2 * np.prod(kernel) * grid * grid
    return Head(float(operations), float(first), head.count_params())


@dataclasses.dataclass(frozen=True)
class Step:
    """Seconds of the parts of a training step."""

    products: float
    reading: float
    gradients: float

    @property
    def seconds(self) -> float:
        """Seconds of the step: gradients are summed after the products, reading is concurrent."""
        return max(self.products + self.gradients, self.reading)

    @property
    def bottleneck(self) -> str:
        """Name of the slowest part."""
        parts = {
            "reading features": self.reading,
            "products": self.products,
            "summing gradients": self.gradients,
        }
        return max(parts, key=parts.get)


def step_on(gpus: int, head: Head, rates: Rates) -> Step:
    """Returns the estimate for a training step with 32 photos per GPU."""
    machines = max(1, gpus // GPUS_PER_MACHINE)
    reading = gpus * BATCH * FEATURE_BYTES / (machines * rates.storage * 1e9)
    products = rates.launch + BATCH * head.step_operations / rates.operations
    gradients = 0.0
    if gpus > 1:
        # Ring all-reduce: every device sends and receives nearly twice the gradients.
        sent = 2 * (gpus - 1) / gpus * 4 * head.parameters
        speed = rates.link if machines == 1 else rates.network
        gradients = sent / (speed * 1e9)
    return Step(products, reading, gradients)


def measure(smoke: bool, rates: Rates | None = None) -> list[Table]:
    """Returns tables of extraction, training and evaluation for both data sets, and the check."""
    rates = rates or Rates()
    extraction, training, evaluation = [], [], []
    for data in DATA_SETS:
        head = count_head(data.seen, GRID, CHANNELS, SCENE, EMBEDDING)
        for gpus in GPUS:
            machines = max(1, gpus // GPUS_PER_MACHINE)
            extraction.append(_extraction(data, gpus, machines, rates))
            step = step_on(gpus, head, rates)
            steps = data.epochs * data.training_photos / (gpus * BATCH)
            training.append(
                (
                    data.name,
                    str(gpus),
                    f"{1e3 * step.products:.1f}",
                    f"{1e3 * step.reading:.1f}",
                    f"{1e3 * step.gradients:.2f}",
                    step.bottleneck,
                    f"{gpus * BATCH / step.seconds:,.0f}",
                    _hours(steps * step.seconds),
                )
            )
        scoring = data.test_photos * head.operations * data.classes / data.seen / rates.operations
        metrics = data.test_photos * data.classes / (rates.metrics * 1e6)
        scores = data.test_photos * data.classes * 4
        evaluation.append(
            (data.name, f"{scores / 1e9:.2f}", f"{scoring / 60:.1f}", f"{metrics / 60:.1f}")
        )
    return [
        Table(
            "Extraction of VGG19's features",
            ("data set", "GPUs", "photos/s", "bottleneck", "hours", "features, TB"),
            extraction,
        ),
        Table(
            f"Training, {BATCH} photos per GPU and step",
            (
                "data set",
                "GPUs",
                "products, ms",
                "reading, ms",
                "gradients, ms",
                "bottleneck",
                "photos/s",
                "hours",
            ),
            training,
        ),
        Table(
            "Evaluation on one machine with one GPU",
            ("data set", "scores, GB", "scoring, minutes", "metrics, minutes"),
            evaluation,
        ),
        Table(
            "One process of a run: labels in memory, and the features it reads (cache: stream)",
            (
                "data set",
                "processes",
                "labels as a matrix, GB",
                "labels as kept, MB",
                "read per epoch, GB",
                "to the device per photo, KB",
            ),
            [row for data in DATA_SETS for row in _one_process(data)],
            "Each process reads its own part of every batch. Features travel as float16.",
        ),
        _check(rounds=1 if smoke else 7),
    ]


def _one_process(data: DataSet) -> list[tuple[str, ...]]:
    """Rows of what one process of a run holds and reads, with several machines and with one."""
    matrix = data.training_photos * data.classes
    # A photo's offset takes 8 bytes, a label 2 for its class and 1 for its value.
    rows = data.training_photos * (8 + 3 * data.labels)
    epoch = data.training_photos * FEATURE_BYTES
    return [
        (
            data.name,
            str(processes),
            f"{matrix / 1e9:.1f}",
            f"{rows / 1e6:.0f}",
            f"{epoch / processes / 1e9:,.0f}",
            f"{FEATURE_BYTES / 1e3:.0f}",
        )
        for processes in (1, 4, 8)
    ]


def _extraction(data: DataSet, gpus: int, machines: int, rates: Rates) -> tuple[str, ...]:
    speeds = {
        "backbone": gpus * rates.operations / BACKBONE_OPERATIONS,
        "decoding": gpus * rates.cores * rates.decode,
        "reading photos": machines * rates.photo_storage * 1e9 / rates.photo_bytes,
        "writing features": machines * rates.storage * 1e9 / FEATURE_BYTES,
    }
    slowest = min(speeds, key=speeds.get)
    return (
        data.name,
        str(gpus),
        f"{speeds[slowest]:,.0f}",
        slowest,
        _hours(data.photos / speeds[slowest]),
        f"{data.photos * FEATURE_BYTES / 1e12:.2f}",
    )


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.2f}" if seconds < 36_000 else f"{seconds / 3600:.0f}"


def _check(rounds: int) -> Table:
    """Returns the table of the check: a step on this machine, estimated and measured."""
    import statistics

    from benchmarks.shared.compared_heads import Ours, Product, make_arrays

    head = count_head(205, 7, 320, SCENE, EMBEDDING)
    ours, size = Ours(make_arrays(205, BATCH, (7, 7, 320))), 2048
    seconds = in_turns({"step": ours.step, "product": Product(size).run}, rounds)
    rate = 2 * size**3 / statistics.median(seconds["product"])
    estimated = BATCH * head.step_operations / rate
    measured = statistics.median(seconds["step"])
    row = (
        f"{BATCH * head.step_operations / 1e9:.1f} GFLOP",
        f"{rate / 1e9:.0f} GFLOP/s",
        f"{1e3 * estimated:.0f} ms",
        f"{1e3 * measured:.0f} ms",
        f"{estimated / measured:.2f}",
    )
    columns = ("operations", "products here", "estimated", "measured", "estimated / measured")
    return Table(
        "Check on this CPU: a step, 7x7x320 regions, 205 classes, 32 photos", columns, [row]
    )


def main(argv=None) -> int:
    options = {
        f"--{field.name.replace('_', '-')}": {
            "type": field.type,
            "default": field.default,
            "metavar": "X",
            "help": f"{field.metadata['help']} (default: {field.default})",
        }
        for field in dataclasses.fields(Rates)
    }
    return benchmark_command(
        "scale", __doc__, lambda smoke, **rates: measure(smoke, Rates(**rates)), argv, options
    )


if __name__ == "__main__":
    sys.exit(main())
