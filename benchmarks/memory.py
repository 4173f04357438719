"""Peak memory of training and scoring, each in a new process: `python -m benchmarks.memory`.

Without arguments: training steps (with ranking loss and Adam) and scoring with 1,000, 8,000 and
20,000 random class embeddings of 100 dimensions, random features with the sizes of
EfficientNet-Lite0 at 224 pixels (7x7x320 regions, a scene feature of 1280), batches of 32 and the
head of configs/corel5k.yaml. The steps are those of `training.run`, and scoring is that of
evaluation. With --run: the peak memory of a whole run with the options that follow. With --labels:
labels with the sizes of Open Images (9 million photos, 7,586 classes, nine labels per photo), from
what the reader collects to batches, thresholds and the bootstrap; 4 GB of disk and some minutes.

examples:
  python -m benchmarks.memory
  python -m benchmarks.memory --classes 100 1000 --batch-size 16
  python -m benchmarks.memory --labels
  python -m benchmarks.memory --run --config configs/corel5k.yaml \\
      --set data.directory=COREL5K --set vocabulary.word_vectors=GLOVE.txt.gz
"""

import argparse
import os
import resource
import subprocess
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # read when TensorFlow is first imported

from biam_tf.command_line import run_command
from biam_tf.errors import UserError

GRID, CHANNELS, SCENE, EMBEDDING = 7, 320, 1280, 100
POSITIVES = 4  # classes on a photo, as in Corel5k
HEAD = {"preset": "released", "region_dropout": 0.5}
PARTS = {"start": "imports only", "train": "training", "score": "scoring"}


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.memory",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--classes", type=int, nargs="+", default=[1_000, 8_000, 20_000])
    parser.add_argument("--batch-size", type=int, default=32, help="default: 32")
    parser.add_argument(
        "--steps", type=int, default=10, help="steps of each measurement; default: 10"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the random numbers; default: 0"
    )
    parser.add_argument(
        "--labels",
        action="store_true",
        help="measure labels, thresholds and bootstrap with the sizes of Open Images instead",
    )
    parser.add_argument(
        "--run",
        nargs=argparse.REMAINDER,
        metavar="OPTION",
        help="measure `python -m training.run OPTION ...` instead; must be last",
    )
    parser.add_argument("--part", choices=list(PARTS), help=argparse.SUPPRESS)
    return run_command(parser, _command, argv)


def _command(arguments: argparse.Namespace) -> int:
    if arguments.part:
        _measure(arguments)
        return 0
    if arguments.labels:
        return _labels_of_open_images()
    if arguments.run is not None:
        return _whole_run(arguments.run)
    numbers = {"--classes": min(arguments.classes) - POSITIVES, "--steps": arguments.steps}
    for option, number in {**numbers, "--batch-size": arguments.batch_size}.items():
        if number < 1:
            raise UserError(f"{option}: the value is too small")
    base = _peak_of(arguments, "start", arguments.classes[0])
    print(f"MB, batches of {arguments.batch_size}; {PARTS['start']}: {base / 1e6:.0f}\n")
    print("classes   training    scoring", flush=True)
    for classes in arguments.classes:
        peaks = [_peak_of(arguments, part, classes) for part in ("train", "score")]
        print(f"{classes:7d}" + "".join(f"{peak / 1e6:11.0f}" for peak in peaks), flush=True)
    return 0


def _labels_of_open_images() -> int:
    from benchmarks.shared.timing import in_own_process

    print("part         matrix, GB   kept, MB   peak, MB   of imports   seconds", flush=True)
    for part in ("labels", "thresholds", "bootstrap"):
        found = in_own_process("benchmarks.shared.open_images_labels", [part])
        sizes = found["matrix"] / 1e9, found["kept"] / 1e6, found["peak"] / 1e6, found["base"] / 1e6
        text = "{:>13.1f}{:>11.0f}{:>11.0f}{:>13.0f}".format(*sizes)
        print(f"{part:10s}{text}{found['seconds']:10.0f}", flush=True)
    return 0


def _peak_of(arguments, part: str, classes: int) -> int:
    """Returns the peak memory of a new process, in bytes."""
    options = ["--part", part, "--classes", str(classes), "--seed", str(arguments.seed)]
    options += ["--batch-size", str(arguments.batch_size), "--steps", str(arguments.steps)]
    command = [sys.executable, "-m", "benchmarks.memory", *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise UserError(f"{part} with {classes} classes ended with status {done.returncode}")
    return int(done.stdout.split()[-1])


def _whole_run(options: list[str]) -> int:
    status = subprocess.run([sys.executable, "-m", "training.run", *options]).returncode
    if status == 0:
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        peak *= 1 if sys.platform == "darwin" else 1024
        print(f"peak memory of the run: {peak / 1e6:.0f} MB")
    return status


def _measure(arguments: argparse.Namespace) -> None:
    import keras
    import numpy as np
    import tensorflow as tf

    from biam_tf.models import bind_vocabulary, build_head
    from training.config import TrainingConfig
    from training.loop.objective import Objective
    from training.loop.train_step import TrainStep
    from training.machine import peak_memory
    from training.scoring.scorer import make_scorer

    if arguments.part == "start":
        print(peak_memory())
        return
    (classes,), batch = arguments.classes, arguments.batch_size
    keras.utils.set_random_seed(arguments.seed)
    rng = np.random.default_rng(arguments.seed)
    embeddings = rng.normal(size=(classes, EMBEDDING)).astype(np.float32)
    head = build_head((GRID, GRID, CHANNELS), SCENE, EMBEDDING, **HEAD)

    def features() -> dict:
        regions = rng.normal(size=(batch, GRID, GRID, CHANNELS)).astype(np.float32)
        scenes = rng.normal(size=(batch, SCENE)).astype(np.float32)
        return {"region_features": tf.constant(regions), "scene_feature": tf.constant(scenes)}

    if arguments.part == "score":
        scorer, matrix = make_scorer(head), tf.constant(embeddings)
        for _ in range(arguments.steps):
            scorer(features(), matrix)["scores"].numpy()
    else:
        model = bind_vocabulary(head, embeddings)
        settings, strategy = TrainingConfig(batch_size=batch), tf.distribute.get_strategy()
        objective = Objective.of_loss(settings.loss)
        train_step = TrainStep(settings, strategy, model, objective, arguments.steps)
        for _ in range(arguments.steps):
            labels = np.full((batch, classes), -1, np.int8)
            np.put_along_axis(labels, rng.integers(0, classes, (batch, POSITIVES)), 1, axis=1)
            train_step(iter([(features(), tf.constant(labels))]), stop=False)
    print(peak_memory())


if __name__ == "__main__":
    sys.exit(main())
