"""Tables of measurements, and the command line of every benchmark that makes some."""

import argparse
import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from biam_tf.command_line import run_command


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of measured figures.

    Attributes:
        title: what was measured.
        columns: headings.
        rows: cells, as many in each as there are headings.
        note: sentences below it.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    def markdown(self) -> str:
        """Returns it in Markdown, the title in bold above it."""
        lines = [f"**{self.title}**", "", _row(self.columns), "|" + "---|" * len(self.columns)]
        lines += [_row(cells) for cells in self.rows]
        return "\n".join([*lines, *(["", self.note] if self.note else []), ""])


def benchmark_command(
    name: str,
    description: str,
    measure: Callable[..., Sequence[Table]],
    argv: Sequence[str] | None = None,
    options: Mapping[str, Mapping] = MappingProxyType({}),
) -> int:
    """Runs the command line of a benchmark and returns the exit status.

    Args:
        name: the module, `python -m benchmarks.NAME`.
        description: text of `--help`.
        measure: makes the tables; with True it takes the smallest sizes and one repetition, to
            check that what is compared gives the same results. Takes what `options` add by name.
        argv: the command line's arguments.
        options: further options of the command, with the arguments of `add_argument` for each.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--smoke", action="store_true", help="smallest sizes, once: results are compared, not times"
    )
    parser.add_argument("--output", type=pathlib.Path, help="write the tables there as JSON, too")

    added = [parser.add_argument(name, **details).dest for name, details in options.items()]

    def command(arguments: argparse.Namespace) -> None:
        tables = measure(arguments.smoke, **{name: getattr(arguments, name) for name in added})
        print("\n".join(table.markdown() for table in tables), flush=True)
        if arguments.output:
            write_tables(arguments.output, tables)

    return run_command(parser, command, argv)


def write_tables(path: pathlib.Path, tables: Sequence[Table]) -> None:
    """Writes tables as JSON for `read_tables`."""
    aside = path.with_name(f".partial-{path.name}")
    aside.write_text(json.dumps([dataclasses.asdict(table) for table in tables], indent=1))
    os.replace(aside, path)


def read_tables(path: pathlib.Path) -> list[Table]:
    """Reads the tables of `write_tables`."""
    return [Table(**table) for table in json.loads(path.read_text())]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
