"""Measurements of `benchmarks.reading`: speed, waiting time and memory of reading examples."""

import argparse
import pathlib
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from biam_tf.losses import RankingLoss
from biam_tf.models import bind_vocabulary, build_head
from biam_tf.photos import decode_photo
from biam_tf.progress import progress
from training.config import AugmentationConfig
from training.data.features.extraction import extract_features
from training.data.features.store import FeatureStore
from training.data.input.sources import FeatureSource, PhotoSource

BATCH, CLASSES, EMBEDDING_SIZE = 32, 205, 100
PHOTO = (480, 320)
AUGMENTED = AugmentationConfig(flip=True, crop_scale=(0.5, 1.0))
STORES = (2_000, 8_000, 32_000)  # numbers of photos in the stores of the memory measurement
LIMIT = 500_000_000  # bytes; simulates a machine with less memory than the largest store
PAUSE_MS = (25, 100)  # steps of an accelerator that trains 1280 or 320 images/s


def compare_speed(folder: pathlib.Path, arguments: argparse.Namespace) -> None:
    """Prints the speed of the sources and of bare loops, and the time that steps wait for them."""
    size = arguments.image_size
    images = _draw_photos(folder, arguments.photos, PHOTO)
    store = extract_features(_cheap_backbone(size), "cheap", folder, images, folder / "store")
    labels = np.where(np.random.default_rng(0).random((len(images), CLASSES)) < 0.02, 1, -1)
    labels = labels.astype(np.int8)

    sources = {
        "features, memory": FeatureSource(store, images, "memory"),
        "features, stream": FeatureSource(store, images, "stream"),
        "photos, memory": PhotoSource(folder, images, size, "memory"),
        "photos, memory, augmented": PhotoSource(
            folder, images, size, "memory", augmentation=AUGMENTED
        ),
        "photos, stream": PhotoSource(folder, images, size, "stream"),
        "photos, stream, augmented": PhotoSource(
            folder, images, size, "stream", augmentation=AUGMENTED
        ),
    }
    bare = _bare_loops(folder, images, store, size)
    epoch = iter(range(10**6))
    loops: dict[str, Callable[[], Iterable]] = {
        name: lambda source=source: source.training_batches(labels, BATCH, 0, next(epoch))
        for name, source in sources.items()
    }
    loops |= {f"bare {name}": loop for name, loop in bare.items()}
    rates: dict[str, list[float]] = {name: [] for name in loops}
    cpu: dict[str, list[float]] = {name: [] for name in loops}
    with progress(arguments.repeat + 1, "Reading", "round") as bar:
        for round_ in range(arguments.repeat + 1):
            for name, loop in loops.items():
                rate, cpu_seconds = _photos_per_second(loop())
                if round_:  # the first round fills the disk's cache
                    rates[name].append(rate)
                    cpu[name].append(1000 * cpu_seconds)
            bar.update()
    print(
        f"{len(images)} photos of {PHOTO[0]}x{PHOTO[1]} read at {size} pixels, batches of {BATCH}"
    )
    print(f"{'':26s}{'photos/s':>9s}{'range':>13s}{'/ bare loop':>14s}{'CPU ms/photo':>14s}")
    for name, values in rates.items():
        compared = rates.get(f"bare {name.removesuffix(', augmented')}")
        ratio = f"{statistics.median(np.divide(values, compared)):.2f}" if compared else ""
        spread = f"{min(values):.0f}-{max(values):.0f}"
        print(
            f"{name:26s}{statistics.median(values):9.0f}{spread:>13s}{ratio:>14s}"
            f"{statistics.median(cpu[name]):14.2f}"
        )

    print("\nshare of the time that steps wait for their batch")
    steps = {"head": _head_step(store)} | {f"{ms} ms pause": _pause(ms) for ms in PAUSE_MS}
    for name, source in sources.items():
        for step_name, step in steps.items():
            if (step_name == "head") == name.startswith("features"):
                shares = [
                    _waiting_share(source.training_batches(labels, BATCH, 0, next(epoch)), step)
                    for _ in range(arguments.repeat)
                ]
                spread = f"{100 * min(shares):.1f}-{100 * max(shares):.1f}"
                median = f"{100 * statistics.median(shares):.1f} %"
                print(f"{name:26s}{step_name:14s}{median:>9s}  {spread:>13s}")


def _bare_loops(folder, images, store: FeatureStore, size: int) -> dict[str, Callable]:
    """Returns minimal loops over the same examples, which only shuffle and batch."""
    paths = [str(folder / image) for image in images]
    pixels = np.stack([decode_photo(tf.io.read_file(path), size) for path in paths])
    pixels = pixels.round().astype(np.uint8)
    regions, scenes = store.read(images)
    shards = [store.shard_path(n) for n in range(store.manifest.shard_total)]
    data = tf.data.Dataset

    def batched(dataset: tf.data.Dataset, map_batch: Callable) -> tf.data.Dataset:
        batches = dataset.batch(BATCH, drop_remainder=True)
        return batches.map(map_batch, num_parallel_calls=tf.data.AUTOTUNE).prefetch(2)

    def as_float(*values: tf.Tensor) -> list[tf.Tensor]:
        return [tf.cast(value, tf.float32) for value in values]

    def parsed(records: tf.Tensor) -> list[tf.Tensor]:
        features = store.parse(records)
        return as_float(features["region_features"], features["scene_feature"])

    return {
        "features, memory": lambda: batched(
            data.from_tensor_slices((regions, scenes)).shuffle(len(images)), as_float
        ),
        "features, stream": lambda: batched(
            data.from_tensor_slices(shards).interleave(tf.data.TFRecordDataset).shuffle(2048),
            parsed,
        ),
        "photos, memory": lambda: batched(
            data.from_tensor_slices(pixels).shuffle(len(images)), as_float
        ),
        "photos, stream": lambda: batched(
            data.from_tensor_slices(paths)
            .shuffle(len(images))
            .map(
                lambda path: decode_photo(tf.io.read_file(path), size),
                num_parallel_calls=tf.data.AUTOTUNE,
                deterministic=False,
            ),
            as_float,
        ),
    }


