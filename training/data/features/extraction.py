"""Computes backbone features of photos and writes them to a feature store; can be resumed."""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Sequence

import keras
import tqdm

from biam_tf.photos import Orientation
from biam_tf.progress import progress as progress_bar
from training.config.schema import RunConfig
from training.data.dataset import TaggingDataset
from training.data.features import storage
from training.data.features.manifest import Shard, StoreManifest
from training.data.features.onnx_runtime import Runtime
from training.data.features.shard_extraction import (
    SHARD_SIZE,
    ShardExtractor,
    describe_job,
)
from training.data.features.store import FeatureStore
from training.data.features.unfinished_store import (
    begin_or_open,
    check_same_photos,
    images_of_shard,
    images_to_do,
)
from training.data.features.updating import ExtractPart, bring_up_to_date
from training.data.folder.reader import check_photos
from training.data.input import photo_reader
from training.data.input.broken_photos import (
    BROKEN_PHOTOS,
    BrokenLimit,
    BrokenPhoto,
    check_share,
    report,
)


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
    orientation: Orientation = "follow",
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
        orientation: whether photos are turned upright as EXIF data say.

    Raises:
        UserError: too many photos are unreadable (the message lists them), features are not
            finite in float16, the disk has too little space, or the folder holds a store of
            another backbone or of other photos.
    """
    path = storage.normal_path(store)
    job = describe_job(backbone, backbone_name, images, shard_size, orientation)
    check_same_photos(path, job)
    extract = PartExtraction(
        backbone,
        os.fspath(photos_directory),
        max_broken_share=max_broken_share,
        batch_size=batch_size,
        progress=progress,
    )
    whole = bring_up_to_date(path, job, photos_directory, images, extract)
    return whole if len(whole.parts) > 1 else FeatureStore.open(path)


@dataclasses.dataclass(frozen=True)
class PartExtraction:
    """Extracts parts of a store in this process; an `ExtractPart`.

    Attributes:
        backbone: as for `extract_features`.
        photos_directory: the folder of the photos.
        max_broken_share: largest share of all photos that may be unreadable.
        batch_size: photos per batch; None: as many as fit into memory.
        progress: creates the progress bar; None shows none.
        check: called with the photos to extract before the backbone runs; None: not checked.
        runtime: what computes the features, as `backbone.runtime`.
    """

    backbone: keras.Model
    photos_directory: str
    max_broken_share: float = 0.0
    batch_size: int | None = None
    progress: Callable[..., tqdm.tqdm] | None = None
    check: Callable[[Sequence[str]], None] | None = None
    runtime: Runtime = "tensorflow"

    def __call__(
        self,
        folder: str,
        job: StoreManifest,
        images: Sequence[str],
        total: int,
        broken: tuple[BrokenPhoto, ...] = (),
    ) -> None:
        """Extracts a part, or resumes its extraction."""
        if self.check is not None:
            self.check(images_to_do(folder, images))
        unfinished = begin_or_open(folder, job, images)
        if unfinished is None:
            return
        extractor = ShardExtractor(
            self.backbone, unfinished, self.photos_directory, self.batch_size, self.runtime
        )
        limit = BrokenLimit(self.max_broken_share, total, broken)
        _write_shards(extractor, images, limit, self.progress)


def _write_shards(
    extractor: ShardExtractor,
    images: Sequence[str],
    limit: BrokenLimit,
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
                _check_broken(extractor, shards, not_yet, limit)
    store.finish(shards)


def _check_broken(
    extractor: ShardExtractor,
    shards: dict[int, Shard],
    not_yet: Sequence[str],
    limit: BrokenLimit,
) -> None:
    """Raises if too many photos are broken; the message includes unprocessed photos."""
    job, directory = extractor.store.job, extractor.photos_directory
    broken = [photo for number in sorted(shards) for photo in shards[number].broken]
    if limit.is_exceeded(broken) and not_yet:
        broken += photo_reader.find_broken(directory, not_yet, job.backbone.image_size)
    limit.check(broken, directory)


def ensure_features(
    config: RunConfig,
    dataset: TaggingDataset,
    backbone: keras.Model,
    default_location: str | os.PathLike,
    photos_directory: str | os.PathLike | None = None,
    beam_options: Sequence[str] | None = None,
) -> FeatureStore:
    """Returns a store with the features of all photos of `dataset`; extracts missing ones.

    Features whose photos have not changed are not extracted again, see `finding`; an unfinished
    extraction is resumed. If no photo may be broken, the photos to be extracted are checked first.

    Args:
        config: configuration of the run; uses `data.feature_store`, `data.max_broken_share`,
            `data.hash_photos` and `backbone`.
        dataset: the data set; the photos of all splits are extracted, split by split.
        backbone: the model that `config.backbone` describes.
        default_location: the store's folder if `data.feature_store` is not set.
        photos_directory: the folder of the photos; None: the data set's folder.
        beam_options: options of an Apache Beam pipeline that extracts the features; None extracts
            them in this process.

    Raises:
        UserError: more than `data.max_broken_share` of the photos are broken, or the folder holds
            a store of another backbone.
    """
    path = storage.normal_path(config.data.feature_store or default_location)
    images = dataset.images  # split by split, as streaming requires
    directory = os.fspath(photos_directory or dataset.directory)
    share = config.data.max_broken_share
    settings = config.backbone
    job = describe_job(backbone, settings.name, images, SHARD_SIZE, settings.orientation)
    extract: ExtractPart
    if beam_options is not None:
        from training.data.features.beam_extraction import BeamExtraction

        extract = BeamExtraction(config.backbone, directory, share, beam_options)
    else:
        check = None
        if not share and photos_directory is None:
            check = functools.partial(_check_photos, dataset)
        extract = PartExtraction(
            backbone, directory, share, settings.batch_size, progress_bar, check, settings.runtime
        )
    store = bring_up_to_date(path, job, directory, images, extract, config.data.hash_photos)
    check_share(store.broken, len(images), share, f"{directory}, as {store.path} says")
    if store.broken:
        listed_in = storage.join(store.path, BROKEN_PHOTOS)
        print(report(store.broken, len(images), listed_in), flush=True)
    return store


def _check_photos(dataset: TaggingDataset, images: Sequence[str]) -> None:
    with progress_bar(len(dataset.images), "Checking photos", "photo") as bar:

        def advance(done: int, total: int) -> None:
            bar.update(1)

        check_photos(dataset, images, progress=advance)
