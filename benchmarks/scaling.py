"""A training on 1 and 2 devices and in 1 to 3 processes: `python -m benchmarks.scaling`.

The head is trained on stored features of drawn pictures, always with the same batches of 36; the
backbone is trained for two epochs before. Dropout is left out, because its noise has the shape of a
device's part of a batch, and so is everything that amplifies rounding errors: Adam, the hinge over
pairs of classes (which gains or loses whole pairs), and a high learning rate.

Prints the largest relative difference of the losses from those on one device, and the speed.
Several devices of one processor share its cores, so the speed shows the cost of sharing, not the
gain of more machines.

example:
  python -m benchmarks.scaling --processes 2
"""

import argparse
import json
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence

from biam_tf.command_line import run_command

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from training.tables.table import Table

BATCH, STEPS = 36, 20
BACKBONE = ["data.name=folder", "head.channels=8", "training.epochs=2", "training.batch_size=12"]
SETTINGS = [
    "data.name=folder",
    "backbone.trainable=false",
    "head.attention_dropout=0.0",
    "head.output_dropout=0.0",
    "head.scene_dropout=0.0",
    f"training.batch_size={BATCH}",
    f"training.epochs={STEPS}",  # of one step each, so that the log contains the loss of every step
    "training.optimizer.name=sgd",
    "training.optimizer.learning_rate=1e-3",
    "training.schedule.warmup_epochs=0",
    "training.loss.name=softmax",
    "training.loss.over_images=0.0",
]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scaling",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--processes", type=int, default=3, help="largest number of processes (default: 3)"
    )
    parser.add_argument("--channels", type=int, default=8, help="channels of the head (default: 8)")
    return run_command(parser, _measure, argv)


def _measure(arguments: argparse.Namespace) -> None:
    from training.data.scenes.reader import draw_scenes

    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        scenes = draw_scenes(folder / "scenes", pictures=BATCH, seed=3)
        _train(folder / "backbone", [*BACKBONE, f"data.directory={scenes}"], processes=1)
        shared = [
            *SETTINGS,
            f"data.directory={scenes}",
            f"data.feature_store={folder / 'features'}",
            f"backbone.weights={folder / 'backbone' / 'backbone.keras'}",
            f"head.channels={arguments.channels}",
        ]
        one = _train(folder / "one", shared, processes=1)
        mirrored = [*shared, "strategy=mirrored", "logical_cpu_devices=2"]
        rows = [
            _row("1 device", one, one),
            _row("2 devices", _train(folder / "mirrored", mirrored, processes=1), one),
        ]
        for count in range(1, arguments.processes + 1):
            own = [*shared, "strategy=multi_worker"]
            rows.append(
                _row(
                    f"{count} process{'es' * (count > 1)}",
                    _train(folder / f"{count}", own, count),
                    one,
                )
            )
    columns = ("", f"largest relative difference of {STEPS} losses", "images/s")
    print(Table("Losses and speed", columns, rows).markdown())


def _train(output: pathlib.Path, settings: list[str], processes: int) -> list[dict]:
    """Runs a training and returns the records of its log."""
    command = [sys.executable, "-m", "training.run"]
    for setting in [*settings, f"output={output}"]:
        command += ["--set", setting]
    cluster = {"worker": [f"localhost:{port}" for port in _free_ports(processes)]}
    workers = [
        subprocess.Popen(
            command,
            env=os.environ
            | {
                "TF_CONFIG": json.dumps(
                    {"cluster": cluster, "task": {"type": "worker", "index": index}}
                )
            },
            stdout=subprocess.DEVNULL,
        )
        for index in range(processes)
    ]
    if any([worker.wait() for worker in workers]):
        sys.exit(f"{output.name}: a process failed")
    return [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("localhost", 0)) for _ in range(count)]
    ports = [listening.getsockname()[1] for listening in sockets]
    for listening in sockets:
        listening.close()
    return ports


def _row(name: str, records: list[dict], one: list[dict]) -> tuple[str, str, str]:
    pairs = zip(records, one, strict=True)
    difference = max(abs(a["loss"] - b["loss"]) / abs(b["loss"]) for a, b in pairs)
    # The first step includes tracing the graph.
    speed = statistics.median(record["images_per_second"] for record in records[1:])
    return name, f"{difference:.1e}", f"{speed:.0f}"


if __name__ == "__main__":
    sys.exit(main())
