"""Held-out folds: short trainings without some of the seen classes, whose scores calibrate.

A class that was not trained has other scores than one that was, and which ones can only be seen
where labels of untrained classes may be looked at: at seen classes that a training leaves out. Each
fold leaves out a part of the seen classes, trains anew, and scores the validation photos;
`biam_tf.metrics.held_out` makes a rule of them.

If no training photo can show an unseen class (`About.unseen_in_training`), photos that show a class
left out are left out as well, since the model would see it otherwise.

A fold is trained for about half of the run's steps (`training.pipeline.short_training`), in its own
folder below the run's. A run that is stopped goes on with the fold it was at.
"""

import dataclasses
import pathlib
import time

import numpy as np

from biam_tf.errors import UserError
from biam_tf.metrics.held_out import HeldOutFold, fold_file
from biam_tf.models.systems import SYSTEMS
from biam_tf.runs import TrainedRun
from biam_tf.sparse_labels import SparseLabels
from biam_tf.vocabulary import Vocabulary
from training.config import RunConfig
from training.data.dataset import SEEN, UNSEEN, TaggingDataset
from training.data.input.sampling import make_sampler
from training.loop.workers import Workers
from training.pipeline.examples import Examples, trainable_photos
from training.pipeline.run_folder import RunFolder
from training.pipeline.short_training import ShortTraining, epochs_of, train_shortly
from training.scoring.evaluation import score_split

# A fold leaves out at most this share of the seen classes: a model of fewer is another model.
LARGEST_SHARE = 1 / 3
# Classes left out of fewer are an anecdote.
FEWEST_CLASSES = 6
# Scores that are stored for a fold; of more, a random part of the validation photos is scored.
MOST_SCORES = 20_000_000


@dataclasses.dataclass(frozen=True)
class Fold:
    """What is trained in a fold.

    Attributes:
        number: from 1 on.
        held_out: positions of the classes left out, in the data set's classes.
        dataset: of the run, with these classes counted as unseen, and without training photos
            that the fold must not see.
        epochs: of its training.
        steps_per_epoch: of its training.
    """

    number: int
    held_out: np.ndarray
    dataset: TaggingDataset
    epochs: int
    steps_per_epoch: int


def plan_folds(config: RunConfig, dataset: TaggingDataset) -> list[Fold]:
    """Returns the folds of a run; prints why there are none, where the settings ask for some.

    Args:
        config: settings of the run.
        dataset: without photos that cannot be read.
    """
    system, count = SYSTEMS[config.head.system], config.thresholds.held_out_folds
    if not count or not system.open_vocabulary or not system.trained or config.data.all_seen:
        return []
    try:
        return _plan(config, dataset, count)
    except UserError as error:
        print(f"no held-out folds, so that unseen classes get no probability: {error}", flush=True)
        return []


def _plan(config: RunConfig, dataset: TaggingDataset, count: int) -> list[Fold]:
    if "val" not in dataset.splits:
        raise UserError("there is no photo of split val to score")
    if len(dataset.seen) < FEWEST_CLASSES:
        raise UserError(f"only {len(dataset.seen)} seen classes, at least {FEWEST_CLASSES} needed")
    whole = trainable_photos(dataset, config.data.max_labels, prints=False)
    seen_labels, seed = whole.labels.columns(dataset.seen), config.training.seed
    whole_epoch = make_sampler(config.data, seen_labels, seed, config.training.epochs).epoch_size
    fold_of = _fold_of_classes(seen_labels, count, seed)
    folds = []
    for fold in range(count):
        held_out = dataset.seen[fold_of == fold]
        own = _without(dataset, held_out)
        kept = trainable_photos(own, config.data.max_labels, prints=False)
        labels = kept.labels.columns(own.seen)
        photos = make_sampler(config.data, labels, seed, config.training.epochs).epoch_size
        if photos < config.training.batch_size:
            raise UserError(
                f"training.batch_size: {config.training.batch_size}, but only {photos} training "
                f"photos are left in fold {fold + 1}"
            )
        epochs = epochs_of(config.training, whole_epoch, photos)
        steps = photos // config.training.batch_size
        folds.append(Fold(fold + 1, held_out, own, epochs, steps))
    return folds


