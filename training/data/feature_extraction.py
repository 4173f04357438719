"""Computes backbone features of photos and writes them as a feature store, resumably."""

import contextlib
import dataclasses
import os
import pathlib
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf
import tqdm

from biam_tf.backbones import weights_fingerprint
from biam_tf.errors import UserError
from biam_tf.progress import progress as progress_bar
from training.config import RunConfig
from training.data import photo_reader, store_manifest
from training.data.dataset import TaggingDataset
from training.data.feature_store import (
    IMAGES,
    MANIFEST,
    PARTIAL,
    PREPROCESSING,
    FeatureStore,
    sha256_of_file,
)
from training.data.folder import check_photos
from training.data.store_manifest import BackboneIdentity, Shard, StoreManifest

try:
    import fcntl
except ImportError:  # Windows has none: there, two extractions into one folder are not kept apart
    fcntl = None

LOCK = ".lock"


def extract_features(
    backbone: keras.Model,
    backbone_name: str,
    photos_directory: str | os.PathLike,
    images: Sequence[str],
    store: str | os.PathLike,
    *,
    batch_size: int = 32,
    shard_size: int = 1024,
    progress: Callable[..., tqdm.tqdm] | None = None,
) -> FeatureStore:
    """Computes the features of `images` and keeps them in the folder `store`.

    Finished shards stay when the work is interrupted, and the same call goes on after them. A
    store that is whole is opened and returned. Several processes may call this for one folder:
    the others wait for the first. Features are rounded to float16.

    Args:
        backbone: model from `images` (B, S, S, 3) in 0..255 to a dict of `region_features`
            (B, h, w, d) and `scene_feature` (B, d_g).
        backbone_name: its name, for the manifest.
        photos_directory: the folder that `images` are relative to.
        images: (N,) relative paths, each once; the order of the records. What matters for
            `cache: stream` is that the photos of a split stand together.
        store: the folder; made if it does not exist.
        batch_size: photos at a time.
        shard_size: photos a file, unless the store was begun with another number.
        progress: makes the bar, called as `biam_tf.progress.progress`; None shows nothing.

    Raises:
        UserError: photos that cannot be read (all of them are named), features that are not
            finite in float16, too little space on the disk, or a store in this folder that is
            of another backbone or of other photos.
    """
    store = pathlib.Path(store)
    job = _describe_job(backbone, backbone_name, images, shard_size)
    store.mkdir(parents=True, exist_ok=True)
    with _one_process_at_a_time(store):
        if (store / MANIFEST).is_file():
            _check_same_job(store, StoreManifest.read(store / MANIFEST), job)
            return FeatureStore.open(store)
        done = _resume(store, job)
        _check_space(store, done)
        store_manifest.write_atomically(store / IMAGES, store_manifest.encode_images(images))
        bar = progress and progress(
            total=done.count, label="Features", unit="photo", initial=done.photos_done
        )
        with bar or contextlib.nullcontext() as bar:
            update = bar.update if bar else lambda count: None
            _write_shards(backbone, photos_directory, images, store, done, batch_size, update)
    return FeatureStore.open(store)


def ensure_features(
    config: RunConfig,
    dataset: TaggingDataset,
    backbone: keras.Model,
    default_location: str | os.PathLike,
) -> FeatureStore:
    """Returns a store with the features of all photos of `dataset`, extracting what is missing.

    A whole store is opened, an unfinished one is finished, after the photos that still need the
    backbone were checked.

    Args:
        config: of the run; `data.feature_store` says where, `backbone` whose features.
        dataset: the photos of all splits are extracted, split by split.
        backbone: the model that `config.backbone` describes.
        default_location: the store's folder where `data.feature_store` is not set.

    Raises:
        UserError: broken photos, or a store in that folder that is of another backbone or lacks
            some of the photos.
    """
    store = pathlib.Path(config.data.feature_store or default_location)
    images = all_images(dataset)
    if (store / MANIFEST).is_file():
        opened = FeatureStore.open(
            store,
            backbone_name=config.backbone.name,
            image_size=backbone.inputs[0].shape[1],
            weights_fingerprint=weights_fingerprint(backbone),
        )
        opened.rows(images)
        return opened
    with progress_bar(len(images), "Checking photos", "photo") as bar:
        check_photos(
            dataset, images[photos_extracted(store) :], progress=lambda done, total: bar.update(1)
        )
    return extract_features(
        backbone,
        config.backbone.name,
        dataset.directory,
        images,
        store,
        batch_size=config.backbone.batch_size,
        progress=progress_bar,
    )


def all_images(dataset: TaggingDataset) -> list[str]:
    """Returns the photos of all splits in the order in which a store keeps them."""
    # Split by split, which is the order that streaming a split needs.
    return list(dict.fromkeys(image for split in dataset.splits.values() for image in split.images))


def photos_extracted(store: str | os.PathLike) -> int:
    """Returns how many photos of `store`, whole or not, are in finished shards; 0 if none."""
    for name in (MANIFEST, PARTIAL):
        path = pathlib.Path(store) / name
        if path.is_file():
            return StoreManifest.read(path).photos_done
    return 0


