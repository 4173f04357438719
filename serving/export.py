"""Exports a tagger for TensorFlow Serving: `python -m serving.export RUN MODEL_DIR`."""

import argparse
import dataclasses
import pathlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from biam_tf.command_line import run_command
from biam_tf.errors import UserError
from serving.graph.saved_model import export

if TYPE_CHECKING:
    from serving.graph.batching import Batching

DESCRIPTION = """\
Writes MODEL_DIR/<version>/, a SavedModel for TensorFlow Serving that scores photos against the
classes of each request. RUN is the folder of a trained run; --preset NAME takes its place for a
pretrained tagger, which needs no run.

Every signature is run and compared with the Keras model before the folder gets its name, so that a
server that watches MODEL_DIR never loads an incomplete or wrong version.
"""

EXAMPLES = """\
examples:
  python -m serving.export runs/quickstart models/quickstart
  python -m serving.export runs/my-photos models/my-photos --word-vectors glove.6B.300d.txt
  python -m serving.export runs/my-photos models/my-photos --sentence-encoder minilm
  python -m serving.export runs/my-photos models/my-photos --max-batch-size 64 \\
      --batch-timeout-ms 5 --max-pixels 20000000
  python -m serving.export --preset efficientnet_lite0_imagenet_minilm models/pretrained
  python -m serving.export --preset keras_hub:siglip2_base_patch16_224 models/siglip2
  for TensorFlow Serving 2.18 or 2.19
    python -m serving.export runs/my-photos models/my-photos --formats jpeg,png,gif,bmp
"""

_NO_NAMES = "there are no class names to look up; give --word-vectors FILE"
_REASONS = {
    "explain": "the head has no region classifier",
    "embed": _NO_NAMES,
    "tag": _NO_NAMES,
    "tag_known": "the run has no vocabulary",
    "calibrate": "the run has no thresholds, so answers are scores only",
}

_LIMITS = {
    "max_photos": "photos of a request (default: 1024)",
    "max_classes": "classes of a request (default: 1,000,000)",
    "max_work_mb": "memory in MB that scoring a request may need, about (default: 1024)",
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m serving.export",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "run", metavar="RUN", type=pathlib.Path, nargs="?", help="folder of a trained run"
    )
    parser.add_argument(
        "model_dir",
        metavar="MODEL_DIR",
        type=pathlib.Path,
        help="folder of the model, with one sub-folder per version",
    )
    parser.add_argument(
        "--preset",
        metavar="NAME",
        help="a pretrained tagger instead of a run, see docs/pretrained_taggers.md, or "
        "keras_hub:PRESET of an image-text model, see docs/image_text_models.md",
    )
    parser.add_argument(
        "--word-vectors",
        metavar="FILE",
        type=pathlib.Path,
        help="embeddings in which signature 'tag' looks up class names: GloVe text, .npz or an "
        "attribute table .csv (default: the file that the run was trained with, if it still "
        "exists; the run's own classes are always included)",
    )
    parser.add_argument(
        "--sentence-encoder",
        metavar="minilm|keras_hub:PRESET|FOLDER|none",
        help="put a sentence encoder into the model, so that 'tag' and 'embed' take any phrase "
        "(default: the one that made the run's class embeddings, if its weights are found)",
    )
    parser.add_argument(
        "--text-tower",
        choices=["none"],
        help="none leaves the text encoder of an image-text model out: names are then looked up "
        "among the run's classes, and servers need no tensorflow-text",
    )
    parser.add_argument(
        "--template",
        action="append",
        metavar="TEXT",
        help="what that encoder reads, containing {name}; may be given several times (default: as "
        "the run's class embeddings were made, else 'a photo of {name}')",
    )
    parser.add_argument(
        "--top-k",
        type=int,
        default=5,
        metavar="K",
        help="tags of 'tag_known' per photo (default: 5)",
    )
    parser.add_argument(
        "--max-pixels",
        type=int,
        metavar="N",
        help="larger photos are refused before they are decoded (default: 64 million)",
    )
    parser.add_argument(
        "--formats",
        metavar="LIST",
        help="formats of photos that the model decodes (default: jpeg,png,gif,bmp,webp); WebP "
        "needs TensorFlow 2.20 or later, also on the server: leave it out for older servers",
    )
    parser.add_argument(
        "--version",
        type=int,
        metavar="N",
        help="version number (default: one more than the newest)",
    )
    limits = parser.add_argument_group(
        "limits", "larger requests are refused by the model itself, whatever server runs it"
    )
    for name, help_ in _LIMITS.items():
        limits.add_argument(f"--{name.replace('_', '-')}", type=int, metavar="N", help=help_)
    batching = parser.add_argument_group(
        "batching", "photos of concurrent requests share one call of the backbone"
    )
    batching.add_argument(
        "--max-batch-size",
        type=int,
        metavar="N",
        help="photos per call of the backbone (default: 16, or 64 with a GPU)",
    )
    batching.add_argument(
        "--batch-timeout-ms",
        type=float,
        metavar="MS",
        help="longest time that a photo waits for others (default: 0, or 2 with a GPU)",
    )
    batching.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help="concurrent calls of the backbone (default: 1, or 2 with a GPU)",
    )
    batching.add_argument("--no-batching", action="store_true", help="one call per request")
    return run_command(parser, _command, argv)


