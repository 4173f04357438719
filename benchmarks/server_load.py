"""A server under load: `python -m benchmarks.server_load`.

Serves a small model with the embedded server, in a process of its own. Clients in another process
send requests for a minute, over gRPC and then through REST; half of them are good, the others have
broken photos, wrong shapes, too many classes or photos, numbers that are not finite, deadlines of
a few milliseconds and so on. Meanwhile a new version is added every second, which takes class
embeddings of another length than the one before, and a third process asks for the server's health
fifty times a second. The code of every reply and the scores of every good answer are checked.

Prints the numbers of replies, the time of the answers about health, and the peak of the server's
resident memory in the first and in the second half. The exit status is 1 if a reply is wrong.

examples:
  python -m benchmarks.server_load
  python -m benchmarks.server_load --seconds 600 --clients 64
"""

import dataclasses
import pathlib
import sys
import tempfile
import threading
import time

import numpy as np

from benchmarks.shared.benchmark_command import benchmark_command
from benchmarks.shared.load_clients import HealthProbes, LoadClients, LoadResult
from benchmarks.shared.load_model import FlippingVersions
from benchmarks.shared.load_requests import LEFT, MAX_ANSWER_MB, MAX_CLASSES, MAX_PHOTOS, SENDERS
from benchmarks.shared.timing import RemoteObject
from training.tables.table import Table

LIMITS = {
    "max_classes": MAX_CLASSES,
    "max_photos": MAX_PHOTOS,
    "max_answer_mb": MAX_ANSWER_MB,
}
_VERSION_SECONDS = 1.0
_START_SECONDS = 60.0


@dataclasses.dataclass(frozen=True)
class Measured:
    """What was measured of one way to send requests.

    Attributes:
        replies: what the clients were answered.
        health: seconds of each answer about health, by probe.
        failures: probes that were answered wrongly or not at all.
        memory: peak of the server's resident memory in MB, in the first and in the second half.
        versions: number of versions that were in use one after the other.
    """

    replies: LoadResult
    health: dict[str, list[float]]
    failures: list[str]
    memory: tuple[int, int]
    versions: int


class ServerProcess:
    """The server, for a process of its own; waits until the first version is loaded.

    Args:
        model_dir: folder of the model.
    """

    def __init__(self, model_dir: pathlib.Path):
        from serving.server import ServerSettings, TaggingServer, prepare_process

        prepare_process()  # as `python -m serving.server` does
        settings = ServerSettings(port=0, metrics_port=0, poll_seconds=0.1, **LIMITS)
        self._server = TaggingServer(model_dir, settings)
        self._server.start()
        end = time.monotonic() + _START_SECONDS
        while self._server.versions.current is None:
            if time.monotonic() > end:
                raise TimeoutError(f"no version was loaded in {_START_SECONDS:g} s")
            time.sleep(0.05)
        self._peak = 0
        threading.Thread(target=self._watch, daemon=True).start()

    def address(self) -> tuple[str, int]:
        """Returns the address of gRPC and the port of HTTP."""
        return self._server.address, self._server.metrics_port

    def peak(self) -> int:
        """Returns the peak of resident memory in MB since the last call."""
        peak, self._peak = self._peak, 0
        return peak

    def versions(self) -> int:
        """Returns how many versions were in use."""
        states = self._server.versions.states.values()
        return sum(state.state in ("AVAILABLE", "END") and not state.error for state in states)

    def stop(self) -> None:
        """Stops the server."""
        self._server.stop()

    def _watch(self) -> None:
        while True:
            with open("/proc/self/status") as status:
                (line,) = (line for line in status if line.startswith("VmRSS:"))
            self._peak = max(self._peak, round(int(line.split()[1]) / 1000))
            time.sleep(0.05)


def measure_transport(transport: str, seconds: float, clients: int) -> Measured:
    """Loads a new server in one way; see the module's description."""
    with (
        tempfile.TemporaryDirectory() as folder,
        FlippingVersions(pathlib.Path(folder), _VERSION_SECONDS) as versions,
        RemoteObject(ServerProcess, versions.model_dir) as server,
    ):
        address = server.call("address")
        with (
            RemoteObject(LoadClients, transport, address, clients) as load,
            RemoteObject(HealthProbes, address) as probes,
        ):
            load.call("run", min(2.0, seconds))  # fills what is only filled once
            server.call("peak")
            probes.call("start")
            halves, total = [], LoadResult()
            for _ in range(2):
                total.add(load.call("run", seconds / 2))
                halves.append(server.call("peak"))
            health, failures = probes.call("stop")
        used = server.call("versions")
        server.call("stop")
    return Measured(total, health, failures, (halves[0], halves[1]), used)


def tables(measured: dict[str, Measured], seconds: float, clients: int) -> list[Table]:
    """Returns the table of what was measured, a column for each way to send requests."""
    found = measured.values()
    rows = [
        ["replies", *(f"{item.replies.codes.total():,}" for item in found)],
        ["right answers", *(f"{item.replies.lengths.total():,}" for item in found)],
        ["refused, as they must be", *(f"{_refused(item.replies):,}" for item in found)],
        ["clients that left first", *(f"{_left(item.replies):,}" for item in found)],
        ["wrong replies", *(str(item.replies.wrong) for item in found)],
        ["versions in use", *(str(item.versions) for item in found)],
    ]
    for probe in next(iter(found)).health:
        rows.append(
            [f"{probe}: median, 99 %, max", *(_times(item.health[probe]) for item in found)]
        )
    rows += [
        ["health: failed", *(str(len(item.failures)) for item in found)],
        ["server's peak memory, first half", *(f"{item.memory[0]:,} MB" for item in found)],
        ["second half", *(f"{item.memory[1]:,} MB" for item in found)],
    ]
    examples = [text for item in found for text in (*item.replies.examples, *item.failures[:10])]
    return [
        Table(
            f"{clients} clients for {seconds:g} s, good and bad requests",
            ["", *measured],
            rows,
            "Wrong: " + "; ".join(examples) if examples else "",
        )
    ]


def _refused(replies: LoadResult) -> int:
    right = replies.lengths.total() + replies.wrong
    return replies.codes.total() - right - _left(replies)


def _left(replies: LoadResult) -> int:
    gone = (LEFT, "DEADLINE_EXCEEDED")
    return sum(
        number
        for (kind, code), number in replies.codes.items()
        if kind == "tiny deadline" and code in gone
    )


def _times(seconds: list[float]) -> str:
    cuts = (np.median(seconds), np.percentile(seconds, 99), max(seconds))
    return ", ".join(f"{1e3 * cut:.3g}" for cut in cuts) + " ms"


def main(argv=None) -> int:
    wrong = []

    def measure(smoke: bool, seconds: float, clients: int) -> list[Table]:
        seconds = min(seconds, 4.0) if smoke else seconds
        measured = {name: measure_transport(name, seconds, clients) for name in SENDERS}
        wrong.extend(item for item in measured.values() if item.replies.wrong or item.failures)
        return tables(measured, seconds, clients)

    options = {
        "--seconds": {
            "type": float,
            "default": 60.0,
            "metavar": "S",
            "help": "how long, over gRPC and again through REST; default: 60",
        },
        "--clients": {"type": int, "default": 32, "metavar": "N", "help": "default: 32"},
    }
    status = benchmark_command("server_load", __doc__, measure, argv, options)
    return status or (1 if wrong else 0)


if __name__ == "__main__":
    sys.exit(main())