def _describe_job(
    backbone: keras.Model, backbone_name: str, images: Sequence[str], shard_size: int
) -> StoreManifest:
    if len(set(images)) != len(images) or not images:
        raise ValueError(f"{len(images)} images: expected at least one, and each only once")
    outputs = backbone.output
    return StoreManifest(
        backbone=BackboneIdentity(
            backbone_name, backbone.inputs[0].shape[1], weights_fingerprint(backbone)
        ),
        preprocessing=PREPROCESSING,
        region_shape=tuple(outputs["region_features"].shape[1:]),
        scene_size=outputs["scene_feature"].shape[-1],
        dtype="float16",
        count=len(images),
        shard_size=shard_size,
        images=store_manifest.fingerprint(store_manifest.encode_images(images)),
    )


def _check_same_job(store: pathlib.Path, stored: StoreManifest, job: StoreManifest) -> None:
    differences = stored.differences(job)
    if differences:
        raise UserError(
            f"{store}: holds the features of another job ({'; '.join(differences)}); name another "
            "folder for the new features or delete this one"
        )


def _resume(store: pathlib.Path, job: StoreManifest) -> StoreManifest:
    """Returns the manifest of the finished shards, which is `job` itself where there are none."""
    if not (store / PARTIAL).is_file():
        job.write(store / PARTIAL)
        return job
    partial = StoreManifest.read(store / PARTIAL)
    _check_same_job(store, partial, job)
    whole = []
    for shard in partial.shards:
        file = store / shard.file
        if not file.is_file() or file.stat().st_size != shard.bytes:
            break
        whole.append(shard)
    return dataclasses.replace(partial, shards=tuple(whole))


def _check_space(store: pathlib.Path, done: StoreManifest) -> None:
    needed = (done.count - done.photos_done) * done.photo_nbytes
    free = shutil.disk_usage(store).free
    if needed > free:
        raise UserError(
            f"{store}: the features need another {needed / 1e9:.1f} GB, but the disk has "
            f"{free / 1e9:.1f} GB left; name a folder on another disk"
        )


def _write_shards(
    backbone: keras.Model,
    photos_directory: str | os.PathLike,
    images: Sequence[str],
    store: pathlib.Path,
    done: StoreManifest,
    batch_size: int,
    update: Callable[[int], object],
) -> None:
    image_size = done.backbone.image_size
    features = _half_precision_features(backbone)
    remaining = images[done.photos_done :]
    # No batch reaches across shards: a shard holds the same features, bit for bit, whether
    # the extraction was interrupted before it or not.
    batches = iter(
        photo_reader.photo_batches(
            photos_directory, remaining, image_size, batch_size, done.shard_size
        )
        if remaining
        else ()
    )
    while len(done.shards) < done.shard_total:
        number = len(done.shards)
        rows = done.shard_photos(number)
        file = store / done.shard_file(number)
        temporary = file.with_name(file.name + ".tmp")
        with tf.io.TFRecordWriter(os.fspath(temporary)) as writer:
            for begin in range(rows.start, rows.stop, batch_size):
                names = images[begin : min(begin + batch_size, rows.stop)]
                try:
                    photos = next(batches)
                except tf.errors.OpError as error:
                    unreadable = photo_reader.unreadable_photos(
                        photos_directory, images[rows.start :], image_size
                    )
                    raise unreadable or error from error
                regions, scenes, finite = (values.numpy() for values in features(photos))
                if not finite.all():
                    raise UserError(
                        f"{names[int(np.argmin(finite))]}: the backbone {done.backbone} gives "
                        "features for this photo that are not finite or exceed 65504, the "
                        "largest float16; check its weights"
                    )
                for record in map(_serialize, names, regions, scenes):
                    writer.write(record)
                update(len(names))
        _flush_to_disk(temporary)
        shard = Shard(file.name, len(rows), temporary.stat().st_size, sha256_of_file(temporary))
        os.replace(temporary, file)
        done = dataclasses.replace(done, shards=(*done.shards, shard))
        done.write(store / PARTIAL)
    done.write(store / MANIFEST)
    (store / PARTIAL).unlink()


def _half_precision_features(backbone: keras.Model) -> Callable[[tf.Tensor], tuple[tf.Tensor, ...]]:
    """Returns the backbone as a graph: region features, scene feature, and which are finite."""

    @tf.function(input_signature=[tf.TensorSpec(backbone.inputs[0].shape, tf.float32)])
    def features(photos: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        outputs = backbone(photos, training=False)
        regions = tf.cast(outputs["region_features"], tf.float16)  # (B, h, w, d)
        scenes = tf.cast(outputs["scene_feature"], tf.float16)  # (B, d_g)
        finite = tf.reduce_all(tf.math.is_finite(regions), axis=(1, 2, 3)) & tf.reduce_all(
            tf.math.is_finite(scenes), axis=1
        )
        return regions, scenes, finite

    return features


def _serialize(image: str, regions: np.ndarray, scene: np.ndarray) -> bytes:
    def feature(value: bytes) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    little_endian = np.dtype("<f2")
    fields = {
        "image": feature(image.encode()),
        "region_features": feature(regions.astype(little_endian, copy=False).tobytes()),
        "scene_feature": feature(scene.astype(little_endian, copy=False).tobytes()),
    }
    example = tf.train.Example(features=tf.train.Features(feature=fields))
    return example.SerializeToString()


def _flush_to_disk(path: pathlib.Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


@contextlib.contextmanager
def _one_process_at_a_time(store: pathlib.Path) -> Iterator[None]:
    """Keeps others out of `store`; the lock goes with the process, however that ends."""
    with open(store / LOCK, "w", encoding="utf-8") as lock:
        if fcntl is not None:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"{store}: waiting for another process to finish it", file=sys.stderr)
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield
