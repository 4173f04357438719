"""A checkpoint as a run: `python -m training.import_checkpoint FILE.pth RUN_DIR`."""

import argparse
import os
import pathlib
import shutil
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # read when TensorFlow is first imported

from biam_tf.errors import UserError
from training.cli import run_command

DESCRIPTION = """\
Makes the folder of a run from a PyTorch checkpoint of the authors' released code, without torch,
so that it is evaluated and used like a run trained here.

A checkpoint holds the head alone. What it does not tell is set here: the number of heads and k,
the backbone its features came from (VGG19 with ImageNet weights), and the word vectors.
"""

EXAMPLES = """\
examples:
  python -m training.import_checkpoint NUS_WIDE_zsl.pth runs/released-zsl \\
      --set vocabulary.word_vectors=glove.6B.300d.txt
  python -m training.import_checkpoint NUS_WIDE_zsl.pth runs/released-zsl \\
      --set backbone.weights=vgg19_weights_tf_dim_ordering_tf_kernels.h5
"""

# The checkpoint says nothing about its data; this one was trained on more of them than others.
SETTINGS = (
    "data.name=nus_wide",
    "backbone.name=vgg19",
    "backbone.image_size=null",
    "backbone.weights=imagenet",
    "head.preset=released",
    "training.optimizer.beta_1=0.9",
)


def main(argv=None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m training.import_checkpoint",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", metavar="FILE.pth", type=pathlib.Path)
    parser.add_argument("run", metavar="RUN_DIR", type=pathlib.Path, help="the folder to make")
    parser.add_argument(
        "--num-heads",
        type=int,
        default=8,
        metavar="H",
        help="attention heads it was trained with (default: 8, as in the authors' logs)",
    )
    parser.add_argument(
        "--top-k", type=int, default=6, metavar="K", help="regions averaged a class (default: 6)"
    )
    parser.add_argument(
        "--vocabulary",
        type=pathlib.Path,
        metavar="FILE.npz",
        help="its classes: arrays names, embeddings and groups (default: none; evaluation takes "
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
    target = arguments.run
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise UserError(f"{target} exists already; nothing was changed. Choose another folder")
    # Made beside its place and moved there in one step: a folder of a run is whole or not there.
    aside = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        _write_run(arguments, aside)
        os.replace(aside, target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    print(
        f"{target} is a run now. Evaluate it on any folder of labeled photos:\n"
        f"  python -m training.evaluate {target} --data DIR --split test --output FILE.json "
        "--word-vectors glove.6B.300d.txt"
    )


def _write_run(arguments: argparse.Namespace, directory: pathlib.Path) -> None:
    import numpy as np

    from biam_tf.backbones import build_backbone
    from biam_tf.checkpoints import load_released_checkpoint
    from biam_tf.vocabulary import Vocabulary, require_embedding_size
    from training.config import load_config
    from training.pipeline.run_folder import RunFolder, save_model

    # Any number of regions: that depends on the backbone, and the weights fit all.
    head = load_released_checkpoint(
        arguments.checkpoint, arguments.num_heads, arguments.top_k, region_size=(None, None)
    )
    shapes = {tensor.name: tensor.shape for tensor in head.inputs}
    config = load_config(
        None,
        [
            *SETTINGS,
            f"head.num_heads={arguments.num_heads}",
            f"head.top_k={arguments.top_k}",
            f"head.channels={head.get_layer('region_embedding').output.shape[-1]}",
            f"head.fused_channels={head.get_layer('fusion').output.shape[-1]}",
            *arguments.set,
            "backbone.trainable=false",  # or its weights would have to be stored in the run
            f"output={arguments.run}",
        ],
    )
    embedding_size = shapes["class_embeddings"][-1]
    vocabulary = Vocabulary((), np.empty((0, embedding_size), np.float32), ())
    if arguments.vocabulary is not None:
        vocabulary = Vocabulary.load(arguments.vocabulary)
        require_embedding_size(vocabulary, embedding_size, str(arguments.vocabulary))

    backbone = build_backbone(
        config.backbone.name, config.backbone.image_size, config.backbone.weights
    )
    for name in ("region_features", "scene_feature"):
        given, wanted = backbone.output[name].shape[-1], shapes[name][-1]
        if given != wanted:
            raise UserError(
                f"{arguments.checkpoint} was trained on {name} of {wanted} numbers; the backbone "
                f"{config.backbone.name} gives {given}. Choose another one with "
                "--set backbone.name=NAME"
            )

    folder = RunFolder(directory)
    folder.claim(config)
    vocabulary.save(folder.vocabulary)
    folder.write_backbone_identity(config.backbone, backbone)
    save_model(folder.model, head)


if __name__ == "__main__":
    sys.exit(main())
