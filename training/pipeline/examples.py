"""The examples that a run trains and scores on: its data set, as photos or stored features."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import keras

from biam_tf.embeddings.sources import encodes_sentences
from biam_tf.errors import UserError
from biam_tf.models.systems import SYSTEMS
from biam_tf.progress import progress, progress_of_total
from biam_tf.sparse_labels import SparseLabels
from training.config import RunConfig
from training.data.dataset import Split, TaggingDataset
from training.data.features import storage
from training.data.features.choosing import choose_store, new_store_name
from training.data.features.extraction import ensure_features
from training.data.features.photo_files import PhotoFiles
from training.data.features.shard_extraction import SHARD_SIZE, describe_job
from training.data.features.store import FeatureStore
from training.data.input.broken_photos import BROKEN_PHOTOS, BrokenPhoto, without_photos
from training.data.input.photo_check import broken_photos
from training.data.input.sampling import Sampler, make_sampler
from training.data.input.sources import UNVARIED, FeatureSource, PhotoSource
from training.data.registry import DATA_SOURCES, load_dataset

Source = FeatureSource | PhotoSource


def open_dataset(config: RunConfig) -> TaggingDataset:
    """Returns the data set of a configuration, and prints what it contains.

    Raises:
        UserError: as `load_dataset` does; or no class is seen, or some are unseen and the system
            of the configuration cannot score them.
    """
    with progress_of_total(*DATA_SOURCES[config.data.name].work) as working:
        dataset = load_dataset(config.data, progress=working)
    counts = ", ".join(f"{len(split)} {name}" for name, split in dataset.splits.items())
    print(
        f"{dataset.directory}: {counts} photos; {len(dataset.seen)} seen and "
        f"{len(dataset.unseen)} unseen classes",
        flush=True,
    )
    for remark in dataset.about.remarks:
        print(f"  {remark}", flush=True)
    if dataset.about.partial:
        print(f"PARTIAL DATA: {dataset.about.partial}", flush=True)
    if not len(dataset.seen) and SYSTEMS[config.head.system].trained:
        raise UserError(
            f"{dataset.directory}: no class is seen, and only seen classes are trained; give "
            "classes the group seen, or set data.all_seen: true"
        )
    if len(dataset.unseen) and not SYSTEMS[config.head.system].open_vocabulary:
        raise UserError(
            f"head.system: {config.head.system} scores only the classes that it is trained on, "
            f"but {len(dataset.unseen)} classes of {dataset.directory} are unseen; set "
            "data.all_seen: true, with which they count as seen, or another head.system"
        )
    return dataset


def missing_places(config: RunConfig) -> list[str]:
    """Returns the folder of the data set and the file of word vectors, where they do not exist."""
    source, settings = DATA_SOURCES[config.data.name], config.data.settings
    folder = config.data.directory and pathlib.Path(config.data.directory)
    if not folder and source.default_directory is not None:
        folder = source.default_directory(settings or source.settings_type())
    missing = []
    if not folder or not folder.is_dir() or not any(folder.iterdir()):
        missing.append(str(folder))
    vectors = config.vocabulary.word_vectors
    if (
        vectors is not None
        and not encodes_sentences(vectors)
        and not pathlib.Path(vectors).is_file()
    ):
        missing.append(vectors)
    return missing


@dataclasses.dataclass(frozen=True)
class TrainingExamples:
    """The examples of training.

    Attributes:
        source: in the order and number that the settings of sampling ask for.
        labels: (N, S) int8 of all training photos for the seen classes, +1, -1 or 0.
    """

    source: Source
    labels: SparseLabels


@dataclasses.dataclass(frozen=True)
class Examples:
    """The photos of a data set that can be read, or their features.

    Attributes:
        config: settings of the run.
        dataset: without the photos that cannot be read.
        broken: the photos that cannot be read.
        image_size: side in pixels of the photos that the backbone takes.
        store: features of the photos; None where the backbone is trained and reads photos.
    """

    config: RunConfig
    dataset: TaggingDataset
    broken: tuple[BrokenPhoto, ...]
    image_size: int
    store: FeatureStore | None

    @property
    def sha256(self) -> Mapping[str, str]:
        """The SHA-256 of the photos' contents in hexadecimal, where they are known."""
        return {} if self.store is None else self.store.sha256

    def source(self, images: Sequence[str], sampler: Sampler | None = None) -> Source:
        """Returns the examples of some photos.

        Args:
            images: photos of `dataset`.
            sampler: which of them come in which epoch of training, augmented as the settings
                say; None: a source for scoring.
        """
        cache = self.config.data.cache
        if self.store is not None:
            service = None if sampler is None else self.config.data.service
            return FeatureSource(self.store, images, cache, sampler=sampler, service=service)
        return PhotoSource(
            self.dataset.directory,
            images,
            self.image_size,
            cache,
            progress=progress,
            sampler=sampler,
            augmentation=UNVARIED if sampler is None else self.config.data.augmentation,
            orientation=self.config.backbone.orientation,
        )

    def for_training(self, epochs: int) -> TrainingExamples:
        """Returns the training photos that show a seen class.

        Args:
            epochs: how many the sampling covers.

        Raises:
            UserError: no photo is left.
        """
        split = trainable_photos(self.dataset, self.config.data.max_labels)
        labels = split.labels.columns(self.dataset.seen)
        sampler = make_sampler(self.config.data, labels, self.config.training.seed, epochs)
        return TrainingExamples(self.source(split.images, sampler), labels)

    def for_scoring(self, names: Sequence[str]) -> dict[str, Source]:
        """Returns the examples of some splits, by their names."""
        return {name: self.source(self.dataset.split(name).images) for name in names}


