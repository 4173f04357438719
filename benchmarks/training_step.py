"""Training steps and scoring, against the released method in PyTorch: `benchmarks.training_step`.

The head of the released code at its sizes: 14x14x512 region features, a scene feature of 4,096, 300
numbers a class embedding, 256 channels, 8 heads. A step is loss, gradients and Adam. In turns, each
side in a process of its own:

1. steps and scoring with 925 classes (NUS-WIDE's seen), 32 photos;
2. steps with 7,186 classes (Open Images' seen), 8 photos;
3. scoring against its floor: the same floating-point operations as products of large matrices;
4. ours under `mixed_bfloat16` against float32, and, for 7x7x320 region features and 205 classes
   (Corel5k), that and compiled by XLA.

Then the peak memory of the steps, and whether 32 photos with 7,186 classes run in 24 GB of address
space. Before all, the rival's and our scores, losses and gradients are compared on the same
weights. Needs the extra [benchmarks], PyTorch.
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

from benchmarks.shared.tables import Table, benchmark_command
from benchmarks.shared.timing import Elsewhere, in_own_process, in_turns, milliseconds, ratios
from biam_tf.errors import UserError

REGIONS, SCENE, EMBEDDING, POSITIVES = (14, 14, 512), 4096, 300, 4
SMOKE = {"channels": 32, "fused_channels": 64}
SIDES = ("ours", "released method")
ADDRESS_SPACE = 24 << 30


class Ours:
    """Our head, step and scorer on given arrays."""

    def __init__(
        self,
        arrays: dict,
        precision: str = "float32",
        xla: bool = False,
        in_blocks: bool = True,
        **settings,
    ):
        import keras
        import tensorflow as tf

        from biam_tf.models import bind_vocabulary, build_head
        from biam_tf.models.head import scores_alone
        from training.config import TrainingConfig
        from training.loop.objective import Objective
        from training.loop.train_step import TrainStep
        from training.scoring.scorer import make_scorer

        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(precision)
        try:
            shape = arrays["region_features"].shape[1:]
            self.head = build_head(shape, SCENE, EMBEDDING, preset="released", **settings)
            scored = scores_alone(self.head) if in_blocks else self.head
            bound = bind_vocabulary(scored, arrays["class_embeddings"])
        finally:
            keras.config.set_dtype_policy(before)
        config = TrainingConfig(batch_size=len(arrays["labels"]), precision=precision)
        self._objective = Objective.of_loss(config.loss)
        self._step = TrainStep(config, tf.distribute.get_strategy(), bound, self._objective, 100)
        if xla:
            self._step._finish = tf.function(self._step._finish.python_function, jit_compile=True)
        names = ("region_features", "scene_feature")
        self._inputs = {name: tf.constant(arrays[name]) for name in names}
        self._labels = tf.constant(arrays["labels"])
        self._classes = tf.constant(arrays["class_embeddings"])
        self._scorer = make_scorer(scored)

    def count_operations(self) -> float:
        """Operations of scoring all photos, a multiply-add as two."""
        from training.reproduction.costs import count_operations

        return len(self._labels) * float(count_operations(self.head, self._classes.numpy()))

    def step(self) -> float:
        """One training step; returns its loss."""
        return self._step(iter([(self._inputs, self._labels)]), stop=False).loss

    def score(self):
        """Scores (B, C) in inference."""
        return self._scorer(self._inputs, self._classes)["scores"].numpy()

    def loss_and_gradient(self, scores):
        """The batch's loss and its gradient in the scores, as arrays."""
        import tensorflow as tf

        scores = tf.constant(scores)
        with tf.GradientTape() as tape:
            tape.watch(scores)
            losses = self._objective.losses(self._labels, {"scores": scores})
            loss = tf.reduce_mean(losses)
        return loss.numpy(), tape.gradient(loss, scores).numpy()


class Rival:
    """The released method in PyTorch on the same arrays."""

    def __init__(self, arrays: dict, channels: int = 256, fused_channels: int = 512):
        try:
            import torch
        except ImportError as error:
            raise UserError("the rival is PyTorch: pip install -e '.[benchmarks]'") from error

        from benchmarks.shared.torch_rival import TorchBiAM

        torch.manual_seed(0)
        self._torch = torch
        self.model = TorchBiAM(channels=channels, fused_channels=fused_channels)
        self._optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3, betas=(0.5, 0.999))
        regions = arrays["region_features"].transpose(0, 3, 1, 2).copy()
        rest = (arrays["scene_feature"], arrays["class_embeddings"])
        self._inputs = [torch.from_numpy(array) for array in (regions, *rest)]
        self._labels = torch.from_numpy(arrays["labels"])

    def step(self) -> float:
        """One training step; returns its loss."""
        from benchmarks.shared.torch_rival import pairwise_loss

        self._optimizer.zero_grad()
        loss = pairwise_loss(self.model.train()(*self._inputs), self._labels)
        loss.backward()
        self._optimizer.step()
        return loss.item()

    def score(self):
        """Scores (B, C) in inference."""
        with self._torch.no_grad():
            return self.model.eval()(*self._inputs).numpy()

    def loss_and_gradient(self, scores):
        """The batch's loss and its gradient in the scores, as arrays."""
        from benchmarks.shared.torch_rival import pairwise_loss

        scores = self._torch.from_numpy(scores).requires_grad_()
        loss = pairwise_loss(scores, self._labels)
        loss.backward()
        return loss.detach().numpy(), scores.grad.numpy()


