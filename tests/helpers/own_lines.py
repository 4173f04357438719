"""Standard error of a command: the project's own lines, and nothing of libraries."""

import re

# A progress line of a log file, and the lines of the commands that have others.
OWN = re.compile(
    r"""
    |No\ GPU\ found;\ using\ the\ CPU\ \(\d+\ cores?\)\.
    |\d*\ ?GPUs?\ found:\ .+\.
    |[^:]+:\ [\d,]+/[\d,]+\ \(\d+%\)\ .*\ left.*
    |[\d,]+\ photos?,\ .+
    |version\ \d+:\ loading
    |version\ \d+\ is\ loaded;\ .*
    |.+:\d+:\ TensorFlow\ Serving's\ gRPC\ API,\ .*
    """,
    re.VERBOSE,
)


def foreign_lines(printed: str) -> list[str]:
    """Returns the lines that are not the project's own."""
    return [line for line in printed.splitlines() if not OWN.fullmatch(line.strip())]
