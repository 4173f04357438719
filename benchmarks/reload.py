"""Reloads of a model under load: `python -m benchmarks.reload RUN`.

Exports a run twice, with different numbers of tags, serves it with the embedded server in this
process, and copies the two exports in turn into the folder of versions. Meanwhile clients in
another process repeat their requests and compare the answers. Prints the numbers of answered and
failed requests, and the resident memory after each reload.

example:
  python -m benchmarks.reload runs/quickstart --reloads 5
"""

import argparse
import concurrent.futures
import multiprocessing
import pathlib
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence

import numpy as np

from benchmarks.shared.random_inputs import class_matrix, noise_photo
from biam_tf.command_line import run_command

CLIENTS = 4
PAUSE_SECONDS = 0.02  # between the requests of a client, to leave time for loading versions


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.reload",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", metavar="RUN", help="folder of a trained run")
    parser.add_argument("--reloads", type=int, default=20, metavar="N", help="default: 20")
    return run_command(parser, _measure, argv)


def _measure(arguments: argparse.Namespace) -> int:
    from biam_tf.runs import load_run
    from serving.export import export
    from serving.graph.batching import Batching
    from serving.graph.signatures import GraphSettings
    from serving.server import ServerSettings, TaggingServer

    run = load_run(arguments.run)
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder, spawn.Manager() as manager:
        exports, models = pathlib.Path(folder) / "exports", pathlib.Path(folder) / "models"
        models.mkdir()
        for top_k in (3, 4):
            export(run, exports, GraphSettings(top_k, batching=Batching.for_this_device()))

        def add(version: int) -> None:
            shutil.copytree(exports / str(2 - version % 2), models / ".aside")
            (models / ".aside").rename(models / str(version))

        add(1)
        stop = manager.Event()
        settings = ServerSettings(port=0, poll_seconds=0.1)
        with (
            TaggingServer(models, settings) as server,
            concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as pool,
        ):
            _wait_for(server, 1)
            clients = pool.submit(_ask_until, stop, server.address, run.vocabulary.embedding_size)
            memory = []
            for version in range(2, 2 + arguments.reloads):
                add(version)
                _wait_for(server, version)
                memory.append(_resident_mb())
                print(f"version {version} is in use; resident memory {memory[-1]} MB", flush=True)
            stop.set()
            answered, failed = clients.result()
    print(f"{arguments.reloads} reloads: {answered} requests answered, {len(failed)} failed")
    print(*failed[:10], sep="\n", end="")
    half = len(memory) // 2
    print(f"resident memory: {min(memory[half:])} to {max(memory[half:])} MB in the second half")
    return 1 if failed else 0


def _wait_for(server, version: int) -> None:
    while server.versions.current is None or server.versions.current.number != version:
        time.sleep(0.05)


def _ask_until(stop, address: str, embedding_size: int) -> tuple[int, list[str]]:
    """Returns the number of requests with an unchanged answer, and the errors of the others."""
    from serving.client import TaggingClient, TaggingError

    def work(number: int) -> tuple[int, list[str]]:
        photo = noise_photo(300 + 60 * number, 240, number)
        classes = class_matrix(10 + 90 * number, embedding_size)
        answered, failed = 0, []
        with TaggingClient(address, retries=0) as client:
            expected = client.tag(photo, class_embeddings=classes)
            while not stop.is_set():
                try:
                    scores = client.tag(photo, class_embeddings=classes)
                except TaggingError as error:
                    failed.append(str(error))
                    continue
                if np.allclose(scores, expected, atol=1e-4):
                    answered += 1
                else:
                    failed.append(f"scores differ by {np.abs(scores - expected).max():.1e}")
                time.sleep(PAUSE_SECONDS)
        return answered, failed

    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as threads:
        results = list(threads.map(work, range(CLIENTS)))
    return sum(count for count, _ in results), [text for _, failed in results for text in failed]


def _resident_mb() -> int:
    with open("/proc/self/status") as status:
        (line,) = (line for line in status if line.startswith("VmRSS:"))
    return round(int(line.split()[1]) / 1000)


if __name__ == "__main__":
    sys.exit(main())
