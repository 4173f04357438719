"""Size and time of an installation by extra: `python -m benchmarks.installation`.

For each extra of setup.py, this installs the project with pip into a new environment and measures
the time and the size of the environment's packages. The client is installed by the commands of
docs/serving.md, without TensorFlow. Time depends on the network and on the cache, size does not.
Where the program `uv` is found, it installs instead of pip: the same packages in a fraction of the
time, which the table then names.
Environments are made in the folder for temporary files, one at a time: it needs about 7 GB.

--smoke installs the client alone.
"""

import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from importlib import metadata

from packaging.requirements import Requirement

from benchmarks.shared.benchmark_command import benchmark_command
from biam_tf.errors import UserError
from biam_tf.progress import progress
from training.tables.table import Table

ROOT = pathlib.Path(__file__).resolve().parents[1]
CLIENT = "client"
INSTALLER = "uv" if shutil.which("uv") else "pip"
NOT_FOR_USERS = {"test", "torch-check", "docs"}


def main(argv=None) -> int:
    return benchmark_command("installation", __doc__, measure, argv)


def measure(smoke: bool) -> list[Table]:
    """Returns one table: a row for each extra, or for the client alone with `smoke`.

    Raises:
        UserError: pip failed.
    """
    if smoke:
        return [_table({CLIENT: _client()})]
    extras = metadata.metadata("biam-tf").get_all("Provides-Extra") or []
    names = sorted(set(extras) - NOT_FOR_USERS - {CLIENT})
    rows = {}
    with progress(2 + len(names), "Installing", "extra") as bar:
        for extra in ["", *names]:
            rows[extra] = _installed([f"{ROOT}[{extra}]" if extra else str(ROOT)])
            bar.update(1)
        rows[CLIENT] = _client()
        bar.update(1)
    return [_table(rows)]


def _table(rows: dict[str, tuple[float, float, int]]) -> Table:
    base = rows.get("", (0.0, 0.0, 0))[1]

    def row(extra: str, seconds: float, megabytes: float, packages: int) -> tuple[str, ...]:
        name = f"`[{extra}]`" if extra else "nothing else"
        more = "" if extra in ("", CLIENT) else f"{megabytes - base:,.0f}"
        return name, f"{megabytes:,.0f}", more, str(packages), f"{seconds:.0f}"

    return Table(
        "Installation by extra",
        ("extra", "MB", "MB more than without", "packages", f"seconds, {INSTALLER}"),
        [row(extra, *its) for extra, its in rows.items()],
        "Packages come from the cache where they are in it.",
    )


def _client() -> tuple[float, float, int]:
    requirements = [Requirement(line) for line in metadata.requires("biam-tf") or []]
    needed = [
        f"{each.name}{each.specifier}"
        for each in requirements
        if each.marker and each.marker.evaluate({"extra": CLIENT})
    ]
    return _installed(["--no-deps", str(ROOT)], needed)


def _installed(*steps: list[str]) -> tuple[float, float, int]:
    """Runs `pip install` with each step's arguments in a new environment.

    Returns:
        Seconds, megabytes of site-packages and the number of packages, without pip itself.
    """
    with tempfile.TemporaryDirectory() as folder:
        _run([sys.executable, "-m", "venv", folder])
        (site,) = pathlib.Path(folder, "lib").glob("python*/site-packages")
        before, start = _size(site), time.perf_counter()
        for arguments in steps:
            python = f"{folder}/bin/python"
            installer = ["uv", "pip"] if INSTALLER == "uv" else [python, "-m", "pip"]
            target = ["--python", python] if INSTALLER == "uv" else []
            _run([*installer, "install", *target, "--quiet", *arguments])
        seconds = time.perf_counter() - start
        return seconds, (_size(site) - before) / 1e6, len(list(site.glob("*.dist-info"))) - 1


def _size(folder: pathlib.Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def _run(command: list[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise UserError(f"{' '.join(command[1:])}: {done.stderr.strip()}")


if __name__ == "__main__":
    sys.exit(main())
