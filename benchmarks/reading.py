"""How fast examples are read, and whether training waits: `python -m benchmarks.reading`.

Draws photos into a temporary folder, stores features of the size of EfficientNet-Lite0's at 224
pixels (7x7x320 and 1280), and reads epochs: from our sources, and from bare tf.data loops without
labels, resuming or a fixed order. The loops take turns; medians and the range of all rounds are
printed: photos/s, these divided by those of the bare loop in the same round, and the CPU time a
photo, which other programs on the machine hardly change. Then steps of a real head, and pauses
that stand for an accelerator's, are fed from the sources, and the share of the time that they wait
is printed. With --memory: the memory that reading takes, in a process of its own each, up to a
store that is larger than the memory it is allowed ("auto" with that limit), and by how much the
process grows after a fifth of the reading: hardly where memory is flat. Nothing of it is a test.
"""

import argparse
import os
import pathlib
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # read when TensorFlow is first imported


def main() -> None:
    """Runs the command line."""
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
    arguments = parser.parse_args()

    # Imported here, so that --help answers at once, without TensorFlow.
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
    main()
