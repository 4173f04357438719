"""Feature extraction as an Apache Beam pipeline, for many machines.

    list of photos in the store -> (shard number, its photos) -> reshuffle -> one shard's two files

Each element is a shard, and the state of a shard is kept in the store. A shard can therefore be
processed by any machine, retried any number of times, and finished by a later pipeline. The process
that started the pipeline collects the shards into the manifest. Needs the extra [beam].
"""

import contextlib
import dataclasses
import json
import os
import re
from collections.abc import Iterator, Sequence

import keras

from biam_tf.backbones import build_backbone, weights_fingerprint
from biam_tf.beam_pipelines import Shared, beam, new_pipeline
from biam_tf.errors import UserError
from training.config.schema import BackboneConfig
from training.data.features import storage
from training.data.features.manifest import IMAGES, StoreManifest
from training.data.features.shard_extraction import (
    SHARD_SIZE,
    ShardExtractor,
    describe_job,
)
from training.data.features.store import FeatureStore
from training.data.features.unfinished_store import (
    UnfinishedStore,
    begin_or_open,
    check_same_photos,
    images_of_shard,
)
from training.data.features.updating import bring_up_to_date
from training.data.input.broken_photos import BrokenLimit, BrokenPhoto

# Namespace of the pipeline's counters.
METRICS = "feature_extraction"


@dataclasses.dataclass(frozen=True)
class ShardWork:
    """The settings that every worker machine needs to extract shards.

    Attributes:
        store: the store's folder; must be accessible to all machines under this path.
        job: the store's manifest without shards.
        photos_directory: the folder of the photos; likewise.
        backbone: the settings to build the backbone from.
    """

    store: str
    job: StoreManifest
    photos_directory: str
    backbone: BackboneConfig

    def make_extractor(self) -> ShardExtractor:
        """Builds the backbone on this machine and checks that its weights match the job.

        Raises:
            UserError: the weights on this machine are different.
        """
        settings = self.backbone
        model = build_backbone(
            settings.name, settings.image_size, settings.weights, regions=settings.regions
        )
        found = weights_fingerprint(model)
        if found != self.job.backbone.weights:
            raise UserError(
                f"backbone.weights: {settings.weights}: the weights on this machine ({found}) "
                f"differ from those where the pipeline was started ({self.job.backbone.weights}); "
                "give a file that all machines can access"
            )
        store = UnfinishedStore(self.store, self.job)
        return ShardExtractor(
            model, store, self.photos_directory, settings.batch_size, settings.runtime
        )


class _ShardsOfList(beam.DoFn):
    """Maps the store's folder to `(shard number, photos)` of each unfinished shard."""

    def __init__(self, job: StoreManifest, to_do: Sequence[int]):
        self._job = job
        self._to_do = tuple(to_do)

    def process(self, store: str) -> Iterator[tuple[int, list[str]]]:
        # Read here because a list of millions of photos in the pipeline's definition would
        # exceed the size limit of some runners.
        images = json.loads(storage.read_text(storage.join(store, IMAGES)))
        for number in self._to_do:
            yield number, list(images_of_shard(self._job, images, number))


class _ExtractShard(beam.DoFn):
    """Maps `(shard number, photos)` to the number, after writing the shard to the store."""

    def __init__(self, work: ShardWork):
        self._work = work
        # All threads of a process share one backbone.
        self._shared = Shared()
        self._photos = beam.metrics.Metrics.counter(METRICS, "photos")
        self._broken = beam.metrics.Metrics.counter(METRICS, "broken_photos")

    def setup(self) -> None:
        self._extractor = self._shared.acquire(self._work.make_extractor)

    def process(self, shard: tuple[int, list[str]]) -> Iterator[int]:
        number, images = shard
        extractor = self._extractor
        done = extractor.store.finished(number, extractor.photos_directory)
        if done is None:  # else an earlier attempt has finished it
            done = extractor.extract(number, images, next(extractor.batches([images])))
        self._photos.inc(done.count)
        self._broken.inc(len(done.broken))
        yield number


