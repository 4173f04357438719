"""Feature extraction as an Apache Beam pipeline: the same store, computed by many machines.

    the store's list of photos -> (shard number, its photos) -> reshuffle -> one shard's two files

An element is a shard, and what is known of a shard is in the store itself, so that it does not
matter which machine has it, how often it is tried, or whether the pipeline is the first or the
fifth that works on the store. Gathering the shards into the manifest is left to the process that
started the pipeline. Needs the extra [beam].
"""

import contextlib
import dataclasses
import json
import os
import re
from collections.abc import Iterator, Sequence

import keras

from biam_tf.backbones import build_backbone, weights_fingerprint
from biam_tf.errors import UserError
from training.config.schema import BackboneConfig
from training.data.features import storage
from training.data.features.manifest import IMAGES, StoreManifest
from training.data.features.shard_extraction import (
    SHARD_SIZE,
    ShardExtractor,
    describe_job,
    images_of_shard,
)
from training.data.features.store import FeatureStore
from training.data.features.unfinished_store import UnfinishedStore, begin_or_open
from training.data.input.broken_photos import check_share

try:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
    from apache_beam.utils.shared import Shared
except ImportError as error:
    raise UserError(
        "Apache Beam is not installed; install it with pip install 'biam-tf[beam]'"
    ) from error

# What DirectRunner runs batch pipelines on, without looking on the internet for another engine.
LOCAL_RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
# The pieces of a pipeline's progress that are counted while it runs.
METRICS = "feature_extraction"


@dataclasses.dataclass(frozen=True)
class ShardWork:
    """What a machine needs to know to extract shards; small, and sent to each of them.

    Attributes:
        store: the store's folder, which all machines reach under this name.
        job: the store's manifest without shards.
        photos_directory: the photos' folder, reached by all as well.
        backbone: how to build it.
    """

    store: str
    job: StoreManifest
    photos_directory: str
    backbone: BackboneConfig

    def make_extractor(self) -> ShardExtractor:
        """Builds the backbone on this machine, and checks that it is the job's.

        Raises:
            UserError: this machine builds it with other weights.
        """
        settings = self.backbone
        model = build_backbone(settings.name, settings.image_size, settings.weights)
        found = weights_fingerprint(model)
        if found != self.job.backbone.weights:
            raise UserError(
                f"backbone.weights: {settings.weights} are other weights on this machine ({found}) "
                f"than where the pipeline was started ({self.job.backbone.weights}); name a file "
                "that all machines reach"
            )
        store = UnfinishedStore(self.store, self.job)
        return ShardExtractor(model, store, self.photos_directory, settings.batch_size)


class _ShardsOfList(beam.DoFn):
    """From the store's folder to `(shard number, photos)` of each shard that is left to do."""

    def __init__(self, job: StoreManifest, to_do: Sequence[int]):
        self._job = job
        self._to_do = tuple(to_do)

    def process(self, store: str) -> Iterator[tuple[int, list[str]]]:
        # The list is read here: in the pipeline's description it would exceed what some runners
        # accept, with millions of photos.
        images = json.loads(storage.read_text(storage.join(store, IMAGES)))
        for number in self._to_do:
            yield number, list(images_of_shard(self._job, images, number))


class _ExtractShard(beam.DoFn):
    """From `(shard number, photos)` to the number, once the shard is in the store."""

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
        if done is None:  # else an earlier try of this bundle got so far
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
    """Does what `extract_features` does, with the same bytes as the result, as a Beam pipeline.

    Args:
        backbone: the model that `settings` describe; it says what the features will be, and
            each machine builds its own.
        settings: of the backbone.
        photos_directory: the folder that `images` are relative to, as all machines reach it.
        images: (N,) relative paths, each once; the order of the records.
        store: the folder, as all machines reach it.
        shard_size: photos a file, unless the store was begun with another number.
        max_broken_share: up to this share of `images` may be unreadable and is left out.
        options: of the pipeline, as on Beam's command lines (`--runner=FlinkRunner`); without a
            runner it runs in this process.

    Raises:
        UserError: what `extract_features` raises; broken photos are reported after all shards
            were tried, and those without any stay. Also options that are none.
    """
    store = storage.normal_path(store)
    job = describe_job(backbone, settings.name, images, shard_size)
    storage.make_folder(store)
    with storage.one_process_at_a_time(store):
        unfinished = begin_or_open(store, job, images)
        if unfinished is not None:
            directory = os.fspath(photos_directory)
            to_do = _shards_to_do(unfinished, directory)
            if to_do:
                work = ShardWork(store, unfinished.job, directory, settings)
                _run(work, to_do, options)
            shards = unfinished.all_finished(directory)
            missing = unfinished.job.shard_total - len(shards)
            if missing:
                raise UserError(
                    f"{store}: the pipeline ended, but {missing} of {unfinished.job.shard_total} "
                    "shards are not here; name a folder that all its machines reach under this "
                    "name, or repeat the command"
                )
            broken = [photo for shard in shards.values() for photo in shard.broken]
            check_share(broken, job.count, max_broken_share, directory)
            unfinished.finish(shards)
    return FeatureStore.open(store)


def _shards_to_do(store: UnfinishedStore, photos_directory: str) -> list[int]:
    finished = store.all_finished(photos_directory)
    left = [number for number in range(store.job.shard_total) if number not in finished]
    photos = sum(len(store.job.shard_photos(number)) for number in left)
    storage.check_space(store.path, photos * store.job.photo_nbytes)
    return left


def _run(work: ShardWork, to_do: Sequence[int], options: Sequence[str]) -> None:
    with _user_errors():
        settings = PipelineOptions(list(options))
        standard = settings.view_as(StandardOptions)
        standard.runner = standard.runner or LOCAL_RUNNER
        try:
            pipeline = beam.Pipeline(options=settings)
        except (ValueError, ImportError) as error:  # an unknown runner, or one not installed
            raise UserError(f"--runner={standard.runner}: {error}") from error
        _ = (
            pipeline
            | "Store" >> beam.Create([work.store])
            | "Shards" >> beam.ParDo(_ShardsOfList(work.job, to_do))
            | "Spread" >> beam.Reshuffle()
            | "Extract" >> beam.ParDo(_ExtractShard(work))
        )
        print(f"{len(to_do)} of {work.job.shard_total} shards with {standard.runner}", flush=True)
        pipeline.run().wait_until_finish()


@contextlib.contextmanager
def _user_errors() -> Iterator[None]:
    """Turns errors that are the user's into a `UserError`, also those of another machine.

    Runners hand on what a worker raised as text within their own errors.
    """
    try:
        yield
    except UserError:
        raise
    except SystemExit as stop:  # Beam's parser has printed what is wrong with an option
        raise UserError("the options after -- are not a Beam pipeline's, see above") from stop
    except Exception as error:
        found = re.search(r"biam_tf\.errors\.UserError: (.+?)(?: \[while running|\n|$)", str(error))
        if not found:
            raise
        raise UserError(found[1]) from error
