"""Exports a trained run as an ONNX file: `python -m serving.onnx RUN FILE.onnx`."""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from biam_tf.command_line import run_command
from serving.graph.onnx_file import DEFAULT_OPSET, PARTS, export_onnx, require_packages

DESCRIPTION = """\
Writes a trained run as an ONNX file, for ONNX Runtime and others. Each call takes any number of
photos and classes. The file is run and compared with the TensorFlow model before it is kept.

--part full (default): images (B, S, S, 3), float RGB from 0 to 255, and class_embeddings (C, d_a)
--part head:           region_features, scene_feature and class_embeddings
Both return scores (B, C) and response_maps (B, h, w, C).

The file does not decode photos: decode them and resize them to S x S, bilinear with antialiasing
(as Pillow's Image.resize does). S, the class names and the inputs are in the file's metadata; the
class embeddings are in RUN/vocabulary.npz.
"""

EXAMPLES = """\
examples:
  python -m serving.onnx runs/quickstart quickstart.onnx
  python -m serving.onnx runs/quickstart head.onnx --part head
"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m serving.onnx",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", metavar="RUN", type=pathlib.Path, help="folder of a trained run")
    parser.add_argument(
        "file",
        metavar="FILE.onnx",
        type=pathlib.Path,
        help="file to write or replace",
    )
    parser.add_argument("--part", choices=PARTS, default="full", help="default: full")
    parser.add_argument(
        "--opset",
        type=int,
        default=DEFAULT_OPSET,
        metavar="N",
        help=f"version of the ONNX operators (default: {DEFAULT_OPSET})",
    )
    return run_command(parser, _command, argv)


def _command(arguments: argparse.Namespace) -> None:
    from biam_tf.runs import RunPaths, load_run

    RunPaths(arguments.run).require_whole()  # before TensorFlow is imported
    require_packages()
    run = load_run(arguments.run)
    differences = export_onnx(run, arguments.file, arguments.part, arguments.opset)
    size = arguments.file.stat().st_size / 1e6
    print(f"{arguments.file}: {size:.1f} MB, largest difference from TensorFlow")
    for name, difference in differences.items():
        print(f"  {name:16}{difference:.1e}")


if __name__ == "__main__":
    sys.exit(main())
