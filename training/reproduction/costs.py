"""Costs of systems (table 5): operations counted in the graph, time and memory measured.

`python -m training.reproduction.costs RUN` prints the peak memory of a process that computes scores
with a run, for `measure_costs`.
"""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from biam_tf.csv_files import write_rows
from biam_tf.runs import load_run
from training.machine import peak_memory
from training.pipeline.run_folder import RunFolder
from training.reproduction import published
from training.reproduction.entries import TrainedEntry
from training.reproduction.results import figure_of
from training.scoring.scorer import make_scorer
from training.tables.plots import COLORS, new_panels, save_figure
from training.tables.table import Table, mean_and_spread

BATCH, REPETITIONS = 32, 20


@dataclasses.dataclass(frozen=True)
class Costs:
    """Costs of one run.

    Attributes:
        train_seconds: of all epochs, including validation.
        inference_ms: of the head per photo, in batches of 32.
        gflop: 10^9 operations of the head per photo; see `count_operations`.
        memory_bytes: peak of a process that only loads the run and computes scores.
    """

    train_seconds: float
    inference_ms: float
    gflop: float
    memory_bytes: int


def count_operations(head: keras.Model, class_embeddings: np.ndarray) -> int:
    """Counts the operations of a head for one photo: matrix products and convolutions.

    A multiplication and the addition after it count as two operations. Elementwise operations
    (activations, softmax, normalization, the search for the strongest regions) are not counted;
    they are a small share in all systems here. What depends on the classes alone, such as the
    mapping of their embeddings, is computed once for all photos and not counted either.

    Raises:
        ValueError: the graph does not have the size of a product.
    """
    shapes = {tensor.name: (1, *tensor.shape[1:]) for tensor in head.inputs}
    features = [name for name in shapes if name != "class_embeddings"]
    constant = tf.constant(class_embeddings, tf.float32)

    @tf.function(
        input_signature=[tf.TensorSpec(shapes[name]) for name in features], autograph=False
    )
    def score(*tensors):
        given = {**dict(zip(features, tensors, strict=True)), "class_embeddings": constant}
        return head([given[tensor.name] for tensor in head.inputs], training=False)

    graph = convert_variables_to_constants_v2(score.get_concrete_function()).graph
    varying = _depending_on_inputs(graph)
    return sum(_operations_of(op) for op in graph.get_operations() if op.name in varying)


def measure_costs(folder: pathlib.Path) -> Costs:
    """Measures the costs of a run on this machine."""
    run = load_run(folder)
    embeddings = run.vocabulary.embeddings
    scorer = make_scorer(run.head)
    inputs, embeddings_tensor = random_features(run.head), tf.constant(embeddings, tf.float32)
    scorer(inputs, embeddings_tensor)  # compiles
    seconds = []
    for _ in range(REPETITIONS):
        begun = time.perf_counter()
        scorer(inputs, embeddings_tensor)["scores"].numpy()
        seconds.append(time.perf_counter() - begun)
    records = [
        json.loads(line) for line in RunFolder(folder).log.read_text(encoding="utf-8").splitlines()
    ]
    return Costs(
        train_seconds=sum(record["seconds"] for record in records),
        inference_ms=1000 * float(np.median(seconds)) / BATCH,
        gflop=count_operations(run.head, embeddings) / 1e9,
        memory_bytes=peak_of_process(folder),
    )


def peak_of_process(folder: pathlib.Path) -> int:
    """Returns the peak memory in bytes of a process that only loads a run and computes scores."""
    # -P and the path: the current folder may have a package `training` of its own.
    command = [sys.executable, "-P", "-m", "training.reproduction.costs", str(folder)]
    package_root = str(pathlib.Path(__file__).parents[2])
    path = os.pathsep.join([package_root, *filter(None, [os.environ.get("PYTHONPATH")])])
    printed = subprocess.run(
        command,
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    ).stdout
    return int(printed)


def format_costs(trained: Mapping[str, TrainedEntry], costs: Mapping[str, Costs]) -> str:
    """Returns table 5 as Markdown, with the paper's figures (Tesla V100, NUS-WIDE)."""
    header = ["Method", "ZSL mAP", "Train", "Inference", "FLOPs", "Memory"]
    header += ["paper: Train", "Inference", "FLOPs", "Memory"]
    rows = []
    for key, row in trained.items():
        if row.error:
            rows.append([row.entry.title, "failed", *[""] * (len(header) - 2)])
            continue
        own, paper = costs[key], published.COMPUTE.get(key)
        cells = [
            row.entry.title,
            mean_and_spread([figure_of(metrics, "zsl", "mAP") for metrics in row.metrics]),
            f"{own.train_seconds:.0f} s",
            f"{own.inference_ms:.2f} ms",
            f"{own.gflop:.3f} G",
            f"{own.memory_bytes / 1e9:.2f} GB",
        ]
        if paper is None:
            cells += ["-"] * 4
        else:
            cells += [
                f"{paper['train_hours'][0]} h",
                f"{paper['inference_ms']} ms",
                f"{paper['gflop']} G",
                f"{paper['memory_gb']} GB",
            ]
        rows.append(cells)
    return Table("", header, rows).markdown()


