"""Time to import, to build a head and to start a server: `python -m benchmarks.cold_start`.

Each measurement uses new processes, in turns, after one process of each kind that is not measured
(it fills the disk's cache):

1. imports of this project, and of NumPy, TensorFlow and Keras, which are a lower bound; and
   `--help` of the commands, which import none of these three;
2. building a head for EfficientNet-Lite0 (7x7x320 regions, a scene feature of 1280, embeddings of
   100 numbers), for the first and the second time in a process;
3. starting the embedded server with such a tagger, and its requests;
4. the contents of an export.

Weights are random. --smoke checks that imports and commands do not import unneeded packages, that
an export contains its backbone once, and that a request gets the same answer every time.
"""

import functools
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence

from benchmarks.shared.benchmark_command import benchmark_command
from benchmarks.shared.timing import (
    in_own_process,
    in_turns,
    milliseconds,
    ratios,
    seconds_and_range,
)
from biam_tf.errors import UserError
from training.tables.table import Table

ROUNDS = 3
FLOOR = ("numpy", "tensorflow", "keras")
# The command of a process, and the packages of FLOOR that it must not import.
LIGHT, FULL = FLOOR, ()
STARTS = {
    "import numpy": FULL,
    "import tensorflow": FULL,
    "import keras": FULL,
    "import biam_tf": LIGHT,
    "import serving.client": ("tensorflow", "keras"),
    "import biam_tf.layers": FULL,
    "from biam_tf.models import build_head": FULL,
    "python -m training.run --help": LIGHT,
    "python -m training.evaluate --help": LIGHT,
    "python -m serving.server --help": LIGHT,
    "python -m serving.export --help": LIGHT,
}


def main(argv=None) -> int:
    return benchmark_command("cold_start", __doc__, measure, argv)


def measure(smoke: bool) -> list[Table]:
    """Returns the tables; with `smoke` for the smallest model, with one repetition.

    Raises:
        UserError: An unneeded package is imported, an export contains the backbone more than once,
            or the answers of a request differ.
    """
    rounds, size = (1, "smallest") if smoke else (ROUNDS, "real")
    for statement, left_out in STARTS.items():
        _check_imports(statement, left_out)
    with tempfile.TemporaryDirectory() as folder:
        # The figures of a smoke test tell nothing: its parts run in this process.
        run_part = _part_in_this_process if smoke else _part
        part = functools.partial(run_part, folder=folder, size=size)
        contents = part("export")
        if contents["backbones"] != 1:
            raise UserError(f"the export contains {contents['backbones']} traces of the backbone")
        heads, servers = [], []
        for number in range(rounds if smoke else 1 + rounds):
            head, server = part("head"), part("server")
            if server["answers differ"]:
                raise UserError("the server gave different answers to the same request")
            if smoke or number:
                heads.append(head)
                servers.append(server)
    tables = [_table_of_work(heads, servers), _table_of_contents(contents)]
    return tables if smoke else [_table_of_starts(rounds), *tables]


def _table_of_starts(rounds: int) -> Table:
    functions = {name: functools.partial(_run, _command(name)) for name in STARTS}
    seconds = in_turns(functions, rounds)
    floor = seconds["import keras"]
    return Table(
        "Imports and --help, each a whole process",
        ("", "seconds", "`import keras` / this"),
        [
            (f"`{name}`", seconds_and_range(its), ratios(floor, its))
            for name, its in seconds.items()
        ],
        "Keras imports TensorFlow and TensorFlow imports Keras: neither can be imported alone.",
    )


def _table_of_work(heads: Sequence[dict], servers: Sequence[dict]) -> Table:
    def row(processes: Sequence[dict], name: str, title: str) -> tuple[str, str]:
        seconds = [laps[name] for laps in processes]
        small = max(seconds) < 1
        return title, milliseconds(seconds) if small else seconds_and_range(seconds)

    first, tenth = ([laps[f"request {number}"] for laps in servers] for number in (1, 10))
    return Table(
        "Time to start",
        ("", "seconds"),
        [
            row(heads, "import", "head: imports"),
            row(heads, "build", "head: first build"),
            row(heads, "build again", "head: second build"),
            row(servers, "import", "server: imports"),
            row(servers, "start to ready", "server: from start to ready, warm-up included"),
            row(servers, "load again", "of which loading the export, repeated in the same process"),
            row(servers, "client", "client: created in a process with TensorFlow"),
            row(servers, "request 1", "first request"),
            row(servers, "request 10", "tenth request"),
            ("first / tenth request", ratios(first, tenth)),
        ],
    )


def _table_of_contents(contents: dict) -> Table:
    return Table(
        "An export",
        ("graph, MB", "functions", "nodes", "traces of the backbone", "seconds to export"),
        [
            (
                f"{contents['bytes'] / 1e6:.2f}",
                *(str(contents[name]) for name in ("functions", "nodes", "backbones")),
                f"{contents['export']:.1f}",
            )
        ],
    )


def _part(name: str, folder: str, size: str) -> dict:
    return in_own_process("benchmarks.shared.cold_start_process", [name, folder, size])


def _part_in_this_process(name: str, folder: str, size: str) -> dict:
    from benchmarks.shared import cold_start_process

    return cold_start_process.PARTS[name](pathlib.Path(folder), size)


def _command(start: str) -> list[str]:
    if start.startswith("python "):
        return [sys.executable, *start.split()[1:]]
    return [sys.executable, "-c", start]


def _run(command: Sequence[str]) -> str:
    """Returns the standard error of a process.

    Raises:
        UserError: The process failed; the message contains the end of its standard error.
    """
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise UserError(
            f"{' '.join(command)}: exit status {done.returncode}:\n{done.stderr[-2000:]}"
        )
    return done.stderr


def _check_imports(start: str, left_out: Sequence[str]) -> None:
    if not left_out:
        return
    python, *rest = _command(start)
    lines = _run([python, "-X", "importtime", *rest]).splitlines()
    imported = {line.rpartition("|")[2].strip() for line in lines}
    if needless := sorted({*left_out} & imported):
        raise UserError(f"`{start}` imports {', '.join(needless)}, which it must not")


if __name__ == "__main__":
    sys.exit(main())
