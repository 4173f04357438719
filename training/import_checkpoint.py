"""Imports a checkpoint as a run: `python -m training.import_checkpoint FILE.pth RUN_DIR`."""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from biam_tf.command_line import command_to_paste
from biam_tf.errors import UserError
from training.cli import run_command

DESCRIPTION = """\
Creates the folder of a run from a PyTorch checkpoint of the authors' released code, without torch,
so that it can be evaluated and used like a run trained here.

A checkpoint contains the head only. Everything else is set here: the number of heads and k, the
backbone that computed its features (VGG19 with ImageNet weights), and the word vectors.
"""

EXAMPLES = """\
examples:
  python -m training.import_checkpoint NUS_WIDE_zsl.pth runs/released-zsl \\
      --set vocabulary.word_vectors=glove.6B.300d.txt
  python -m training.import_checkpoint NUS_WIDE_zsl.pth runs/released-zsl \\
      --set backbone.weights=vgg19_weights_tf_dim_ordering_tf_kernels.h5
"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.import_checkpoint",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", metavar="FILE.pth", type=pathlib.Path)
    parser.add_argument("run", metavar="RUN_DIR", type=pathlib.Path, help="the folder to create")
    parser.add_argument(
        "--num-heads",
        type=int,
        default=8,
        metavar="H",
        help="attention heads of the checkpoint (default: 8, as in the authors' logs)",
    )
    parser.add_argument(
        "--top-k",
        type=int,
        default=6,
        metavar="K",
        help="regions averaged for each class (default: 6)",
    )
    parser.add_argument(
        "--vocabulary",
        type=pathlib.Path,
        metavar="FILE.npz",
        help="its classes: arrays names, embeddings and groups (default: none; evaluation reads "
        "classes from the data and their embeddings from vocabulary.word_vectors)",
    )
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="replace one setting of the run, e.g. backbone.weights=FILE; may be given many times",
    )
    return run_command(parser, _command, argv)


def _command(arguments: argparse.Namespace) -> None:
    if not arguments.checkpoint.is_file():
        raise UserError(f"{arguments.checkpoint}: no such file")

    # Imported here, so that --help answers at once, without TensorFlow.
    from training.pipeline.imported_run import import_run

    import_run(
        arguments.checkpoint,
        arguments.run,
        arguments.num_heads,
        arguments.top_k,
        arguments.vocabulary,
        arguments.set,
    )
    given = dict(setting.split("=", 1) for setting in arguments.set)
    words = given.get("vocabulary.word_vectors")
    evaluate = ("--data", "MY_PHOTOS", "--split", "test", "--output", "evaluation.json")
    vectors = () if words else ("--word-vectors", "glove.6B.300d.txt")
    lines = [
        f"{arguments.run} is a run now.\n\nNext:",
        "  evaluate it on any folder of labeled photos:",
        f"    {command_to_paste('training.evaluate', arguments.run, *evaluate, *vectors)}",
    ]
    if words:
        tag = ("MY_PHOTOS", "--model", arguments.run, "--classes", "dog, red car, beach")
        lines += [
            "  tag a folder of photos, with any classes:",
            f"    {command_to_paste('serving.predict', *tag)}",
        ]
    print("\n".join(lines))


if __name__ == "__main__":
    sys.exit(main())
