"""Computes the features of a data set's photos: `python -m training.extract_features`."""

import argparse
import dataclasses
import os
import sys
import time
from collections.abc import Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # read when TensorFlow is first imported

from biam_tf.errors import UserError
from training.cli import add_config_arguments, run_command

DESCRIPTION = """\
Runs the backbone of a configuration over all photos of its data set and keeps the features.
Training then reads them instead of the photos, as often as you like. If the command is
interrupted, repeat it: it goes on where it stopped.

With --beam the work is an Apache Beam pipeline, whose options follow after --. Without a --runner
among them it runs in this process; docs/features.md has those for Dataflow, Flink and Spark.
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
    """Runs the command line; returns the exit status."""
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
        help="folder for the features, local or such as gs://bucket/features; made if need be",
    )
    parser.add_argument(
        "--photos",
        metavar="DIR",
        help="where the photos lie, such as gs://bucket/photos (default: in the data set's folder)",
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
    return run_command(parser, _extract, argv)


def _extract(arguments: argparse.Namespace) -> None:
    from biam_tf.backbones import build_backbone
    from training.config import load_config
    from training.data.features import storage
    from training.data.features.extraction import ensure_features
    from training.data.features.unfinished_store import photos_extracted
    from training.data.registry import load_dataset

    config = load_config(arguments.config, arguments.set)
    if arguments.beam_options and not arguments.beam:
        raise UserError(
            f"{' '.join(arguments.beam_options)}: options of a Beam pipeline, but --beam is not "
            "given; add it before the --"
        )
    settings = config.backbone
    if settings.trainable:
        raise UserError(
            "backbone.trainable: true: such a run trains its backbone on the photos and reads no "
            "stored features; add --set backbone.trainable=false"
        )
    photos = None if arguments.photos is None else storage.normal_path(arguments.photos)
    dataset = load_dataset(config.data, look_for_photos=photos is None)
    backbone = build_backbone(settings.name, settings.image_size, settings.weights, trainable=False)
    config = dataclasses.replace(
        config, data=dataclasses.replace(config.data, feature_store=arguments.output)
    )
    already = photos_extracted(arguments.output)
    begun = time.monotonic()
    store = ensure_features(
        config,
        dataset,
        backbone,
        arguments.output,
        photos_directory=photos,
        beam_options=arguments.beam_options if arguments.beam else None,
    )
    seconds = time.monotonic() - begun
    done = store.manifest.count - already
    if done:
        print(f"{done} photos checked and extracted: {done / seconds:.1f} photos/s")
    else:
        print("all photos had been extracted before")
    h, w, d = store.region_shape
    print(
        f"{store.path}: {len(store)} photos of {h}x{w} regions with {d} channels, "
        f"{store.nbytes / 1e6:.1f} MB"
    )


if __name__ == "__main__":
    sys.exit(main())
