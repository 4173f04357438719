"""Kills a training at random moments and compares the weights: `python -m benchmarks.resume`.

A small run is trained twice on each number of devices: once without interruption, and once in
processes that are stopped with SIGKILL at random moments, after which the same command resumes the
run. The final weights must be equal, bit for bit. A checkpoint is written after every step, so that
many kills interrupt the writing of one. To save time, the processes are forked from one that has
imported TensorFlow.

example:
  python -m benchmarks.resume --kills 5 --devices 1
"""

import argparse
import contextlib
import multiprocessing
import os
import pathlib
import random
import sys
import tempfile
import time
from collections.abc import Sequence

from biam_tf.command_line import run_command

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

SETTINGS = [
    "data.name=folder",
    "backbone.name=small",
    "head.channels=8",
    "head.top_k=3",
    "head.region_context=none",  # the slower half of the head, which is not relevant here
    "head.scene_dropout=0.5",
    "training.epochs=8",
    "training.batch_size=8",
    "training.ema_momentum=0.9",
    "training.precision=mixed_float16",
    "training.checkpoint_minutes=1e-9",
]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.resume",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--kills", type=int, default=20, help="kills of each run (default: 20)")
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 2], help="default: 1 2")
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the random moments (default: 0)"
    )
    return run_command(parser, _measure, argv)


def _measure(arguments: argparse.Namespace) -> int:
    """Prints every kill and whether the weights are equal; returns 1 if they differ."""
    from training.data.scenes.reader import draw_scenes

    different = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        scenes = draw_scenes(folder / "scenes", pictures=40, seed=3)
        for devices in arguments.devices:
            command = _command(scenes, devices)
            uninterrupted, killed = (
                folder / f"uninterrupted-{devices}",
                folder / f"killed-{devices}",
            )
            _run_to_completion([*command, "--set", f"output={uninterrupted}"])
            moments = random.Random(arguments.seed)
            kills = run_with_kills(
                [*command, "--set", f"output={killed}"], killed, arguments.kills, moments
            )
            equal = same_models(uninterrupted, killed)
            different += not equal
            print(
                f"{devices} device(s), killed {kills} times: weights "
                f"{'equal bit for bit' if equal else 'DIFFERENT'}",
                flush=True,
            )
    return int(different > 0)


def run_with_kills(
    command: list[str], output: pathlib.Path, kills: int, moments: random.Random
) -> int:
    """Runs a training command, kills it `kills` times, then lets it finish.

    A process is killed up to two seconds after it has written its first checkpoint, so that no
    kill happens during the start of Python.

    Returns:
        The number of kills, less than `kills` if the training finished before.
    """
    done = 0
    while done < kills:
        before = _newest_checkpoint(output)
        process = _start(command)
        while process.is_alive() and _newest_checkpoint(output) <= before:
            time.sleep(0.01)
        delay = moments.uniform(0, 2)
        process.join(delay)
        if not process.is_alive():
            break  # it finished before
        process.kill()
        process.join()
        done += 1
        print(
            f"kill {done}: {delay:.2f} s after a checkpoint; {_describe_files(output)}",
            flush=True,
        )
    _run_to_completion(command)
    return done


def same_models(one: pathlib.Path, other: pathlib.Path) -> bool:
    """Returns whether the saved weights of two runs are equal, bit for bit."""
    import keras

    import biam_tf.layers  # noqa: F401  registers the layers for loading

    pairs = []
    for name in ("model.keras", "backbone.keras"):
        models = [keras.models.load_model(folder / name) for folder in (one, other)]
        pairs += zip(*(model.get_weights() for model in models), strict=True)
    return all(a.tobytes() == b.tobytes() for a, b in pairs)


def _command(scenes: pathlib.Path, devices: int) -> list[str]:
    strategy = "mirrored" if devices > 1 else "default"
    own = [f"data.directory={scenes}", f"strategy={strategy}", f"logical_cpu_devices={devices}"]
    command = []
    for setting in [*SETTINGS, *own]:
        command += ["--set", setting]
    return command


def _start(command: list[str]) -> multiprocessing.Process:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["training.pipeline.whole_run"])
    process = context.Process(target=_train, args=(command,))
    process.start()
    return process


def _train(command: list[str]) -> None:
    from training import run

    with open(os.devnull, "w") as null, contextlib.redirect_stdout(null):
        sys.exit(run.main(command))


def _run_to_completion(command: list[str]) -> None:
    process = _start(command)
    process.join()
    if process.exitcode:
        sys.exit(f"the training failed with status {process.exitcode}")


def _newest_checkpoint(output: pathlib.Path) -> int:
    folder = output / "checkpoints"
    names = os.listdir(folder) if folder.is_dir() else []
    return max((int(name) for name in names if name.isdecimal()), default=0)


def _describe_files(output: pathlib.Path) -> str:
    """Describes the files that a killed process left."""
    log = output / "log.jsonl"
    epochs = len(log.read_text().splitlines()) if log.exists() else 0
    half = [str(path.relative_to(output)) for path in sorted(output.rglob(".*partial*"))]
    written = f"checkpoint {_newest_checkpoint(output)}, {epochs} epochs in the log"
    return written + (f"; partially written: {', '.join(half)}" if half else "")


if __name__ == "__main__":
    sys.exit(main())