def make_arrays(classes: int, photos: int, regions: tuple[int, ...] = REGIONS) -> dict:
    """Random region features, scene features, class embeddings and labels of the sizes above."""
    import numpy as np

    rng = np.random.default_rng(0)
    labels = np.full((photos, classes), -1, np.int8)
    np.put_along_axis(labels, rng.integers(0, classes, (photos, POSITIVES)), 1, axis=1)
    embeddings = rng.normal(size=(classes, EMBEDDING)).astype(np.float32)
    return {
        "region_features": rng.normal(size=(photos, *regions)).astype(np.float32),
        "scene_feature": rng.normal(size=(photos, SCENE)).astype(np.float32),
        "class_embeddings": embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True),
        "labels": labels,
    }


def measure(smoke: bool) -> list[Table]:
    """Makes the tables of the module's text."""
    settings = SMOKE if smoke else {}
    with Elsewhere(_Agreement, make_arrays(50, 2), settings) as both:
        tables = [both.call("table")]
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
    columns = ("", "released method", "ours", "times the speed (range over rounds)")
    tables.append(Table("Training steps and scoring against the released method", columns, rows))
    classes, photos = next(iter(sizes.values()))
    tables.append(_floor(classes, photos, rounds, settings))
    tables.append(_other_ways(classes, photos, rounds, settings))
    tables.append(_memory(sizes if smoke else {**sizes, "7,186 classes, 32 photos": (7186, 32)}))
    return tables


def _compared(title: str, seconds: dict) -> tuple[str, ...]:
    ours, rival = seconds["ours"], seconds["rival"]
    return title, milliseconds(rival), milliseconds(ours), ratios(rival, ours)


def _times(sides: dict, arrays: dict, methods, rounds: int, settings: dict) -> dict:
    """Returns the seconds of each method of each side, in turns, each in its own process."""
    with contextlib.ExitStack() as stack:
        made = {
            name: stack.enter_context(Elsewhere(make, arrays, **settings))
            for name, make in sides.items()
        }
        return {
            method: in_turns(
                {name: functools.partial(side.call, method) for name, side in made.items()}, rounds
            )
            for method in methods
        }


class _Agreement:
    """Both sides on the rival's weights."""

    def __init__(self, arrays: dict, settings: dict):
        self._arrays, self._settings = arrays, settings

    def table(self) -> Table:
        """Compares them.

        Raises:
            UserError: they differ.
        """
        import numpy as np
        import torch

        from biam_tf.checkpoints import load_released_checkpoint

        rival = Rival(self._arrays, **self._settings)
        ours = Ours(self._arrays, **self._settings)
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "rival.pth"
            torch.save({"state_dict": rival.model.state_dict()}, path)
            ours.head.set_weights(load_released_checkpoint(path, num_heads=8).get_weights())
        scores = rival.score()
        loss, gradient = rival.loss_and_gradient(scores.copy())
        own_loss, own_gradient = ours.loss_and_gradient(scores)
        differences = {
            "scores": np.abs(ours.score() - scores).max() / np.abs(scores).max(),
            "loss": abs(own_loss - loss) / loss,
            "gradient of the loss": np.abs(own_gradient - gradient).max() / np.abs(gradient).max(),
        }
        for what, difference in differences.items():
            if difference > 1e-4:
                raise UserError(f"{what}: ours and the rival's differ by {difference:.1e}")
        rows = [(what, f"{difference:.1e}") for what, difference in differences.items()]
        return Table("Same weights, same photos", ("", "largest relative difference"), rows)


class Product:
    """A product of two large matrices, the fastest work there is for a processor."""

    def __init__(self, size: int):
        import numpy as np
        import tensorflow as tf

        matrix = tf.constant(np.random.default_rng(0).normal(size=(size, size)), tf.float32)
        self._product = tf.function(lambda: tf.reduce_sum(tf.matmul(matrix, matrix)))

    def run(self) -> float:
        """Takes the product; returns the sum of its numbers."""
        return float(self._product())


def _floor(classes: int, photos: int, rounds: int, settings: dict) -> Table:
    """Scoring against the time of as many operations in products of large matrices."""
    import numpy as np

    arrays = make_arrays(classes, photos)
    size = 256 if settings else 2048
    with Elsewhere(Ours, arrays, **settings) as ours, Elsewhere(Product, size) as product:
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
    title = f"Scoring {classes} classes, {photos} photos, against its floor"
    columns = ("operations", f"product of {size}x{size} matrices", "floor", "ours", "ours / floor")
    return Table(title, columns, [row])


def _other_ways(classes: int, photos: int, rounds: int, settings: dict) -> Table:
    """Our steps under mixed precision and XLA."""
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
    columns = ("", "float32", "the other way", "times the speed")
    return Table(f"Our step in other ways, {photos} photos", columns, rows)


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
            raise UserError(f"our step with {title} does not run in {ADDRESS_SPACE >> 30} GB")
        rows.append(
            (
                title,
                "does not run" if rival is None else f"{rival / 1e9:.2f} GB",
                f"{ours / 1e9:.2f} GB",
                "" if rival is None else f"{rival / ours:.1f}",
            )
        )
    columns = ("", "released method", "ours", "times less")
    note = f"Beyond the imports, in a process of its own with {ADDRESS_SPACE >> 30} GB."
    return Table("Peak memory of three steps", columns, rows, note)


def _peak_of_side(argv: list[str]) -> int:
    """The child of `_memory`: three steps of one side; prints its peak."""
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
    """Runs the command line; returns the exit status."""
    argv = sys.argv[1:] if argv is None else list(argv)
    if "--side" in argv:
        return _peak_of_side(argv)
    return benchmark_command("training_step", __doc__, measure, argv)


if __name__ == "__main__":
    sys.exit(main())
