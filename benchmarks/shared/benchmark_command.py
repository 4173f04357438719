"""The command line of benchmarks that make tables, and the JSON file of their tables."""

import argparse
import dataclasses
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from biam_tf.command_line import run_command
from biam_tf.files import write_json
from training.tables.table import Table


def benchmark_command(
    name: str,
    description: str,
    measure: Callable[..., Sequence[Table]],
    argv: Sequence[str] | None = None,
    options: Mapping[str, Mapping] = MappingProxyType({}),
) -> int:
    """Runs the command line of a benchmark and returns the exit status.

    Args:
        name: Module of the benchmark, `python -m benchmarks.NAME`.
        description: Text of `--help`.
        measure: Function that returns the tables. Its first argument is True to use the smallest
            sizes and one repetition, which checks that the compared results agree. Further
            arguments are the `options`, by name.
        argv: Arguments of the command line; None for those of the process.
        options: Further options of the command, with the arguments of `add_argument` for each.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}",
        description=description,
        epilog=f"example:\n  python -m benchmarks.{name} --smoke",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--smoke", action="store_true", help="use the smallest sizes, once, to compare the results"
    )
    parser.add_argument("--output", type=pathlib.Path, help="also write the tables as JSON")

    added = [parser.add_argument(name, **details).dest for name, details in options.items()]

    def command(arguments: argparse.Namespace) -> None:
        tables = measure(arguments.smoke, **{name: getattr(arguments, name) for name in added})
        print("\n".join(table.markdown() for table in tables), flush=True)
        if arguments.output:
            write_tables(arguments.output, tables)

    return run_command(parser, command, argv)


def write_tables(path: pathlib.Path, tables: Sequence[Table]) -> None:
    """Writes tables as JSON for `read_tables`."""
    write_json(path, [dataclasses.asdict(table) for table in tables])


def read_tables(path: pathlib.Path) -> list[Table]:
    """Reads the tables of `write_tables`."""
    return [Table(**table) for table in json.loads(path.read_text(encoding="utf-8"))]
