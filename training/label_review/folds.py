"""Out-of-fold scores of the training photos: each by a training that has not seen the photo.

A model agrees with labels that it was trained on, wrong ones too. So the training photos are
divided into folds; for each fold a short training (`training.pipeline.short_training`) learns from
the other photos and scores those of the fold. A review that is stopped goes on with the fold it was
at.
"""

import dataclasses
import hashlib
import json
import pathlib
import shutil
from collections.abc import Iterator, Sequence

import numpy as np

from biam_tf.arrays import open_npz
from biam_tf.errors import UserError
from biam_tf.files import replacing, write_text, writing_to
from biam_tf.runs import TrainedRun
from biam_tf.vocabulary import Vocabulary
from training.config import RunConfig
from training.data.dataset import TaggingDataset
from training.data.input.sampling import make_sampler
from training.loop.devices import make_strategy
from training.loop.workers import Workers
from training.pipeline.examples import Examples, trainable_photos
from training.pipeline.run_folder import RunFolder, flat_settings
from training.pipeline.short_training import ShortTraining, epochs_of, train_shortly
from training.scoring.evaluation import score_split

FEWEST_FOLDS, FOLDS, MOST_FOLDS = 2, 3, 10
# Scores that are kept; of more, a random part of the photos is reviewed.
MOST_SCORES = 20_000_000
_MADE_OF = "made_of.txt"


@dataclasses.dataclass(frozen=True, eq=False)
class FoldScores:
    """The scores of some training photos by a model that has not seen them.

    Attributes:
        rows: (n,) positions of the photos in the split `train`.
        scores: (n, S) float32, of the seen classes in the data set's order.
    """

    rows: np.ndarray
    scores: np.ndarray

    def save(self, path: pathlib.Path) -> None:
        """Writes them to an .npz file; raises as `biam_tf.files.replacing` does."""
        with replacing(path) as partial, partial.open("wb") as file:
            np.savez(file, rows=self.rows, scores=self.scores)

    @classmethod
    def load(cls, path: pathlib.Path) -> "FoldScores":
        """Reads what `save` has written."""
        with open_npz(path) as arrays:
            return cls(arrays["rows"], arrays["scores"])


@dataclasses.dataclass(frozen=True, eq=False)
class PhotoFold:
    """A fold of the training photos.

    Attributes:
        number: from 1 on.
        rows: (n,) positions in the split `train` of the photos that are scored.
        dataset: the other photos as split `train`, those that are scored as split `val`.
        epochs: of the training.
        share: of the steps of the run's own training.
    """

    number: int
    rows: np.ndarray
    dataset: TaggingDataset
    epochs: int
    share: float


def plan_photo_folds(config: RunConfig, dataset: TaggingDataset, count: int) -> list[PhotoFold]:
    """Returns the folds of a data set, each with as many photos, drawn with the run's seed.

    Args:
        config: settings of the run.
        dataset: without photos that cannot be read.
        count: of folds.

    Raises:
        UserError: there are too few photos.
    """
    split, settings = dataset.split("train"), config.training
    rng = np.random.default_rng([settings.seed, count])
    fold_of = rng.permutation(np.arange(len(split)) % count)
    reviewed = np.ones(len(split), bool)
    most = max(count, MOST_SCORES // len(dataset.seen))
    if len(split) > most:
        reviewed[rng.permutation(len(split))[most:]] = False
    whole = _epoch_size(config, dataset)
    folds = []
    for fold in range(count):
        scored = np.flatnonzero((fold_of == fold) & reviewed)
        splits = {"train": split.part(fold_of != fold), "val": split.part(scored)}
        if not len(scored):
            raise UserError(f"--folds {count}: there are only {len(split)} training photos")
        own = dataclasses.replace(dataset, splits=splits)
        photos = _epoch_size(config, own)
        if photos < settings.batch_size:
            raise UserError(
                f"{dataset.directory}: only {photos} training photos are left in fold {fold + 1}, "
                f"fewer than training.batch_size: {settings.batch_size}; a review needs more photos"
            )
        epochs = epochs_of(settings, whole, photos)
        share = epochs * photos / (settings.epochs * whole)
        folds.append(PhotoFold(fold + 1, scored, own, epochs, share))
    return folds


def _epoch_size(config: RunConfig, dataset: TaggingDataset) -> int:
    """The photos in an epoch of training."""
    labels = trainable_photos(dataset, config.data.max_labels, prints=False).labels
    own = labels.columns(dataset.seen)
    return make_sampler(config.data, own, config.training.seed, config.training.epochs).epoch_size


def scores_of_folds(
    config: RunConfig,
    run: pathlib.Path,
    folder: pathlib.Path,
    folds: Sequence[PhotoFold],
    vocabulary: Vocabulary,
) -> Iterator[FoldScores]:
    """Yields the scores of each fold; trains those that are not in `folder` yet.

    Scores in `folder` that were made from other labels, settings or folds are removed first.

    Args:
        config: settings of the run.
        run: folder of the run, beside which the stored features are.
        folder: where scores are kept.
        folds: of `plan_photo_folds`.
        vocabulary: the classes.
    """
    _keep_if_made_of(folder, _identity(config, folds))
    workers = Workers(make_strategy(config))
    for fold in folds:
        path = folder / f"fold_{fold.number}.npz"
        if not path.exists():
            print(
                f"fold {fold.number} of {len(folds)}: {fold.epochs} epochs of training without "
                f"{len(fold.rows)} photos, which are scored then",
                flush=True,
            )
            own = RunFolder(folder / f"fold_{fold.number}")
            work = ShortTraining(config, run, own, fold.dataset, vocabulary, fold.epochs)
            train_shortly(work, workers, _Scoring(fold, path))
        yield FoldScores.load(path)


@dataclasses.dataclass(frozen=True, eq=False)
class _Scoring:
    """Writes the scores of a fold's photos to a file."""

    fold: PhotoFold
    path: pathlib.Path

    def __call__(self, run: TrainedRun, examples: Examples) -> None:
        images = self.fold.dataset.split("val").images
        scores = score_seen(run, examples, images, f"scoring fold {self.fold.number}")
        FoldScores(self.fold.rows, scores).save(self.path)


def score_seen(
    run: TrainedRun, examples: Examples, images: Sequence[str], label: str
) -> np.ndarray:
    """Returns the scores (n, S), float32, of photos for the seen classes of their data set."""
    names = examples.dataset.names
    classes = run.vocabulary.subset([names[c] for c in examples.dataset.seen])
    scores = score_split(run, examples.source(tuple(images)), classes, label)
    return np.asarray(scores[:], np.float32)


def _identity(config: RunConfig, folds: Sequence[PhotoFold]) -> str:
    """A fingerprint of all that the scores depend on."""
    labels = [fold.dataset.fingerprint for fold in folds]
    settings = json.dumps([labels, flat_settings(config)], sort_keys=True, default=str)
    return hashlib.sha256(settings.encode()).hexdigest()[:16]


def _keep_if_made_of(folder: pathlib.Path, identity: str) -> None:
    """Empties the folder of scores that were made from anything else."""
    made_of = folder / _MADE_OF
    if made_of.exists() and made_of.read_text(encoding="utf-8").strip() == identity:
        return
    with writing_to(folder):
        if made_of.exists():
            print("labels, settings or folds are others than before: all folds anew", flush=True)
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
    write_text(made_of, f"{identity}\n")
