"""A large run on several processes, rehearsed on this machine: `python -m benchmarks.rehearsal`.

Writes label files in the format of Open Images, by default for a million training photos with nine
labels each. A tenth of the photos exist, as links to a few drawn pictures. Then, as a user would:

1. `training.extract_features` with the smallest backbone;
2. `training.run` in four processes (`strategy: multi_worker`, `data.cache: stream`), all of which
   are killed after the first epoch;
3. the same command again, which resumes, evaluates and fits thresholds;
4. `serving.export` of the run.

Prints the seconds and the peak memory of each step; the processes of a step are added. Everything
is written to a temporary folder, or to --folder, which is kept.

examples:
  python -m benchmarks.rehearsal --rows 10000 --photos 1000 --processes 2
  nice -n 10 python -m benchmarks.rehearsal
"""

import argparse
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is first imported

from biam_tf.command_line import run_command
from biam_tf.errors import UserError

TRAINABLE, OTHER, EMBEDDING = 400, 50, 16
LABELS, PRESENT, PICTURES = 9, 6, 50
SPLITS = {"train": 1.0, "validation": 0.01, "test": 0.02}
HEADER = "ImageID,Source,LabelName,Confidence"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rehearsal",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    numbers = {
        "--rows": (1_000_000, "training photos in the files of labels"),
        "--photos": (100_000, "training photos that are there, with features"),
        "--processes": (4, "processes that train together"),
        "--epochs": (2, "epochs; the processes are killed after the first"),
        "--batch-size": (256, "photos per step of all processes"),
    }
    for option, (default, text) in numbers.items():
        parser.add_argument(
            option, type=int, default=default, help=f"{text} (default: {default:,})"
        )
    parser.add_argument("--folder", type=pathlib.Path, help="where everything is written and kept")
    return run_command(parser, _command, argv)


def _command(arguments: argparse.Namespace) -> None:
    if arguments.epochs < 2:
        raise UserError("--epochs: at least 2, because the run is killed after the first")
    if arguments.folder is not None:
        arguments.folder.mkdir(parents=True, exist_ok=True)
        return _rehearse(arguments.folder.resolve(), arguments)
    with tempfile.TemporaryDirectory() as folder:
        return _rehearse(pathlib.Path(folder), arguments)


def _rehearse(folder: pathlib.Path, arguments: argparse.Namespace) -> None:
    data, run = folder / "open_images", folder / "runs" / "rehearsal"
    if not data.exists():
        write_data(data, arguments.rows, arguments.photos)
    weights = folder / "small.weights.h5"
    print("step                        seconds   peak, MB", flush=True)
    if not weights.exists():
        _one("weights of the backbone", ["-c", _SAVE_WEIGHTS, str(weights)])
    settings = [
        "data.name=open_images",
        f"data.directory={data}",
        "data.cache=stream",
        f"data.feature_store={folder / 'features'}",
        f"vocabulary.word_vectors={data / 'vectors.txt'}",
        "backbone={name: small, trainable: false, weights: " + str(weights) + "}",
        "head={preset: released, num_heads: 2}",
        f"training.batch_size={arguments.batch_size}",
        f"training.epochs={arguments.epochs}",
        "training.report=false",
        "thresholds.held_out_folds=0",
        f"output={run}",
    ]
    options = [part for setting in settings for part in ("--set", setting)]
    _one(
        "extract_features",
        ["-m", "training.extract_features", *options, "--output", folder / "features"],
    )
    several = ["-m", "training.run", *options, "--set", "strategy=multi_worker"]
    log, count = run / "log.jsonl", arguments.processes
    killed = _together("run, killed after an epoch", several, count, log)
    if not killed:
        raise UserError("the run ended before it was killed; use more --rows or --epochs")
    _together("run, resumed and evaluated", several, count, None)
    records = [json.loads(line) for line in log.read_text().splitlines()]
    metrics = json.loads((run / "metrics.json").read_text())
    _one("export", ["-m", "serving.export", run, folder / "export"])
    # An epoch that was logged but not saved before the end is made, and logged, again.
    losses = {record["epoch"]: record["loss"] for record in reversed(records)}
    apart = [r["epoch"] for r in records if abs(r["loss"] / losses[r["epoch"]] - 1) > 1e-5]
    if sorted(losses) != list(range(1, arguments.epochs + 1)) or apart:
        raise UserError(
            f"the log has epochs {sorted(losses)}; made again with other losses: {apart}"
        )
    print("\nlosses of the epochs:", ", ".join(f"{losses[epoch]:.4f}" for epoch in sorted(losses)))
    print(f"mAP of {metrics['images']:,} test photos: {_percent(metrics['gzsl']['mAP'])} %")


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


