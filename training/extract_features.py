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
"""
EXAMPLE = """\
example:
  python -m training.extract_features --config configs/corel5k.yaml \\
      --set data.directory=data/corel5k --output features/corel5k
  python -m training.run --config configs/corel5k.yaml \\
      --set data.directory=data/corel5k --set data.feature_store=features/corel5k
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
        "--output", metavar="STORE", required=True, help="folder for the features; made if need be"
    )
    return run_command(parser, _extract, argv)


def _extract(arguments: argparse.Namespace) -> None:
    from biam_tf.backbones import build_backbone
    from training.config import load_config
    from training.data.feature_extraction import ensure_features
    from training.data.registry import load_dataset
    from training.data.unfinished_store import photos_extracted

    config = load_config(arguments.config, arguments.set)
    settings = config.backbone
    if settings.trainable:
        raise UserError(
            "backbone.trainable: true: such a run trains its backbone on the photos and reads no "
            "stored features; add --set backbone.trainable=false"
        )
    dataset = load_dataset(config.data)
    backbone = build_backbone(settings.name, settings.image_size, settings.weights, trainable=False)
    config = dataclasses.replace(
        config, data=dataclasses.replace(config.data, feature_store=arguments.output)
    )
    already = photos_extracted(arguments.output)
    begun = time.monotonic()
    store = ensure_features(config, dataset, backbone, arguments.output)
    seconds = time.monotonic() - begun
    photos = store.manifest.count - already
    if photos:
        print(f"{photos} photos checked and extracted: {photos / seconds:.1f} photos/s")
    else:
        print("all photos had been extracted before")
    h, w, d = store.region_shape
    print(
        f"{store.path}: {len(store)} photos of {h}x{w} regions with {d} channels, "
        f"{store.nbytes / 1e6:.1f} MB"
    )


if __name__ == "__main__":
    sys.exit(main())
