"""Speed of feature extraction, compared with ONNX Runtime: `python -m benchmarks.extraction`.

EfficientNet-Lite0 at 224 pixels, with the same cores for both (requires the extra [onnx]):

1. the backbone alone, batches of 32: as built by Keras, as used by extraction (batch normalization
   folded into the convolutions), and both networks in ONNX Runtime;
2. the time by TensorFlow operation, from its profiler;
3. photos to a shard of features: decoding alone, the backbone alone, both together as in
   `training.extract_features`, and the same decoding with ONNX Runtime;
4. batches of 8 to 64: photos per second, and the peak memory, each in its own process.

The features must agree within a thousandth of the largest feature. The photos are those of Corel5k
in $BIAM_TEST_DATA, or noise if it is not set. The weights are those of ImageNet, or with --smoke
random weights of the smallest backbone.
"""

import functools
import os
import pathlib
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # read when TensorFlow is first imported

from benchmarks.shared.benchmark_command import benchmark_command
from benchmarks.shared.timing import (
    in_own_process,
    in_turns,
    milliseconds,
    ratios,
    seconds_and_range,
)
from biam_tf.errors import UserError
from training.tables.table import Table

BATCH, BATCHES = 32, (8, 16, 32, 64)
PHOTOS, ROUNDS = 256, 5
TOLERANCE = 1e-3  # of the largest feature
BACKBONE, SMALLEST = ("efficientnet_lite0", 224, "imagenet"), ("small", 32, "none")
SHOWN_OPERATIONS = 5
AS_IS, FOLDED = "TensorFlow, as built", "TensorFlow, folded"
ONNX_AS_IS, ONNX_FOLDED = "ONNX Runtime, as built", "ONNX Runtime, folded"


def main(argv=None) -> int:
    return benchmark_command("extraction", __doc__, measure, argv)


def measure(smoke: bool) -> list[Table]:
    """Returns the tables; with `smoke` for the smallest backbone and a few photos, once.

    Raises:
        UserError: A package is missing, or the features of two networks differ.
    """
    import tensorflow as tf

    from biam_tf.backbones import build_backbone, fold_batch_norms
    from serving.graph.onnx_file import require_packages

    require_packages()
    tf.config.threading.set_intra_op_parallelism_threads(cores())
    backbone = build_backbone(*(SMALLEST if smoke else BACKBONE))
    folded = fold_batch_norms(backbone)
    networks = {
        AS_IS: tensorflow_network(backbone),
        FOLDED: tensorflow_network(folded),
        ONNX_AS_IS: _onnx_network(backbone),
        ONNX_FOLDED: _onnx_network(folded),
    }
    with tempfile.TemporaryDirectory() as folder:
        count, rounds = (8, 1) if smoke else (PHOTOS, ROUNDS)
        directory, images = _photos(pathlib.Path(folder), None if smoke else count)
        extract = _Extraction(backbone, directory, images, folder)
        batches = [photos for _, photos in extract.decoded()]
        _check_agreement({name: network(batches[0]) for name, network in networks.items()})
        tables = [
            _table_of_networks(networks, batches[0], rounds),
            _table_of_operations(networks, batches[0], pathlib.Path(folder)),
            _table_of_extraction(extract, networks, batches, rounds),
        ]
    return tables if smoke else [*tables, _table_of_batch_sizes()]


def cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def tensorflow_network(model) -> Callable:
    """Returns a function, compiled from a model, of photos to [region features, scene feature]."""
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec(model.inputs[0].shape, tf.float32)])
    def features(photos):
        outputs = model(photos, training=False)
        return outputs["region_features"], outputs["scene_feature"]

    return lambda photos: [value.numpy() for value in features(photos)]