_SAVE_WEIGHTS = """
import sys, keras
from biam_tf.backbones import build_backbone
keras.utils.set_random_seed(0)
build_backbone("small", None, "none").save_weights(sys.argv[1])
"""


def write_data(folder: pathlib.Path, rows: int, photos: int) -> None:
    """Writes the files of labels of `rows` training photos, and `photos` of the photos.

    There are a hundredth as many validation photos and a fiftieth as many test photos, all there.
    """
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    names = [f"/m/0{number:04d}" for number in range(TRAINABLE + OTHER)]
    folder.mkdir(parents=True)
    described = "".join(f"{name},thing{i}\r\n" for i, name in enumerate(names))
    (folder / "class-descriptions.csv").write_text(described, newline="")
    (folder / "classes-trainable.txt").write_text("\n".join(names[:TRAINABLE]) + "\n")
    vectors = rng.normal(size=(len(names), EMBEDDING))
    lines = (f"thing{i} " + " ".join(f"{x:.4f}" for x in own) for i, own in enumerate(vectors))
    (folder / "vectors.txt").write_text("\n".join(lines) + "\n")
    pictures = folder / "pictures"
    pictures.mkdir()
    for number in range(PICTURES):
        squares = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(squares.repeat(8, 0).repeat(8, 1)).save(pictures / f"{number}.png")
    for part, (split, share) in enumerate(SPLITS.items()):
        count = rows if split == "train" else max(50, int(photos * share))
        there = photos if split == "train" else count
        (folder / split).mkdir()
        with (folder / f"{split}-annotations-human-imagelabels.csv").open("w") as file:
            file.write(f"{HEADER}\n")
            for number in range(count):
                photo = f"{part:04x}{number:012x}"
                last = TRAINABLE if split == "train" else len(names)
                for place, c in enumerate(rng.choice(last, LABELS, replace=False).tolist()):
                    file.write(f"{photo},verification,{names[c]},{int(place < PRESENT)}\n")
                if number < there:
                    os.link(pictures / f"{number % PICTURES}.png", folder / split / f"{photo}.png")


class _Memory(threading.Thread):
    """Adds up the memory of some processes while they run; `peak` is in bytes."""

    def __init__(self, processes: Sequence[subprocess.Popen]):
        super().__init__(daemon=True)
        self._processes, self.peak, self._ended = processes, 0, threading.Event()

    def run(self) -> None:
        while not self._ended.wait(0.5):
            self.peak = max(self.peak, sum(map(_resident, self._processes)))

    def stop(self) -> None:
        self._ended.set()
        self.join()


def _resident(process: subprocess.Popen) -> int:
    """Bytes of memory of a process; 0 after its end."""
    try:
        status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        return 0
    return 1024 * int(status.split("VmRSS:")[1].split()[0]) if "VmRSS:" in status else 0


def _one(step: str, arguments: Sequence) -> None:
    _run(step, [(list(map(str, arguments)), {})], None)


def _together(step: str, arguments: Sequence, count: int, log: pathlib.Path | None) -> bool:
    """Runs processes of one cluster; kills all of them once `log` has an epoch."""
    sockets = [socket.create_server(("localhost", 0)) for _ in range(count)]
    ports = [listening.getsockname()[1] for listening in sockets]
    for listening in sockets:
        listening.close()
    cluster = {"worker": [f"localhost:{port}" for port in ports]}
    commands = []
    for index in range(count):
        task = {"cluster": cluster, "task": {"type": "worker", "index": index}}
        commands.append((list(map(str, arguments)), {"TF_CONFIG": json.dumps(task)}))
    return _run(step, commands, log)


def _run(step: str, commands: Sequence, log: pathlib.Path | None) -> bool:
    """Returns whether the processes were killed.

    Raises:
        UserError: one of them failed; the message has the end of what it wrote.
    """
    started = time.perf_counter()
    outputs = [tempfile.TemporaryFile("w+") for _ in commands]
    processes = [
        subprocess.Popen(
            [sys.executable, *arguments],
            env=os.environ | environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        for (arguments, environment), output in zip(commands, outputs, strict=True)
    ]
    memory, killed = _Memory(processes), False
    memory.start()
    try:
        while any(process.poll() is None for process in processes):
            time.sleep(0.5)
            if log is not None and log.exists() and log.read_text().count("\n") and not killed:
                killed = True
                for process in processes:
                    process.send_signal(signal.SIGKILL)
    finally:
        for process in processes:
            process.kill()
        memory.stop()
    if not killed:
        for process, output in zip(processes, outputs, strict=True):
            if process.returncode:
                output.seek(0)
                raise UserError(f"{step} failed: {output.read()[-2000:]}")
    seconds = time.perf_counter() - started
    print(f"{step:26s}{seconds:9.0f}{memory.peak / 1e6:11.0f}", flush=True)
    return killed


if __name__ == "__main__":
    sys.exit(main())
