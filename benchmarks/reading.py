"""Speed of reading examples, and the time that training waits: `python -m benchmarks.reading`.

Draws photos into a temporary folder, stores features with the sizes of EfficientNet-Lite0 at 224
pixels (7x7x320 and 1280), and reads epochs from this project's sources and from bare tf.data loops
without labels, resuming or a fixed order. The loops run in turns. Printed are medians and ranges
over all rounds: photos/s, the ratio to the bare loop of the same round, and the CPU time per photo,
on which other programs have little influence. Then the sources feed steps of a real head, and
pauses that simulate an accelerator, and the share of the time that they wait is printed.

With --memory: the memory of reading, each in its own process, up to a store that is larger than the
memory limit ("auto" with that limit), and the growth of the process after a fifth of the reading.
"""

import argparse
import os
import pathlib
import sys
import tempfile
from collections.abc import Sequence

from biam_tf.command_line import run_command

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # read when TensorFlow is first imported


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.reading",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--photos", type=int, default=640, help="default: 640")
    parser.add_argument("--image-size", type=int, default=224, help="default: 224")
    parser.add_argument("--repeat", type=int, default=5, help="default: 5")
    parser.add_argument("--memory", action="store_true", help="measure the memory instead")
    parser.add_argument("--peak-of", nargs=2, help=argparse.SUPPRESS)  # one process of --memory
    return run_command(parser, _measure, argv)


def _measure(arguments: argparse.Namespace) -> None:
    # Imported here, so that --help does not import TensorFlow.
    from benchmarks.shared.reading_measurements import (
        compare_memory,
        compare_speed,
        read_and_print_peak,
    )

    if arguments.peak_of:
        read_and_print_peak(*arguments.peak_of)
        return
    with tempfile.TemporaryDirectory() as folder:
        if arguments.memory:
            compare_memory(pathlib.Path(folder))
        else:
            compare_speed(pathlib.Path(folder), arguments)


if __name__ == "__main__":
    sys.exit(main())