def _fold_of_classes(labels: SparseLabels, count: int, seed: int) -> np.ndarray:
    """Returns the fold of each seen class; each has as many frequent and rare ones.

    Args:
        labels: (N, S) of the training photos.
        count: of folds; numbers from there on are in no fold.
        seed: of the draw.
    """
    parts = max(count, round(1 / LARGEST_SHARE))
    rng = np.random.default_rng(seed)
    shown = labels.count(1, axis=0)
    order = np.lexsort((rng.permutation(len(shown)), -shown))
    fold_of = np.empty(len(shown), int)
    for first in range(0, len(shown), parts):
        alike = order[first : first + parts]
        fold_of[alike] = rng.permutation(parts)[: len(alike)]
    return fold_of


def _without(dataset: TaggingDataset, held_out: np.ndarray) -> TaggingDataset:
    groups = np.array(dataset.groups, dtype=object)
    groups[held_out] = UNSEEN
    splits = dict(dataset.splits)
    if not dataset.about.unseen_in_training:
        split = splits["train"]
        splits["train"] = split.part(split.labels.columns(held_out).count(1, axis=1) == 0)
    return dataclasses.replace(dataset, groups=tuple(groups), splits=splits)


def train_folds(
    config: RunConfig,
    folder: RunFolder,
    workers: Workers,
    dataset: TaggingDataset,
    vocabulary: Vocabulary,
) -> None:
    """Trains the folds of a run and stores their scores in its folder; complete ones are kept.

    All processes of a run call this together.

    Args:
        config: settings of the run.
        folder: of the run, which is trained.
        workers: its processes.
        dataset: without photos that cannot be read.
        vocabulary: its classes.
    """
    folds = plan_folds(config, dataset)
    started, trained = time.perf_counter(), 0
    for fold in folds:
        path = fold_file(folder.held_out, fold.number)
        if workers.from_chief(float(path.exists())):
            continue
        if workers.is_chief:
            print(
                f"held-out fold {fold.number} of {len(folds)}: training without "
                f"{len(fold.held_out)} of {len(dataset.seen)} seen classes, {fold.epochs} epochs",
                flush=True,
            )
        _train_fold(config, folder, workers, fold, vocabulary, path)
        trained += 1
    if trained and workers.is_chief:
        print(
            f"held-out folds: {time.perf_counter() - started:.0f} s "
            "(thresholds.held_out_folds: 0 leaves them out, with the probabilities of unseen "
            "classes)",
            flush=True,
        )


def _train_fold(
    config: RunConfig,
    folder: RunFolder,
    workers: Workers,
    fold: Fold,
    vocabulary: Vocabulary,
    path: pathlib.Path,
) -> None:
    """Trains a fold, and writes the scores of validation photos by it."""
    classes = Vocabulary(vocabulary.names, vocabulary.embeddings, fold.dataset.groups)
    own = RunFolder(folder.held_out / f"fold_{fold.number}")

    def score(run: TrainedRun, examples: Examples) -> None:
        _scored(run, examples, fold, config.training.seed).save(path)

    work = ShortTraining(config, folder.path, own, fold.dataset, classes, fold.epochs)
    train_shortly(work, workers, score)


def _scored(run: TrainedRun, examples: Examples, fold: Fold, seed: int) -> HeldOutFold:
    dataset = fold.dataset
    split, groups = dataset.split("val"), np.array(dataset.groups, dtype=object)
    own = np.union1d(fold.held_out, np.flatnonzero(groups == SEEN))
    rows = np.arange(len(split))
    most = max(1, MOST_SCORES // len(own))
    if len(rows) > most:
        rows = np.sort(np.random.default_rng(seed).choice(len(split), most, replace=False))
    source = examples.source(tuple(split.images[row] for row in rows))
    classes = run.vocabulary.subset([dataset.names[c] for c in own])
    scores = score_split(run, source, classes, f"scoring val by fold {fold.number}")
    return HeldOutFold(rows, own, np.isin(own, fold.held_out), np.asarray(scores[:], np.float32))
