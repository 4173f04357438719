"""Counts of a data set's photos, labels and classes, from its lists alone."""

import dataclasses

import numpy as np

from training.data.dataset import TaggingDataset

TRAIN = "train"


@dataclasses.dataclass(frozen=True)
class SplitFacts:
    """One split.

    Attributes:
        name: "train", "val" or "test".
        photos: number of photos.
        labels: number of (photo, class) cells labeled +1.
        without_label: number of photos that show none of the classes.
        unknown_share: share of the (photo, class) cells labeled 0.
        histogram: number of photos with 0, 1, 2, … labels.
    """

    name: str
    photos: int
    labels: int
    without_label: int
    unknown_share: float
    histogram: tuple[int, ...]

    def quantile(self, share: float) -> int:
        """Returns the smallest number of labels that `share` of the photos do not exceed."""
        reached = np.cumsum(self.histogram)
        return int(np.searchsorted(reached, share * reached[-1]))

    @property
    def mean(self) -> float:
        """Mean number of labels per photo."""
        return self.labels / self.photos


@dataclasses.dataclass(frozen=True)
class ClassFacts:
    """One class.

    Attributes:
        name: its name.
        group: "seen" or "unseen".
        positives: number of photos that show it, by split.
    """

    name: str
    group: str
    positives: dict[str, int]

    @property
    def total(self) -> int:
        """Number of photos of all splits that show it."""
        return sum(self.positives.values())


@dataclasses.dataclass(frozen=True)
class LabelFacts:
    """A data set.

    Attributes:
        splits: those that the data set has.
        classes: all classes that are not ignored, in the data set's order.
    """

    splits: tuple[SplitFacts, ...]
    classes: tuple[ClassFacts, ...]

    @property
    def by_frequency(self) -> list[ClassFacts]:
        """The classes, most frequent first."""
        return sorted(self.classes, key=lambda c: -c.total)

    @property
    def leaks(self) -> tuple[ClassFacts, ...]:
        """Unseen classes that training photos are labeled with, most frequent first."""
        leaking = [c for c in self.classes if c.group == "unseen" and c.positives.get(TRAIN, 0)]
        return tuple(sorted(leaking, key=lambda c: -c.positives[TRAIN]))

    def without_positives(self, split: str, group: str) -> tuple[str, ...]:
        """Returns the classes of a group that no photo of a split shows."""
        return tuple(
            c.name for c in self.classes if c.group == group and not c.positives.get(split, 0)
        )


def describe_labels(dataset: TaggingDataset) -> LabelFacts:
    """Counts a data set's labels."""
    splits = []
    positives = {}
    for name, split in dataset.splits.items():
        per_photo = split.labels.count(1, axis=1)
        positives[name] = split.labels.count(1, axis=0)
        splits.append(
            SplitFacts(
                name=name,
                photos=len(split),
                labels=int(per_photo.sum()),
                without_label=int((per_photo == 0).sum()),
                unknown_share=float(split.labels.count(0, axis=0).sum() / split.labels.size),
                histogram=tuple(map(int, np.bincount(per_photo))),
            )
        )
    classes = tuple(
        ClassFacts(name, group, {split: int(counts[row]) for split, counts in positives.items()})
        for row, (name, group) in enumerate(zip(dataset.names, dataset.groups, strict=True))
    )
    return LabelFacts(tuple(splits), classes)
