"""What the lists of a data set say: photos, labels and classes, without opening a photo."""

import dataclasses

import numpy as np

from training.data.dataset import TaggingDataset

TRAIN = "train"


@dataclasses.dataclass(frozen=True)
class SplitFacts:
    """One split.

    Attributes:
        name: "train", "val" or "test".
        photos: how many.
        labels: how many times a class is present.
        without_label: photos that show none of the classes.
        unknown_share: share of all (photo, class) cells of which nothing is known.
        histogram: photos with 0, 1, 2, … labels.
    """

    name: str
    photos: int
    labels: int
    without_label: int
    unknown_share: float
    histogram: tuple[int, ...]

    def quantile(self, share: float) -> int:
        """Returns the number of labels that at least `share` of the photos do not exceed."""
        reached = np.cumsum(self.histogram)
        return int(np.searchsorted(reached, share * reached[-1]))

    @property
    def mean(self) -> float:
        """Labels a photo."""
        return self.labels / self.photos


@dataclasses.dataclass(frozen=True)
class ClassFacts:
    """One class.

    Attributes:
        name: of the class.
        group: "seen" or "unseen".
        positives: photos that show it, by split.
    """

    name: str
    group: str
    positives: dict[str, int]

    @property
    def total(self) -> int:
        """Photos of all splits that show it."""
        return sum(self.positives.values())


@dataclasses.dataclass(frozen=True)
class LabelFacts:
    """What the lists say.

    Attributes:
        splits: those that the data set has.
        classes: all classes that are not ignored, in their order.
    """

    splits: tuple[SplitFacts, ...]
    classes: tuple[ClassFacts, ...]

    @property
    def leaks(self) -> tuple[ClassFacts, ...]:
        """Unseen classes that training photos are labeled with, the most frequent first."""
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
        present = split.labels > 0
        per_photo = present.sum(axis=1)
        positives[name] = present.sum(axis=0)
        splits.append(
            SplitFacts(
                name=name,
                photos=len(split),
                labels=int(per_photo.sum()),
                without_label=int((per_photo == 0).sum()),
                unknown_share=float((split.labels == 0).mean()),
                histogram=tuple(map(int, np.bincount(per_photo))),
            )
        )
    classes = tuple(
        ClassFacts(name, group, {split: int(counts[row]) for split, counts in positives.items()})
        for row, (name, group) in enumerate(zip(dataset.names, dataset.groups, strict=True))
    )
    return LabelFacts(tuple(splits), classes)