def _onnx_network(model) -> Callable:
    """Returns the same function computed by ONNX Runtime on the same number of cores."""
    import onnxruntime
    import tensorflow as tf
    import tf2onnx

    spec = [tf.TensorSpec(model.inputs[0].shape, tf.float32, name="photos")]

    @tf.function(input_signature=spec)
    def features(photos):
        outputs = model(photos, training=False)
        return {name: tf.identity(value, name) for name, value in outputs.items()}

    converted, _ = tf2onnx.convert.from_function(features, input_signature=spec, opset=18)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = cores(), 1
    session = onnxruntime.InferenceSession(
        converted.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = ["region_features", "scene_feature"]
    return lambda photos: session.run(names, {"photos": photos.numpy()})


class _Extraction:
    """Extraction of one shard, as in `training.extract_features`, which can be repeated."""

    def __init__(self, backbone, directory: pathlib.Path, images: Sequence[str], folder: str):
        from training.data.features import storage
        from training.data.features.shard_extraction import ShardExtractor, describe_job
        from training.data.features.unfinished_store import begin_or_open
        from training.data.input import photo_reader

        job = describe_job(backbone, "measured", images, len(images))
        path = storage.join(folder, "store")
        storage.make_folder(path)
        store = begin_or_open(path, job, images)
        self.images = images
        self._extractor = ShardExtractor(backbone, store, directory, BATCH)
        self._size = backbone.inputs[0].shape[1]
        self._read = functools.partial(
            photo_reader.photo_batches, directory, images, self._size, BATCH
        )

    def decoded(self) -> list:
        """Decodes all photos and returns their batches."""
        return list(self._read())

    def decode(self) -> None:
        """Decodes all photos."""
        for _ in self._read():
            pass

    def into_shard(self) -> None:
        """Decodes all photos and writes their features."""
        batches = next(self._extractor.batches([self.images]))
        shard = self._extractor.extract(0, self.images, batches)
        if shard.count != len(self.images):
            raise UserError(f"{len(shard.broken)} of the photos cannot be read")

    def into_network(self, network: Callable) -> None:
        """Decodes all photos and computes their features, which are discarded."""
        for _, photos in self._read():
            network(photos)


def _table_of_networks(networks: Mapping[str, Callable], photos, rounds: int) -> Table:
    calls = {name: functools.partial(network, photos) for name, network in networks.items()}
    seconds = in_turns(calls, rounds)
    best = min((ONNX_AS_IS, ONNX_FOLDED), key=lambda name: sorted(seconds[name])[rounds // 2])
    return Table(
        f"The backbone alone, batches of {len(photos)} on {cores()} cores",
        ("", "per batch", "photos/s", f"speed relative to {best}"),
        [
            (name, milliseconds(its), _rate(len(photos), its), ratios(seconds[best], its))
            for name, its in seconds.items()
        ],
    )


def _table_of_operations(networks: Mapping, photos, folder: pathlib.Path) -> Table:
    import tensorflow as tf

    from training.loop.profiler_trace import operation_times, read_trace

    rows = []
    for name in (AS_IS, FOLDED):
        where = folder / f"trace-{len(rows)}"
        with tf.profiler.experimental.Profile(str(where)):
            networks[name](photos)
        times = operation_times(read_trace(where))
        total = sum(time.seconds for time in times)
        rows += [
            (name, time.name, milliseconds([time.seconds]), f"{time.seconds / total:.0%}")
            for time in times[:SHOWN_OPERATIONS]
        ]
    return Table(
        f"Time of the backbone by operation, one batch of {len(photos)}",
        ("", "operation", "own time", "share"),
        rows,
        "The times of concurrent operations are added.",
    )


def _table_of_extraction(
    extract: _Extraction, networks: Mapping, batches: Sequence, rounds: int
) -> Table:
    def backbone_alone() -> None:
        for photos in batches:
            networks[FOLDED](photos)

    ours, theirs = "photos to a shard", "photos to ONNX Runtime"
    seconds = in_turns(
        {
            "decoding alone": extract.decode,
            "backbone alone": backbone_alone,
            ours: extract.into_shard,
            theirs: functools.partial(extract.into_network, networks[ONNX_FOLDED]),
        },
        rounds,
    )
    longest = [
        max(pair) for pair in zip(seconds["decoding alone"], seconds["backbone alone"], strict=True)
    ]
    both = [
        sum(pair) for pair in zip(seconds["decoding alone"], seconds["backbone alone"], strict=True)
    ]
    count = len(extract.images)
    return Table(
        f"{count} photos, batches of {len(batches[0])} on {cores()} cores",
        ("", "seconds", "photos/s"),
        [
            *((name, seconds_and_range(its), _rate(count, its)) for name, its in seconds.items()),
            ("photos to a shard / max(decoding, backbone)", ratios(seconds[ours], longest), ""),
            ("photos to a shard / (decoding + backbone)", ratios(seconds[ours], both), ""),
            (f"{theirs} / {ours}", ratios(seconds[theirs], seconds[ours]), ""),
        ],
        "Decoding and backbone share the cores: if each alone uses all of them, the sum of their "
        "times is the minimum for both.",
    )


def _table_of_batch_sizes() -> Table:
    rows = []
    for size in BATCHES:
        laps = in_own_process("benchmarks.shared.extraction_process", [str(size)])
        rows.append(
            (
                str(size),
                f"{laps['photos_per_second']:.0f}",
                f"{laps['before'] / 1e6:.0f} MB",
                f"{laps['peak'] / 1e6:.0f} MB",
                f"{(laps['peak'] - laps['before']) / size / 1e6:.1f} MB",
            )
        )
    return Table(
        "Batch sizes of the backbone, each in its own process",
        ("batch size", "photos/s", "memory before", "peak", "growth per photo"),
        rows,
    )


def _check_agreement(features: Mapping[str, Sequence]) -> None:
    expected = features[AS_IS]
    for name, found in features.items():
        for its, own in zip(found, expected, strict=True):
            difference = float(abs(its - own).max() / abs(own).max())
            if not difference <= TOLERANCE:
                raise UserError(f"{name} differs by {difference:.1e} of the largest feature")


def _photos(folder: pathlib.Path, count: int | None) -> tuple[pathlib.Path, list[str]]:
    """Returns the folder of some photos and their names; with None, a few photos of noise."""
    if count is not None and "BIAM_TEST_DATA" in os.environ:
        directory = pathlib.Path(os.environ["BIAM_TEST_DATA"]) / "data" / "corel5k"
        images = sorted(path.relative_to(directory) for path in directory.glob("images/*.jpg"))
        if len(images) < count:
            raise UserError(f"{directory}/images: {len(images)} photos; {count} are required")
        return directory, [str(image) for image in images[:count]]
    from benchmarks.shared.random_inputs import noise_photo

    images = [f"{number}.jpg" for number in range(count or 8)]
    for number, image in enumerate(images):
        (folder / image).write_bytes(noise_photo(192, 128, number))
    return folder, images


def _rate(count: int, seconds: Sequence[float]) -> str:
    return f"{count / sorted(seconds)[len(seconds) // 2]:.0f}"


if __name__ == "__main__":
    sys.exit(main())