def open_examples(
    config: RunConfig, run: pathlib.Path, dataset: TaggingDataset, backbone: keras.Model
) -> Examples:
    """Opens the examples of a run; features that are not stored yet are extracted.

    Args:
        config: settings of the run.
        run: its folder; features are stored beside it unless the settings say where.
        dataset: the photos and their labels.
        backbone: computes the features, unless it is trained.

    Raises:
        UserError: more photos are broken than the settings allow, or stored features do not fit.
    """
    size = backbone.input_shape[1]
    if config.backbone.trainable:
        share = config.data.max_broken_share
        broken, store = broken_photos(dataset, size, share, run / BROKEN_PHOTOS), None
    else:
        needed = dataset
        if not SYSTEMS[config.head.system].trained:  # photos of other splits are not looked at
            splits = {name: dataset.split(name) for name in scored_splits(dataset)}
            needed = dataclasses.replace(dataset, splits=splits)
        location = feature_location(config, run, needed, backbone)
        store = ensure_features(config, needed, backbone, location)
        broken = store.broken
    dataset = without_photos(dataset, {photo.image for photo in broken})
    return Examples(config, dataset, tuple(broken), size, store)


def feature_location(
    config: RunConfig, run: pathlib.Path, dataset: TaggingDataset, backbone: keras.Model
) -> str:
    """Returns the folder of a run's feature store: the configured one, or one beside the run.

    Of the stores beside the run that are of the same backbone, this is the one that has the
    features of most of the photos, compared by their contents. If none has any, it is a new folder.
    """
    if config.data.feature_store:
        return storage.normal_path(config.data.feature_store)
    settings = config.backbone
    job = describe_job(backbone, settings.name, dataset.images, SHARD_SIZE, settings.orientation)
    beside = storage.normal_path(run.parent / "features")
    files = PhotoFiles(dataset.directory)
    return choose_store(beside, job, files, dataset.images) or storage.join(
        beside, new_store_name(job, files, dataset.images)
    )


def trainable_photos(dataset: TaggingDataset, max_labels: int | None, prints: bool = True) -> Split:
    """Returns the training photos that show a seen class; the others have nothing to rank.

    Args:
        dataset: has the split `train`.
        max_labels: photos with more seen labels are left out as well; None: no limit.
        prints: whether to print how many are left out. Defaults to `True`.

    Raises:
        UserError: no photo is left, or none is known not to show a seen class, so that there is
            nothing to tell apart.
    """
    split = dataset.split("train")
    seen_labels = split.labels.columns(dataset.seen)
    shown = seen_labels.count(1, axis=1)
    if not shown.any():
        raise UserError(f"{dataset.directory}: no training photo shows a seen class")
    if prints and not shown.all():
        print(f"{(shown == 0).sum()} training photos show no seen class: left out", flush=True)
    is_kept = shown > 0
    if max_labels is not None:
        is_kept &= shown <= max_labels
        crowded = (shown > max_labels).sum()
        if prints:
            print(
                f"{crowded} training photos have more than {max_labels} labels: left out",
                flush=True,
            )
        if not is_kept.any():
            raise UserError(
                f"data.max_labels: {max_labels}, but no training photo has so few seen labels; "
                f"the fewest are {shown[shown > 0].min()}"
            )
    _require_contrast(dataset, seen_labels.rows(is_kept))
    return split if is_kept.all() else split.part(is_kept)


def _require_contrast(dataset: TaggingDataset, labels: SparseLabels) -> None:
    """Raises a UserError unless some label (N, seen classes) says that a class is absent."""
    if (labels < 0).any():
        return
    where = f"{dataset.directory}: every training photo that shows a seen class"
    if labels.shape[1] == 1:
        raise UserError(
            f"{where} shows the same one, {dataset.names[dataset.seen[0]]!r}, the only seen class: "
            "there is nothing to tell it from. Training needs at least two seen classes"
        )
    if (labels == 0).any():
        raise UserError(
            f"{dataset.directory}: no training photo is known not to show a seen class: unlisted "
            "classes are unknown because there is a column absent, which names no seen class "
            "beside a present one. Name absent classes there, or remove the column if unlisted "
            "classes are absent"
        )
    raise UserError(f"{where} shows all of them: there is nothing to tell apart")


def final_split(dataset: TaggingDataset) -> str:
    """Returns the split that a run is evaluated on: test, or else val, or train."""
    return "test" if "test" in dataset.splits else "val" if "val" in dataset.splits else "train"


def scored_splits(dataset: TaggingDataset) -> list[str]:
    """Returns the names of the splits whose examples are scored during or after training."""
    return sorted({final_split(dataset), *({"val"} & dataset.splits.keys())})
