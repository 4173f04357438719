"""How often each training photo comes in an epoch; docs/features.md has the formulas.

A sampler is asked for one epoch after the other and answers from the seed and the epoch's number
alone. All epochs are of the same length, which a schedule of the learning rate relies on.
"""

from typing import Protocol

import numpy as np

from training.config.schema import DataConfig

# Keeps the draws apart from others that start from the same seed and epoch.
STREAM = 1


class Sampler(Protocol):
    """Says how often each photo comes.

    Attributes:
        epoch_size: photos an epoch, repeated ones counted each time.
    """

    epoch_size: int

    def counts(self, seed: int, epoch: int) -> np.ndarray:
        """Returns how often each of the N photos comes in an epoch, int64 (N,)."""


class Natural:
    """Every photo once."""

    def __init__(self, photos: int):
        self.epoch_size = photos

    def counts(self, seed: int, epoch: int) -> np.ndarray:
        """Returns ones."""
        return np.ones(self.epoch_size, np.int64)


class Balanced:
    """As many photos as there are, each as often as its rarest class is rare.

    A photo's weight is 1 / n, n being the number of photos of the rarest class it shows. It comes
    e = N * weight / (sum of weights) times an epoch on average, and in each epoch either as often
    as e rounded down or as e rounded up: no class owes its place to luck.

    Args:
        labels: (N, S) int8; +1 where a photo shows a class.
    """

    def __init__(self, labels: np.ndarray):
        rarest = _photos_of_rarest_class(labels)
        weights = 1 / rarest
        self.epoch_size = len(labels)
        self.expected = self.epoch_size * weights / weights.sum()

    def counts(self, seed: int, epoch: int) -> np.ndarray:
        """Returns each photo's expected number, rounded down or up, summing to N."""
        rng = np.random.default_rng([seed, epoch, STREAM])
        order = rng.permutation(self.epoch_size)
        # Marks at distance 1 along a line on which each photo is as long as it is expected often.
        ends = np.cumsum(self.expected[order])
        ends[-1] = self.epoch_size
        marks = np.floor(ends + rng.random()).astype(np.int64)
        counts = np.empty(self.epoch_size, np.int64)
        counts[order] = np.diff(marks, prepend=0)
        return counts


class Capped:
    """Photos once or not at all, so that no class has more than a set number in an epoch.

    A walk over all photos takes each one whose classes all have room left. It goes from the photos
    whose rarest class is rarest to those whose rarest class is most frequent, in random order
    among equals: rare classes are served before frequent ones are full. The shortest of all
    epochs says how many photos an epoch has; from the others the surplus is left out at random.

    Args:
        labels: (N, S) int8; +1 where a photo shows a class.
        most: photos a class, at most.
        seed: of the run.
        epochs: of the run.
    """

    def __init__(self, labels: np.ndarray, most: int, seed: int, epochs: int):
        positive = labels > 0
        self._rarest = _photos_of_rarest_class(labels)
        self._most = most
        # Classes with no more photos than that never run out of room.
        limited = positive[:, positive.sum(axis=0) > most]
        self._classes = limited.shape[1]
        self._limited = [np.flatnonzero(row).tolist() for row in limited]
        self.epoch_size = min(len(self._walk(seed, epoch)) for epoch in range(epochs))

    def counts(self, seed: int, epoch: int) -> np.ndarray:
        """Returns ones for the photos that are taken, and zeros."""
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


def make_sampler(config: DataConfig, labels: np.ndarray, seed: int, epochs: int) -> Sampler:
    """Returns the sampler that `data.sampling` asks for.

    Args:
        config: the `data` section.
        labels: (N, S) int8 of the training photos for the seen classes; every row has a positive.
        seed: of the run.
        epochs: of the run.
    """
    if config.sampling == "balanced":
        return Balanced(labels)
    if config.sampling == "capped":
        assert config.max_images_per_class is not None  # checked with the configuration
        return Capped(labels, config.max_images_per_class, seed, epochs)
    return Natural(len(labels))


def _photos_of_rarest_class(labels: np.ndarray) -> np.ndarray:
    """Returns, for each photo, how many photos its rarest class has, float64 (N,)."""
    positive = labels > 0
    return np.where(positive, positive.sum(axis=0, dtype=np.float64), np.inf).min(axis=1)