def _command(arguments: argparse.Namespace) -> None:
    _check(arguments)
    from biam_tf.runs import RunPaths, load_run

    if arguments.run is not None:
        RunPaths(arguments.run).require_whole()  # before TensorFlow is imported

    from biam_tf.pretrained import pretrained_run
    from serving.graph.signatures import GraphSettings

    settings = GraphSettings(
        top_k=arguments.top_k, batching=_batching(arguments), formats=_formats(arguments.formats)
    )
    given = {name: getattr(arguments, name) for name in _LIMITS}
    given = {name: value for name, value in given.items() if value is not None}
    settings = dataclasses.replace(settings, limits=dataclasses.replace(settings.limits, **given))
    if arguments.max_pixels is not None:
        settings = dataclasses.replace(settings, max_pixels=arguments.max_pixels)
    run = pretrained_run(arguments.preset) if arguments.preset else arguments.run
    exported = export(
        load_run(run),
        arguments.model_dir,
        settings,
        word_vectors=arguments.word_vectors,
        version=arguments.version,
        sentence_encoder=arguments.text_tower or arguments.sentence_encoder,
        templates=arguments.template,
    )
    print(f"{exported.path}: largest difference from the Keras model")
    for name in exported.signatures:
        print(f"  {name:16}{exported.differences[name]:.1e}")
    for name in sorted({*_REASONS} - {*exported.signatures}):
        print(f"  {name:16}left out: {_REASONS[name]}")
    if exported.encoder is not None:
        print(f"sentence encoder: {exported.encoder}")
    print(f"photo index: {exported.index}")
    size = f"size: {exported.size / 1e6:.1f} MB"
    if exported.encoder_size:
        without = (exported.size - exported.encoder_size) / 1e6
        size += f"; about {without:.1f} MB without the sentence encoder (--sentence-encoder none)"
    print(size)


def _formats(listed: str | None) -> tuple[str, ...] | None:
    from biam_tf.photo_decoding.graph_formats import available_formats

    if listed is None:
        return None
    chosen = {name.strip().upper().replace("JPG", "JPEG") for name in listed.split(",")}
    known = available_formats()
    unknown = sorted(chosen - {*known})
    if unknown:
        raise UserError(
            f"--formats {listed}: {unknown[0].lower() or 'an empty name'!r} is none of the formats "
            f"that a graph of this version of TensorFlow decodes: {','.join(known).lower()}"
        )
    return tuple(form for form in known if form in chosen)


def _check(arguments: argparse.Namespace) -> None:
    if arguments.text_tower and arguments.sentence_encoder:
        raise UserError("--text-tower none leaves the encoder out that --sentence-encoder names")
    if (arguments.run is None) == (arguments.preset is None):
        raise UserError("give either the folder RUN or --preset NAME, and MODEL_DIR")
    for option in ("top_k", "max_pixels", "version", *_LIMITS):
        value = getattr(arguments, option)
        if value is not None and value < 1:
            raise UserError(f"--{option.replace('_', '-')} {value}: use at least 1")
    chosen = (arguments.max_batch_size, arguments.batch_timeout_ms, arguments.threads)
    if arguments.no_batching and any(value is not None for value in chosen):
        raise UserError("--no-batching excludes the other options of batching")


def _batching(arguments: argparse.Namespace) -> "Batching | None":
    from serving.graph.batching import Batching

    if arguments.no_batching:
        return None
    given = {
        "max_batch_size": arguments.max_batch_size,
        "timeout_ms": arguments.batch_timeout_ms,
        "threads": arguments.threads,
    }
    given = {name: value for name, value in given.items() if value is not None}
    return dataclasses.replace(Batching.for_this_device(), **given)


if __name__ == "__main__":
    sys.exit(main())
