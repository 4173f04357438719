"""Runs all benchmarks that make tables and updates the docs: `python -m benchmarks.all`.

Runs each benchmark in its own process, one after the other, and writes its tables into
docs/performance.md, docs/scale.md or docs/photos.md, between the two comment lines that name the
benchmark. Tables of a failed benchmark are not written. Takes under 25 minutes
on an otherwise idle 2-core CPU.

examples:
  python -m benchmarks.all
  python -m benchmarks.all --only loss evaluation
  python -m benchmarks.all --smoke         # smallest sizes; compares results, writes no file
"""

import argparse
import pathlib
import re
import subprocess
import sys
import tempfile
import time

from benchmarks.shared.benchmark_command import read_tables
from biam_tf.command_line import run_command
from biam_tf.errors import UserError
from biam_tf.files import write_text

DOCS = pathlib.Path(__file__).parents[1] / "docs"
PLOT = DOCS / "images" / "growth.png"
DOCUMENTS = {
    "training_step": "performance.md",
    "loss": "performance.md",
    "evaluation": "performance.md",
    "extraction": "performance.md",
    "cold_start": "performance.md",
    "growth": "performance.md",
    "scale": "scale.md",
    "photo_formats": "photos.md",
}


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.all",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", nargs="+", choices=list(DOCUMENTS), default=list(DOCUMENTS))
    parser.add_argument(
        "--smoke", action="store_true", help="use the smallest sizes and write no file"
    )
    return run_command(parser, _command, argv)


def _command(arguments: argparse.Namespace) -> None:
    begun = time.perf_counter()
    for name in arguments.only:
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "tables.json"
            command = [sys.executable, "-m", f"benchmarks.{name}", "--output", str(path)]
            if arguments.smoke:
                command.append("--smoke")
            elif name == "growth":
                command += ["--plot", str(PLOT)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
            if done.returncode:
                raise UserError(f"benchmarks.{name} ended with status {done.returncode}")
            text = "\n".join(table.markdown() for table in read_tables(path))
        print(f"=== {name}: {time.perf_counter() - start:.0f} s\n\n{text}", flush=True)
        if not arguments.smoke:
            _put(DOCS / DOCUMENTS[name], name, text)
    print(f"{time.perf_counter() - begun:.0f} s in total")


def _put(path: pathlib.Path, name: str, tables: str) -> None:
    """Replaces the text between the two comment lines of a benchmark in a document."""
    first, last = f"<!-- python -m benchmarks.{name} -->", f"<!-- end of {name} -->"
    document = path.read_text()
    pattern = re.compile(f"{re.escape(first)}.*?{re.escape(last)}", re.DOTALL)
    if not pattern.search(document):
        raise UserError(f"{path}: the lines {first} and {last} around the tables are missing")
    write_text(path, pattern.sub(lambda _: f"{first}\n\n{tables}\n{last}", document))


if __name__ == "__main__":
    sys.exit(main())
