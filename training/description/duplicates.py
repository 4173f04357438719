"""Pairs of photos that are the same or nearly so, within splits and across them."""

import collections
import dataclasses
from collections.abc import Sequence

import numpy as np

from training.data.dataset import TaggingDataset
from training.description.perceptual_hash import likeness, near_pairs
from training.description.photo_scan import Photo
from training.tables.csv_files import csv_text

# Of Corel5k's 53 pairs whose hashes differ in at most 10 bits, the 16 with more all show one scene
# to a person's eye, and all but 4 of the others do not.
LEAST_LIKENESS = 0.87


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two photos that look alike.

    Attributes:
        images: their names.
        splits: where they stand.
        distance: bits in which their hashes differ.
        likeness: of their coarse pictures, up to 1.
        same_file: whether they are the same bytes.
        shared: labels that both have.
        differing: labels that only one has.
    """

    images: tuple[str, str]
    splits: tuple[str, str]
    distance: int
    likeness: float
    same_file: bool
    shared: tuple[str, ...]
    differing: tuple[str, ...]

    @property
    def crosses(self) -> bool:
        """Whether they stand in different splits."""
        return self.splits[0] != self.splits[1]

    @property
    def kind(self) -> str:
        """The splits, such as "train and test"."""
        return " and ".join(self.splits) if self.crosses else f"within {self.splits[0]}"


def find_pairs(
    dataset: TaggingDataset, images: Sequence[str], photos: Sequence[Photo], radius: int
) -> list[Pair]:
    """Finds the pairs of a data set, those across splits first, the nearest first among them.

    Args:
        dataset: the photos' splits and labels.
        images: N names of photos.
        photos: what was found in each; those that cannot be read belong to no pair.
        radius: most bits in which hashes may differ; pairs with less than `LEAST_LIKENESS` are
            left out.
    """
    places = {
        image: (split, labels)
        for split, own in dataset.splits.items()
        for image, labels in zip(own.images, own.labels, strict=True)
    }
    readable = [row for row, photo in enumerate(photos) if photo.problem is None]
    hashes = np.array([photos[row].hash for row in readable], np.uint64)
    found, apart = near_pairs(hashes, radius)
    coarse = np.frombuffer(b"".join(photos[row].coarse for row in readable), np.uint8)
    coarse = coarse.reshape(len(readable), -1)
    alike = likeness(coarse[found[:, 0]], coarse[found[:, 1]])
    kept = alike >= LEAST_LIKENESS
    pairs = []
    for (one, other), distance, same in zip(found[kept], apart[kept], alike[kept], strict=True):
        rows = readable[one], readable[other]
        (split, labels), (other_split, other_labels) = (places[images[row]] for row in rows)
        present, others = labels > 0, other_labels > 0
        pairs.append(
            Pair(
                images=(images[rows[0]], images[rows[1]]),
                splits=(split, other_split),
                distance=int(distance),
                likeness=float(same),
                same_file=photos[rows[0]].sha256 == photos[rows[1]].sha256,
                shared=tuple(dataset.names[c] for c in np.flatnonzero(present & others)),
                differing=tuple(dataset.names[c] for c in np.flatnonzero(present != others)),
            )
        )
    return sorted(pairs, key=lambda p: (not p.crosses, not p.same_file, p.distance, p.images))


def count_by_kind(pairs: Sequence[Pair]) -> dict[str, collections.Counter]:
    """Returns, by the splits of the pairs, how many there are in all and as the same file."""
    counts: dict[str, collections.Counter] = {}
    for pair in pairs:
        own = counts.setdefault(pair.kind, collections.Counter())
        own["pairs"] += 1
        own["same file"] += pair.same_file
        own["other labels"] += bool(pair.differing)
    return counts


def photos_shared_with(pairs: Sequence[Pair], split: str, other: str) -> int:
    """Returns how many photos of `split` have a near-duplicate in `other`."""
    found = set()
    for pair in pairs:
        for place in (0, 1):
            if pair.splits[place] == split and pair.splits[1 - place] == other:
                found.add(pair.images[place])
    return len(found)


def to_csv(pairs: Sequence[Pair]) -> str:
    """Returns the pairs as the text of a CSV file."""
    header = ["image", "split", "other_image", "other_split", "distance", "likeness", "same_file"]
    rows = (
        [
            pair.images[0],
            pair.splits[0],
            pair.images[1],
            pair.splits[1],
            pair.distance,
            f"{pair.likeness:.3f}",
            "yes" if pair.same_file else "no",
            ";".join(pair.shared),
            ";".join(pair.differing),
        ]
        for pair in pairs
    )
    return csv_text([*header, "shared_labels", "differing_labels"], rows)
