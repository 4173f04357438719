"""The ranking loss and its gradient, compared with all pairs: `python -m benchmarks.loss`.

The rival computes the released code's three-dimensional array of pairs in PyTorch (requires the
extra [benchmarks]). Both run in turns in one process for 925 classes and 32 images and for 7,186
classes and 8 images. Then each runs in its own process with 24 GB of address space for 20,000
classes and 8 images, and for a batch of 256 images with 40 positives each, for which the rival
would need terabytes.
"""

import argparse
import json
import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is first imported

import numpy as np

from benchmarks.shared.benchmark_command import benchmark_command
from benchmarks.shared.timing import in_own_process, in_turns, milliseconds, ratios
from biam_tf.errors import UserError
from training.tables.table import Table

ADDRESS_SPACE = 24 << 30
POSITIVES = 4


def make_arrays(classes: int, images: int, positives: int = POSITIVES):
    """Returns random scores (B, C), float32, and labels (B, C), int8."""
    rng = np.random.default_rng(0)
    labels = np.full((images, classes), -1, np.int8)
    # Drawn without replacement, so that every image has the same number of positives.
    np.put_along_axis(labels, rng.random(labels.shape).argsort(axis=1)[:, :positives], 1, axis=1)
    return rng.normal(size=(images, classes)).astype(np.float32), labels


def our_loss(scores, labels):
    """Returns a function that returns the loss of the batch and its gradient as arrays."""
    import tensorflow as tf

    from biam_tf.losses import RankingLoss

    loss = RankingLoss(reduction="mean_of_violations")
    scores, labels = tf.constant(scores), tf.constant(labels)

    @tf.function
    def value_and_gradient(scores, labels):
        with tf.GradientTape() as tape:
            tape.watch(scores)
            value = loss(labels, scores)
        return value, tape.gradient(value, scores)

    return lambda: [tensor.numpy() for tensor in value_and_gradient(scores, labels)]


def pairwise_loss(scores, labels):
    """Returns the same function for the rival."""
    import torch

    from benchmarks.shared import torch_rival

    scores = torch.from_numpy(scores).requires_grad_()
    labels = torch.from_numpy(labels)

    def value_and_gradient():
        scores.grad = None
        value = torch_rival.pairwise_loss(scores, labels)
        value.backward()
        return value.detach().numpy(), scores.grad.numpy()

    return value_and_gradient


SIDES = {"ours": our_loss, "all pairs": pairwise_loss}


def measure(smoke: bool) -> list[Table]:
    """Returns the table described in the module docstring."""
    rows = []
    for classes, images, rounds in [(40, 3, 1)] if smoke else [(925, 32, 15), (7186, 8, 3)]:
        sides = {name: make(*make_arrays(classes, images)) for name, make in SIDES.items()}
        (value, gradient), (other, other_gradient) = (side() for side in sides.values())
        difference = max(abs(value - other), np.abs(gradient - other_gradient).max())
        if difference > 1e-5:
            raise UserError(f"{classes} classes: ours and the rival differ by {difference:.1e}")
        seconds = in_turns(sides, rounds)
        rows.append(
            (
                f"{classes:,} classes, {images} images",
                milliseconds(seconds["all pairs"]),
                milliseconds(seconds["ours"]),
                ratios(seconds["all pairs"], seconds["ours"]),
                f"{difference:.0e}",
            )
        )
    if not smoke:
        rows += [_alone(20_000, 8, POSITIVES), _alone(20_000, 256, 40)]
    columns = ("", "all pairs", "ours", "speed-up", "largest difference")
    return [Table("Ranking loss and gradient", columns, rows)]


def _alone(classes: int, images: int, positives: int) -> tuple[str, ...]:
    sizes = ["--classes", str(classes), "--images", str(images), "--positives", str(positives)]
    cells = {}
    for side in SIDES:
        try:
            found = in_own_process("benchmarks.loss", ["--side", side, *sizes], ADDRESS_SPACE)
        except UserError:
            if side == "ours":
                raise
            cells[side] = "does not run"
        else:
            beyond = (found["peak"] - found["before"]) / 1e9
            cells[side] = f"{milliseconds([found['seconds']])}, {beyond:.1f} GB"
    title = f"{classes:,} classes, {images} images, {positives} positives each"
    return title, cells["all pairs"], cells["ours"], "", ""


def _side(argv: list[str]) -> int:
    """Runs in the child process of `_alone`: prints the time and peak memory of one side."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--side", choices=list(SIDES))
    for option in ("--classes", "--images", "--positives"):
        parser.add_argument(option, type=int)
    arguments = parser.parse_args(argv)

    from training.machine import peak_memory

    arrays = make_arrays(arguments.classes, arguments.images, arguments.positives)
    make_function = SIDES[arguments.side]
    make_function(*make_arrays(10, 2, 1))()  # imports
    before = peak_memory()
    function = make_function(*arrays)
    function()
    start = time.perf_counter()
    function()
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "peak": peak_memory(), "before": before}))
    return 0


def main(argv=None) -> int:
    argv = sys.argv[1:] if argv is None else list(argv)
    if "--side" in argv:
        return _side(argv)
    return benchmark_command("loss", __doc__, measure, argv)


if __name__ == "__main__":
    sys.exit(main())
