"""Samplers: how often each training photo occurs in an epoch; docs/features.md has the formulas.

The result of a sampler depends only on the seed and the epoch. All epochs have the same length, as
learning rate schedules require.
"""

from typing import Protocol

import numpy as np

from biam_tf.sparse_labels import Labels, as_labels
from training.config.schema import DataConfig

# Separates these draws from others with the same seed and epoch.
STREAM = 1


class Sampler(Protocol):
    """Determines how often each photo occurs in an epoch.

    Attributes:
        epoch_size: photos per epoch, including repetitions.
    """

    epoch_size: int

    def counts(self, seed: int, epoch: int) -> np.ndarray:
        """Returns how often each of the N photos occurs in an epoch, int64 (N,)."""


class Natural:
    """Every photo once."""

    def __init__(self, photos: int):
        self.epoch_size = photos

    def counts(self, seed: int, epoch: int) -> np.ndarray:
        """Returns ones."""
        return np.ones(self.epoch_size, np.int64)


class Balanced:
    """N of N photos with repetition, photos of rare classes more often.

    The weight of a photo is 1 / n, where n is the number of photos of the rarest class it shows. It
    occurs e = N * weight / (sum of weights) times per epoch on average, and in each epoch either e
    rounded down or e rounded up times.

    Args:
        labels: (N, S) int8; +1 if a photo shows a class.
    """

    def __init__(self, labels: Labels):
        rarest = _photos_of_rarest_class(labels)
        weights = 1 / rarest
        self.epoch_size = len(labels)
        self.expected = self.epoch_size * weights / weights.sum()

    def counts(self, seed: int, epoch: int) -> np.ndarray:
        """Returns the expected count of each photo, rounded down or up; they sum to N."""
        rng = np.random.default_rng([seed, epoch, STREAM])
        order = rng.permutation(self.epoch_size)
        # Systematic sampling: marks at distance 1 on a line where a photo has its expected length.
        ends = np.cumsum(self.expected[order])
        ends[-1] = self.epoch_size
        marks = np.floor(ends + rng.random()).astype(np.int64)
        counts = np.empty(self.epoch_size, np.int64)
        counts[order] = np.diff(marks, prepend=0)
        return counts


class Capped:
    """Each photo at most once, and at most a given number of photos per class.

    Photos are taken greedily if none of their classes has reached the limit, in ascending order of
    the frequency of their rarest class and in random order among ties: rare classes come before
    frequent classes reach the limit. The shortest epoch determines the length of all epochs; in
    longer ones the surplus is left out at random.

    Args:
        labels: (N, S) int8; +1 if a photo shows a class.
        most: largest number of photos per class.
        seed: seed of the run.
        epochs: number of epochs of the run.
    """

    def __init__(self, labels: Labels, most: int, seed: int, epochs: int):
        photos, classes = _positives(labels)
        self._rarest = _photos_of_rarest_class(labels)
        self._most = most
        # Classes with no more photos than that never reach the limit.
        is_limited = np.bincount(classes, minlength=labels.shape[1]) > most
        self._classes = int(is_limited.sum())
        kept = is_limited[classes]
        places = (np.cumsum(is_limited) - 1)[classes[kept]]
        counts = np.bincount(photos[kept], minlength=len(labels))
        self._limited = [own.tolist() for own in np.split(places, np.cumsum(counts)[:-1])]
        self.epoch_size = min(len(self._walk(seed, epoch)) for epoch in range(epochs))

    def counts(self, seed: int, epoch: int) -> np.ndarray:
        """Returns 1 for the photos that are taken, else 0."""
        taken = self._walk(seed, epoch)
        rng = np.random.default_rng([seed, epoch, STREAM, 1])
        counts = np.zeros(len(self._rarest), np.int64)
        counts[rng.permutation(taken)[: self.epoch_size]] = 1
        return counts

    def _walk(self, seed: int, epoch: int) -> np.ndarray:
        rng = np.random.default_rng([seed, epoch, STREAM])
        order = np.lexsort((rng.permutation(len(self._rarest)), self._rarest))
        room = [self._most] * self._classes
        taken = []
        for photo in order.tolist():
            classes = self._limited[photo]
            if all(room[c] for c in classes):
                taken.append(photo)
                for c in classes:
                    room[c] -= 1
        return np.asarray(taken)


def make_sampler(config: DataConfig, labels: Labels, seed: int, epochs: int) -> Sampler:
    """Returns the sampler for `data.sampling`.

    Args:
        config: the `data` section.
        labels: (N, S) int8 of the training photos and seen classes; each row has a positive.
        seed: seed of the run.
        epochs: number of epochs of the run.
    """
    if config.sampling == "balanced":
        return Balanced(labels)
    if config.sampling == "capped":
        assert config.max_images_per_class is not None  # checked with the configuration
        return Capped(labels, config.max_images_per_class, seed, epochs)
    return Natural(len(labels))


def _positives(labels: Labels) -> tuple[np.ndarray, np.ndarray]:
    """Returns the photos and classes of all labels +1, photo by photo."""
    photos, classes = (as_labels(labels) > 0).nonzero()
    return photos, classes


def _photos_of_rarest_class(labels: Labels) -> np.ndarray:
    """Returns the number of photos of each photo's rarest class, float64 (N,)."""
    photos, classes = _positives(labels)
    frequency = np.bincount(classes, minlength=labels.shape[1])
    rarest = np.full(len(labels), np.inf)
    np.minimum.at(rarest, photos, frequency[classes])
    return rarest
