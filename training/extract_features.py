"""Computes the features of a data set's photos: `python -m training.extract_features`."""

import argparse
import sys
from collections.abc import Sequence

from biam_tf.errors import UserError
from training.cli import add_config_arguments, run_command

DESCRIPTION = """\
Runs the backbone of a configuration over all photos of its data set and stores the features.
Training then reads them instead of the photos. If the command is interrupted, run it again: it
continues where it stopped.

With --beam the work is an Apache Beam pipeline, whose options follow after --. Without the option
--runner it runs in this process; docs/features.md lists options for Dataflow, Flink and Spark.
"""
EXAMPLE = """\
examples:
  python -m training.extract_features --config configs/corel5k.yaml \\
      --set data.directory=data/corel5k --output features/corel5k
  python -m training.run --config configs/corel5k.yaml \\
      --set data.directory=data/corel5k --set data.feature_store=features/corel5k
  python -m training.extract_features --config configs/corel5k.yaml \\
      --set data.directory=data/corel5k --output features/corel5k \\
      --beam -- --direct_num_workers=2 --direct_running_mode=multi_processing
"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.extract_features",
        description=DESCRIPTION,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_config_arguments(parser)
    parser.add_argument(
        "--output",
        metavar="STORE",
        required=True,
        help="folder for the features, local or such as gs://bucket/features; created if missing",
    )
    parser.add_argument(
        "--photos",
        metavar="DIR",
        help="folder of the photos, such as gs://bucket/photos (default: the data set's folder)",
    )
    parser.add_argument(
        "--runtime",
        choices=("tensorflow", "onnx", "auto"),
        help="what computes the features: TensorFlow, ONNX Runtime (extra [onnx]; differs in "
        "rounding), or the faster of the two (default: backbone.runtime of the configuration)",
    )
    parser.add_argument(
        "--beam", action="store_true", help="extract with Apache Beam (extra [beam])"
    )
    parser.add_argument(
        "beam_options",
        metavar="-- BEAM_OPTION",
        nargs="*",
        help="options of the pipeline, for example --runner=FlinkRunner",
    )
    return run_command(parser, _extract, argv, resumable=True)


def _extract(arguments: argparse.Namespace) -> None:
    if arguments.beam_options and not arguments.beam:
        raise UserError(
            f"{' '.join(arguments.beam_options)}: options of a Beam pipeline, but --beam is not "
            "given; add it before the --"
        )

    # Imported here, so that --help answers at once, without TensorFlow.
    from training.config import load_config

    runtime = [f"backbone.runtime={arguments.runtime}"] if arguments.runtime else []
    config = load_config(arguments.config, [*arguments.set, *runtime])

    from training.pipeline.feature_extraction import extract_store

    beam_options = arguments.beam_options if arguments.beam else None
    extract_store(config, arguments.output, arguments.photos, beam_options)


if __name__ == "__main__":
    sys.exit(main())
