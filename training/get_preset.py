"""Brings an image-text model onto this machine: `python -m training.get_preset PRESET`."""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from training.cli import run_command

DESCRIPTION = """\
Downloads a preset of KerasHub into the cache of kagglehub, where keras_hub:PRESET finds it, and
prints its size, licence and the SHA-256 of its weights. Of a preset that is there already, it
prints the same.

--from-hugging-face FOLDER converts a model of CLIP, MetaCLIP 2, SigLIP or SigLIP 2 as Hugging Face
publishes it, without PyTorch. PRESET is then the folder to write. FOLDER has config.json, the
weights (model.safetensors, or its shards and their index) and the tokenizer: tokenizer.json of
CLIP, spiece.model of SigLIP, tokenizer.model of SigLIP 2, sentencepiece.bpe.model of MetaCLIP 2.
"""

EXAMPLES = """\
examples:
  python -m training.get_preset siglip2_base_patch16_224
  python -m training.get_preset presets/clip --from-hugging-face downloads/clip-vit-base-patch32
"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.get_preset",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "preset", metavar="PRESET", help="a name of KerasHub's list, or the folder to write"
    )
    parser.add_argument(
        "--from-hugging-face",
        metavar="FOLDER",
        type=pathlib.Path,
        help="the folder of a model of Hugging Face to convert",
    )
    return run_command(parser, _command, argv)


def _command(arguments: argparse.Namespace) -> None:
    # Imported here, so that --help answers at once, without TensorFlow.
    if arguments.from_hugging_face is not None:
        from biam_tf.backbones.hugging_face import convert

        target = pathlib.Path(arguments.preset)
        print(f"{target}: {convert(arguments.from_hugging_face, target)}")
        print(f"use it as keras_hub:{target}")
        return

    from biam_tf.backbones.preset_downloads import download_preset

    for line in download_preset(arguments.preset):
        print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