def write_costs(
    path: pathlib.Path, trained: Mapping[str, TrainedEntry], costs: Mapping[str, Costs]
) -> None:
    """Writes a CSV row for every system that was measured."""
    names = [field.name for field in dataclasses.fields(Costs)]
    rows = [
        [trained[key].entry.title, str(trained[key].folders[0]), *dataclasses.astuple(own)]
        for key, own in costs.items()
    ]
    write_rows(path, ["method", "run", *names], rows)


def draw_costs(
    path: pathlib.Path, trained: Mapping[str, TrainedEntry], costs: Mapping[str, Costs]
) -> None:
    """Draws each cost, and the ZSL mAP, with one bar per system."""
    values: dict[str, Sequence[float]] = {
        "ZSL mAP, per cent": [
            float(np.mean([figure_of(metrics, "zsl", "mAP") for metrics in trained[key].metrics]))
            for key in costs
        ],
        "training, s": [own.train_seconds for own in costs.values()],
        "inference, ms per photo": [own.inference_ms for own in costs.values()],
        "operations, 10^9 per photo": [own.gflop for own in costs.values()],
        "memory, GB": [own.memory_bytes / 1e9 for own in costs.values()],
    }
    figure, planes = new_panels(len(values), 13.0, 1.2 + 0.4 * len(costs), sharey=True)
    positions = np.arange(len(costs))
    for number, (plane, (label, own)) in enumerate(zip(planes, values.items(), strict=True)):
        bars = plane.barh(positions, own, 0.6, color=COLORS[number > 0], alpha=0.85)
        labels = ["-" if np.isnan(value) else f"{value:.3g}" for value in own]
        plane.bar_label(bars, labels=labels, padding=2, fontsize=8)
        plane.set_xlabel(label, fontsize=9)
        plane.margins(x=0.2)
        plane.spines[["top", "right"]].set_visible(False)
    planes[0].set_yticks(positions, [trained[key].entry.title for key in costs])
    planes[0].invert_yaxis()
    save_figure(figure, path)


NOTES = f"""\
Train: all epochs of one run with validation, from stored features. Inference: of the head per photo
in batches of {BATCH}, median of {REPETITIONS}. FLOPs: matrix products and convolutions of the head
per photo, two for a multiply-add. Memory: peak of a process that loads the run and scores batches.
The paper's figures: NUS-WIDE, one Tesla V100.
"""


def random_features(head: keras.Model) -> dict[str, tf.Tensor]:
    """Returns a batch of random inputs of a head, without the class embeddings."""
    rng = np.random.default_rng(0)
    return {
        tensor.name: tf.constant(rng.random((BATCH, *tensor.shape[1:])), tf.float32)
        for tensor in head.inputs
        if tensor.name != "class_embeddings"
    }


def _depending_on_inputs(graph: tf.Graph) -> set[str]:
    varying: set[str] = set()
    for op in graph.get_operations():  # in the order of creation: inputs come first
        if op.type == "Placeholder" or any(tensor.op.name in varying for tensor in op.inputs):
            varying.add(op.name)
    return varying


def _operations_of(op: tf.Operation) -> int:
    if op.type in ("MatMul", "BatchMatMul", "BatchMatMulV2"):
        transposed = op.get_attr("transpose_a" if op.type == "MatMul" else "adj_x")
        inner = op.inputs[0].shape[-2 if transposed else -1]
    elif op.type in ("Conv2D", "DepthwiseConv2dNative"):
        kernel = op.inputs[1].shape
        inner = kernel[0] * kernel[1] * (kernel[2] if op.type == "Conv2D" else 1)
    elif op.type == "Einsum":
        return 2 * _einsum_products(op)
    else:
        return 0
    return 2 * _product([*op.outputs[0].shape, inner] if op.outputs[0].shape.rank else [None], op)


def _einsum_products(op: tf.Operation) -> int:
    terms = op.get_attr("equation").decode().partition("->")[0].split(",")
    sizes: dict[str, int | None] = {}
    for term, tensor in zip(terms, op.inputs, strict=True):
        if "..." in term:
            raise ValueError(f"{op.name}: an ellipsis in an einsum cannot be counted")
        sizes |= dict(zip(term, tensor.shape, strict=True))
    return _product(sizes.values(), op)


def _product(sizes: Iterable[int | None], op: tf.Operation) -> int:
    result = 1
    for size in sizes:
        if size is None:
            raise ValueError(f"{op.name} ({op.type}): the graph does not have its size")
        result *= size
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Computes some batches of scores and prints the peak memory of this process in bytes."""
    (folder,) = sys.argv[1:] if argv is None else argv
    run = load_run(folder)
    scorer = make_scorer(run.head)
    embeddings = tf.constant(run.vocabulary.embeddings, tf.float32)
    for _ in range(3):
        scorer(random_features(run.head), embeddings)["scores"].numpy()
    print(peak_memory())
    return 0


if __name__ == "__main__":
    sys.exit(main())
