"""Computes backbone features of photos and writes them to a feature store; can be resumed."""

import contextlib
import os
from collections.abc import Callable, Sequence

import keras
import tqdm

from biam_tf.backbones import weights_fingerprint
from biam_tf.progress import progress as progress_bar
from training.config.schema import RunConfig
from training.data.dataset import TaggingDataset
from training.data.features import storage
from training.data.features.manifest import MANIFEST, Shard
from training.data.features.shard_extraction import (
    SHARD_SIZE,
    ShardExtractor,
    describe_job,
    images_of_shard,
)
from training.data.features.store import FeatureStore
from training.data.features.unfinished_store import begin_or_open, images_to_do
from training.data.folder.reader import check_photos
from training.data.input import photo_reader
from training.data.input.broken_photos import BROKEN_PHOTOS, check_share, report


def extract_features(
    backbone: keras.Model,
    backbone_name: str,
    photos_directory: str | os.PathLike,
    images: Sequence[str],
    store: str | os.PathLike,
    *,
    batch_size: int | None = None,
    shard_size: int = SHARD_SIZE,
    max_broken_share: float = 0.0,
    progress: Callable[..., tqdm.tqdm] | None = None,
) -> FeatureStore:
    """Computes the features of `images` and writes them to the folder `store`.

    An interrupted extraction keeps its finished shards and is resumed by the same call. A complete
    store is opened and returned. If several processes call this for the same local folder, the
    others wait for the first. Features are rounded to float16.

    Args:
        backbone: model from `images` (B, S, S, 3) in 0..255 to a dict of `region_features`
            (B, h, w, d) and `scene_feature` (B, d_g).
        backbone_name: name of the backbone, for the manifest.
        photos_directory: the folder that `images` are relative to.
        images: (N,) unique relative paths, in the order of the records. For `cache: stream` the
            photos of each split must be consecutive.
        store: the store's folder, local or on a file system supported by TensorFlow; created if
            it does not exist.
        batch_size: photos per batch; None: as many as fit into memory, at most 32.
        shard_size: photos per file; an unfinished store keeps the size it was started with.
        max_broken_share: largest share of `images` that may be unreadable; these are skipped.
        progress: creates the progress bar, as `biam_tf.progress.progress`; None shows none.

    Raises:
        UserError: too many photos are unreadable (the message lists them), features are not
            finite in float16, the disk has too little space, or the folder holds a store of
            another backbone or of other photos.
    """
    store = storage.normal_path(store)
    job = describe_job(backbone, backbone_name, images, shard_size)
    storage.make_folder(store)
    with storage.one_process_at_a_time(store):
        unfinished = begin_or_open(store, job, images)
        if unfinished is not None:
            extractor = ShardExtractor(backbone, unfinished, photos_directory, batch_size)
            _write_shards(extractor, images, max_broken_share, progress)
    return FeatureStore.open(store)


def _write_shards(
    extractor: ShardExtractor,
    images: Sequence[str],
    max_broken_share: float,
    progress: Callable[..., tqdm.tqdm] | None,
) -> None:
    store, job = extractor.store, extractor.store.job
    shards = store.all_finished(extractor.photos_directory)
    to_do = [number for number in range(job.shard_total) if number not in shards]
    photos = [images_of_shard(job, images, number) for number in to_do]
    left = sum(map(len, photos))
    storage.check_space(store.path, left * job.photo_nbytes)
    bar = progress and progress(
        total=job.count, label="Features", unit="photo", initial=job.count - left
    )
    with bar or contextlib.nullcontext() as bar:
        update = bar.update if bar else lambda count: None
        batches = extractor.batches(photos)
        for place, number in enumerate(to_do):
            shards[number] = extractor.extract(number, photos[place], next(batches), update)
            if shards[number].broken:
                not_yet = [image for shard in photos[place + 1 :] for image in shard]
                _check_broken(extractor, shards, not_yet, max_broken_share)
    store.finish(shards)


def _check_broken(
    extractor: ShardExtractor,
    shards: dict[int, Shard],
    not_yet: Sequence[str],
    max_broken_share: float,
) -> None:
    """Raises if too many photos are broken; the message includes unprocessed photos."""
    job, directory = extractor.store.job, extractor.photos_directory
    broken = [photo for number in sorted(shards) for photo in shards[number].broken]
    if len(broken) > max_broken_share * job.count and not_yet:
        broken += photo_reader.find_broken(directory, not_yet, job.backbone.image_size)
    check_share(broken, job.count, max_broken_share, directory)


def ensure_features(
    config: RunConfig,
    dataset: TaggingDataset,
    backbone: keras.Model,
    default_location: str | os.PathLike,
    photos_directory: str | os.PathLike | None = None,
    beam_options: Sequence[str] | None = None,
) -> FeatureStore:
    """Returns a store with the features of all photos of `dataset`; extracts missing ones.

    A complete store is opened, an unfinished one is resumed. If no photo may be broken, the photos
    still to be processed are checked first.

    Args:
        config: configuration of the run; uses `data.feature_store`, `data.max_broken_share` and
            `backbone`.
        dataset: the data set; the photos of all splits are extracted, split by split.
        backbone: the model that `config.backbone` describes.
        default_location: the store's folder if `data.feature_store` is not set.
        photos_directory: the folder of the photos; None: the data set's folder.
        beam_options: options of an Apache Beam pipeline that extracts the features; None extracts
            them in this process.

    Raises:
        UserError: more than `data.max_broken_share` of the photos are broken, or the folder holds
            a store of another backbone or without some of the photos.
    """
    path = storage.normal_path(config.data.feature_store or default_location)
    images = dataset.images  # split by split, as streaming requires
    if storage.is_file(storage.join(path, MANIFEST)):
        store = FeatureStore.open(
            path,
            backbone_name=config.backbone.name,
            image_size=backbone.inputs[0].shape[1],
            weights_fingerprint=weights_fingerprint(backbone),
        )
    elif beam_options is not None:
        from training.data.features.beam_extraction import extract_features_with_beam

        store = extract_features_with_beam(
            backbone,
            config.backbone,
            photos_directory or dataset.directory,
            images,
            path,
            max_broken_share=config.data.max_broken_share,
            options=beam_options,
        )
    else:
        if not config.data.max_broken_share and photos_directory is None:
            to_do = images_to_do(path, images)
            with progress_bar(len(images), "Checking photos", "photo") as bar:

                def advance(done: int, total: int) -> None:
                    bar.update(1)

                check_photos(dataset, to_do, progress=advance)
        store = extract_features(
            backbone,
            config.backbone.name,
            photos_directory or dataset.directory,
            images,
            path,
            batch_size=config.backbone.batch_size,
            max_broken_share=config.data.max_broken_share,
            progress=progress_bar,
        )
    _check_it_has(store, images, config.data.max_broken_share)
    return store


def _check_it_has(store: FeatureStore, images: Sequence[str], max_broken_share: float) -> None:
    """Checks that a store has all `images` except broken ones, and prints the broken ones."""
    wanted = set(images)
    broken = [photo for photo in store.broken if photo.image in wanted]
    left_out = {photo.image for photo in broken}
    store.rows([image for image in images if image not in left_out])
    where = f"{store.path} (to be deleted once they are replaced)"
    check_share(broken, len(images), max_broken_share, where)
    if broken:
        listed_in = storage.join(store.path, BROKEN_PHOTOS)
        print(report(broken, len(images), listed_in), flush=True)