def _photos_per_second(batches: Iterable) -> tuple[float, float]:
    """Returns the photos per second and the CPU seconds per photo, over all threads."""
    start, cpu, count = time.perf_counter(), time.process_time(), 0
    for _ in batches:
        count += BATCH
    return count / (time.perf_counter() - start), (time.process_time() - cpu) / count


def _waiting_share(batches: tf.data.Dataset, step: Callable) -> float:
    """Returns the share of the time that a step waits for its batch, without the first batch."""
    iterator = iter(batches)
    step(*next(iterator))
    waited, start = 0.0, time.perf_counter()
    while True:
        asked = time.perf_counter()
        batch = next(iterator, None)
        waited += time.perf_counter() - asked
        if batch is None:
            return waited / (time.perf_counter() - start)
        step(*batch)


def _head_step(store: FeatureStore) -> Callable:
    classes = np.random.default_rng(0).normal(size=(CLASSES, EMBEDDING_SIZE)).astype(np.float32)
    head = build_head(store.region_shape, store.scene_size, EMBEDDING_SIZE, preset="released")
    model = bind_vocabulary(head, classes)
    loss, optimizer = RankingLoss(reduction="mean_of_violations"), keras.optimizers.Adam(1e-4)
    optimizer.build(model.trainable_variables)

    @tf.function
    def train(inputs, labels):
        with tf.GradientTape() as tape:
            value = loss(labels, model(inputs, training=True))
        optimizer.apply(tape.gradient(value, model.trainable_variables), model.trainable_variables)
        return value

    return lambda inputs, labels: float(train(inputs, labels))


def _pause(milliseconds: int) -> Callable:
    return lambda inputs, labels: time.sleep(milliseconds / 1000)


def _draw_photos(folder: pathlib.Path, count: int, size: tuple[int, int]) -> list[str]:
    rng = np.random.default_rng(0)
    images = [f"{number}.jpg" for number in range(count)]
    for image in images:
        coarse = rng.integers(0, 256, (size[1] // 16, size[0] // 16, 3), np.uint8)
        Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(folder / image)
    return images


def _cheap_backbone(size: int) -> keras.Model:
    """Returns a backbone with negligible cost and the output shapes of EfficientNet-Lite0."""
    images = keras.Input((size, size, 3))
    pooled = keras.layers.AveragePooling2D(size // 7)(images)
    regions = keras.layers.Dense(320)(keras.layers.Rescaling(1 / 255)(pooled))
    scene = keras.layers.Dense(1280)(keras.layers.GlobalAveragePooling2D()(regions))
    return keras.Model(images, {"region_features": regions, "scene_feature": scene})


def compare_memory(folder: pathlib.Path) -> None:
    """Prints the peak memory of reading stores of several sizes."""
    header = f"{'photos':>8s}{'features':>12s}{'cache':>9s}{'peak memory':>14s}{'growth':>10s}"
    print(header)
    for count in STORES:
        photos = folder / str(count)
        photos.mkdir()
        images = _draw_photos(photos, count, (28, 28))
        store = extract_features(_cheap_backbone(28), "cheap", photos, images, photos / "store")
        for cache in ("stream", "auto", "memory"):
            command = [sys.executable, "-m", "benchmarks.reading", "--peak-of", store.path, cache]
            printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            peak, growth, used = printed.split()
            megabytes = f"{store.nbytes / 1e6:.0f} MB"
            name = cache if used == cache else f"{used}*"
            print(
                f"{count:8d}{megabytes:>12s}{name:>9s}{peak + ' MB':>14s}{growth + ' MB':>10s}",
                flush=True,
            )
    print(f"* chosen by auto with a limit of {LIMIT / 1e6:.0f} MB")


def read_and_print_peak(store: str, cache: str) -> None:
    """Reads a store twice and prints the peak memory, its growth and the chosen cache."""
    opened = FeatureStore.open(store)
    source = FeatureSource(opened, opened.images, cache, memory_limit_bytes=LIMIT)
    labels = np.ones((len(opened), CLASSES), np.int8)
    resident = []
    for epoch in range(2):
        for number, _ in enumerate(source.training_batches(labels, BATCH, 0, epoch)):
            if number % 10 == 0:
                resident.append(_resident_megabytes())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    warm = len(resident) // 5
    growth = max(resident[warm:]) - max(resident[: warm + 1])
    print(f"{peak:.0f} {max(0, growth):.0f} {source.cache}")


def _resident_megabytes() -> float:
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6
