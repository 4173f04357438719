"""Differences from the released code: `python -m benchmarks.exactness DIR`.

DIR is the folder of golden vectors (`biam_release_small.npz`, `.pth` and
`efficientnet_lite0_imagenet.npz`), by default `$BIAM_TEST_DATA/golden`.
"""

import argparse
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # read when TensorFlow is first imported

from biam_tf.command_line import run_command
from biam_tf.errors import UserError


def differences(folder: pathlib.Path) -> dict[str, float]:
    """Returns the largest absolute difference from the golden vector for each quantity."""
    import keras
    import numpy as np
    import tensorflow as tf

    from biam_tf.backbones import build_backbone
    from biam_tf.checkpoints import load_released_checkpoint
    from biam_tf.losses import RankingLoss
    from biam_tf.metrics import average_precision, f1_at_k

    with np.load(folder / "biam_release_small.npz") as arrays:
        golden = dict(arrays)
    head = load_released_checkpoint(
        folder / "biam_release_small.pth", int(golden["heads"]), int(golden["top_k"])
    )
    inputs = [golden[name] for name in ("region_features", "scene_feature", "class_embeddings")]
    found = {}
    layers = {
        "h_r": "region_embedding",
        "e_r": "region_context",
        "e_g": "scene_context",
        "scores": "scores",
    }
    for name, layer in layers.items():
        value = keras.Model(head.inputs, head.get_layer(layer).output)(inputs)
        found[name] = _largest(value - golden[name])

    scores = tf.constant(golden["scores"])
    with tf.GradientTape() as tape:
        tape.watch(scores)
        loss = RankingLoss(reduction="mean_of_violations")(golden["labels"], scores)
    found["loss"] = _largest(loss - golden["loss"])
    found["gradient of the loss"] = _largest(tape.gradient(loss, scores) - golden["loss_gradient"])

    ranked, labels = golden["metric_scores"], golden["metric_labels"]
    found["average precision"] = _largest(
        average_precision(ranked, labels) - golden["average_precision"]
    )
    for k in (3, 5):
        found[f"F1@{k}"] = _largest(np.array(f1_at_k(ranked, labels, k)) - golden[f"f1_at_{k}"])

    with np.load(folder / "efficientnet_lite0_imagenet.npz") as arrays:
        pretrained = dict(arrays)
    features = build_backbone("efficientnet_lite0")(pretrained["images"].astype(np.float32))
    for name in ("region_features", "scene_feature"):
        golden_value = pretrained[name]
        found[f"EfficientNet-Lite0 {name}, relative"] = _largest(
            features[name] - golden_value
        ) / _largest(golden_value)
    return found


def _largest(values) -> float:
    import numpy as np

    return float(np.max(np.abs(np.asarray(values))))


def main(argv=None) -> int:
    default = pathlib.Path(os.environ.get("BIAM_TEST_DATA", ".")) / "golden"
    parser = argparse.ArgumentParser(prog="python -m benchmarks.exactness", description=__doc__)
    parser.add_argument("folder", metavar="DIR", type=pathlib.Path, nargs="?", default=default)
    return run_command(parser, _command, argv)


def _command(arguments: argparse.Namespace) -> None:
    if not (arguments.folder / "biam_release_small.npz").exists():
        raise UserError(f"{arguments.folder}: contains no golden vectors (biam_release_small.npz)")
    for name, value in differences(arguments.folder).items():
        print(f"{name:45s} {value:.1e}")


if __name__ == "__main__":
    sys.exit(main())
