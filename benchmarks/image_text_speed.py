"""Times of image-text models of published sizes: `python -m benchmarks.image_text_speed`.

The models have random weights: their times are those of trained ones. Measures the seconds of
processor time per photo (regions and scene in the space of texts) and per text, which are the sum
over all cores: on two idle cores a photo takes about half as long. The vocabulary is small, which
changes no time.
"""

import os
import sys
from collections.abc import Callable, Sequence

from benchmarks.shared.benchmark_command import benchmark_command
from training.tables.table import Table

# Size of a picture, channels, layers.
BASE, LARGE = (768, 12), (1024, 24)
MODELS = {
    "base, 224x224 pixels": (224, *BASE),
    "base, 384x384 pixels": (384, *BASE),
    "large, 256x256 pixels": (256, *LARGE),
}
SMOKE = {"smallest, 32x32 pixels": (32, 64, 1)}
PATCH, CONTEXT, BATCH = 16, 64, 4


def main(argv=None) -> int:
    return benchmark_command("image_text_speed", __doc__, measure, argv)


def measure(smoke: bool) -> Sequence[Table]:
    """Returns the table described in the module docstring."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow as tf

    from biam_tf.backbones.joint_space import JointSpaceNetwork
    from biam_tf.backbones.preset_folder import import_keras_hub

    models, rows = import_keras_hub().models, []
    for name, (size, channels, layers) in (SMOKE if smoke else MODELS).items():
        sizes = {"hidden_dim": channels, "num_layers": layers, "num_heads": channels // 64}
        sizes["intermediate_dim"] = 4 * channels
        side = size // PATCH
        network = JointSpaceNetwork(
            models.SigLIPVisionEncoder(PATCH, image_shape=(size, size, 3), **sizes),
            (side, side),
            0,
        )
        texts = models.SigLIPTextEncoder(
            vocabulary_size=1000,
            embedding_dim=channels,
            projection_dim=channels,
            max_sequence_length=CONTEXT,
            **sizes,
        )
        pictures = tf.zeros((BATCH, size, size, 3))
        tokens = tf.zeros((BATCH, CONTEXT), tf.int32)
        photo = _seconds(tf.function(lambda: network(pictures), autograph=False))  # noqa: B023
        text = _seconds(tf.function(lambda: texts({"token_ids": tokens}), autograph=False))  # noqa: B023
        rows.append((f"SigLIP, {name}", f"{side}x{side}", f"{photo:.2f} s", f"{text:.2f} s"))
        print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
    columns = ("model", "regions", "per photo", "per text")
    return [Table("Processor time of image-text models", columns, rows)]


def _seconds(run: Callable[[], object]) -> float:
    """Returns the processor time of one of `BATCH` examples, the lesser of two runs."""
    run()
    measured = []
    for _ in range(2):
        begun = sum(os.times()[:2])
        run()
        measured.append((sum(os.times()[:2]) - begun) / BATCH)
    return min(measured)


if __name__ == "__main__":
    sys.exit(main())