def extract_features_with_beam(
    backbone: keras.Model,
    settings: BackboneConfig,
    photos_directory: str | os.PathLike,
    images: Sequence[str],
    store: str | os.PathLike,
    *,
    shard_size: int = SHARD_SIZE,
    max_broken_share: float = 0.0,
    options: Sequence[str] = (),
) -> FeatureStore:
    """Runs `extract_features` as a Beam pipeline; the files are byte for byte the same.

    Args:
        backbone: the model that `settings` describe. It determines the shapes and the weights
            in the manifest; each machine builds its own.
        settings: settings of the backbone.
        photos_directory: the folder that `images` are relative to; must be accessible to all
            machines.
        images: (N,) unique relative paths, in the order of the records.
        store: the store's folder; must be accessible to all machines.
        shard_size: photos per file; an unfinished store keeps the size it was started with.
        max_broken_share: largest share of `images` that may be unreadable; these are skipped.
        options: pipeline options as on Beam's command line (`--runner=FlinkRunner`). Without a
            runner the pipeline runs in this process.

    Raises:
        UserError: as `extract_features`, but broken photos are reported after all shards have
            been processed; shards without broken photos are kept. Also for invalid options.
    """
    path, directory = storage.normal_path(store), os.fspath(photos_directory)
    job = describe_job(backbone, settings.name, images, shard_size, settings.orientation)
    check_same_photos(path, job)
    extract = BeamExtraction(settings, directory, max_broken_share, options)
    whole = bring_up_to_date(path, job, directory, images, extract)
    return whole if len(whole.parts) > 1 else FeatureStore.open(path)


@dataclasses.dataclass(frozen=True)
class BeamExtraction:
    """Extracts parts of a store with a pipeline; an `ExtractPart`.

    Attributes:
        settings: settings of the backbone.
        photos_directory: the folder of the photos.
        max_broken_share: largest share of all photos that may be unreadable.
        options: pipeline options.
    """

    settings: BackboneConfig
    photos_directory: str
    max_broken_share: float
    options: Sequence[str]

    def __call__(
        self,
        folder: str,
        job: StoreManifest,
        images: Sequence[str],
        total: int,
        broken: tuple[BrokenPhoto, ...] = (),
    ) -> None:
        """Extracts a part, or resumes its extraction."""
        unfinished = begin_or_open(folder, job, images)
        if unfinished is None:
            return
        to_do = _shards_to_do(unfinished, self.photos_directory)
        if to_do:
            work = ShardWork(folder, unfinished.job, self.photos_directory, self.settings)
            _run(work, to_do, self.options)
        shards = unfinished.all_finished(self.photos_directory)
        missing = unfinished.job.shard_total - len(shards)
        if missing:
            raise UserError(
                f"{folder}: the pipeline ended, but {missing} of {unfinished.job.shard_total} "
                "shards are missing; use a folder that all machines can access under this "
                "path, or run the command again"
            )
        found = [photo for shard in shards.values() for photo in shard.broken]
        limit = BrokenLimit(self.max_broken_share, total, broken)
        limit.check(found, self.photos_directory)
        unfinished.finish(shards)


def _shards_to_do(store: UnfinishedStore, photos_directory: str) -> list[int]:
    finished = store.all_finished(photos_directory)
    left = [number for number in range(store.job.shard_total) if number not in finished]
    photos = sum(len(store.job.shard_photos(number)) for number in left)
    storage.check_space(store.path, photos * store.job.photo_nbytes)
    return left


def _run(work: ShardWork, to_do: Sequence[int], options: Sequence[str]) -> None:
    with _user_errors():
        pipeline, runner = new_pipeline(options)
        _ = (
            pipeline
            | "Store" >> beam.Create([work.store])
            | "Shards" >> beam.ParDo(_ShardsOfList(work.job, to_do))
            | "Spread" >> beam.Reshuffle()
            | "Extract" >> beam.ParDo(_ExtractShard(work))
        )
        print(f"{len(to_do)} of {work.job.shard_total} shards with {runner}", flush=True)
        pipeline.run().wait_until_finish()


@contextlib.contextmanager
def _user_errors() -> Iterator[None]:
    """Re-raises user errors of this and other machines as `UserError`.

    Runners report the error of a worker as text in an error of their own.
    """
    try:
        yield
    except UserError:
        raise
    except SystemExit as stop:  # Beam's parser has printed the reason
        raise UserError("the options after -- are not valid Beam options, see above") from stop
    except Exception as error:
        found = re.search(r"biam_tf\.errors\.UserError: (.+?)(?: \[while running|\n|$)", str(error))
        if not found:
            raise
        raise UserError(found[1]) from error
