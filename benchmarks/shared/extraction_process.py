"""One process of `benchmarks.extraction`.

`python -m benchmarks.shared.extraction_process BATCH_SIZE`

Prints, as a JSON object, the photos per second of the backbone with this batch size, and the peak
memory of this process in bytes before the first batch and after the last.
"""

import json
import sys
import time

PHOTOS = 192


def main() -> None:
    """Measures one batch size."""
    import tensorflow as tf

    from benchmarks.extraction import BACKBONE, cores, tensorflow_network
    from biam_tf.backbones import build_backbone, fold_batch_norms
    from training.machine import peak_memory

    size = int(sys.argv[1])
    tf.config.threading.set_intra_op_parallelism_threads(cores())
    backbone = fold_batch_norms(build_backbone(*BACKBONE))
    network = tensorflow_network(backbone)
    photos = tf.random.uniform((size, *backbone.inputs[0].shape[1:]), 0, 255)
    before = peak_memory()
    network(photos)
    started = time.perf_counter()
    for _ in range(PHOTOS // size):
        network(photos)
    seconds = time.perf_counter() - started
    print(
        json.dumps({"photos_per_second": PHOTOS / seconds, "before": before, "peak": peak_memory()})
    )


if __name__ == "__main__":
    main()
