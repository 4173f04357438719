"""Pairs of identical or nearly identical photos, within a split and across splits."""

import collections
import dataclasses
from collections.abc import Sequence

import numpy as np

from training.data.dataset import TaggingDataset
from training.description.perceptual_hash import near_pairs, similarity
from training.description.photo_scan import Photo
from training.tables.table import Table

# Of Corel5k's 53 pairs whose hashes differ in at most 10 bits, a person sees one scene in all 16
# pairs above this, and in only 4 of the others.
MIN_SIMILARITY = 0.87


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two photos that look the same.

    Attributes:
        images: their names.
        splits: the split of each.
        distance: number of bits in which their hashes differ.
        similarity: correlation of their coarse pictures, up to 1.
        same_file: whether the files have the same bytes.
        shared: labels that both have.
        differing: labels that only one of them has.
    """

    images: tuple[str, str]
    splits: tuple[str, str]
    distance: int
    similarity: float
    same_file: bool
    shared: tuple[str, ...]
    differing: tuple[str, ...]

    @property
    def crosses(self) -> bool:
        """Whether they are in different splits."""
        return self.splits[0] != self.splits[1]

    @property
    def where(self) -> str:
        """The splits, such as "train and test"."""
        return " and ".join(self.splits) if self.crosses else f"within {self.splits[0]}"


def find_pairs(
    dataset: TaggingDataset, images: Sequence[str], photos: Sequence[Photo], radius: int
) -> list[Pair]:
    """Finds the pairs of a data set: first those across splits, and of these the nearest first.

    Args:
        dataset: the photos' splits and labels.
        images: N names of photos.
        photos: what was found in each; those that cannot be read are in no pair.
        radius: largest number of bits in which hashes may differ; pairs whose coarse pictures
            correlate by less than `MIN_SIMILARITY` are left out.
    """
    labeled = {
        image: (split, labels)
        for split, own in dataset.splits.items()
        for image, labels in zip(own.images, own.labels, strict=True)
    }
    readable = [row for row, photo in enumerate(photos) if photo.problem is None]
    if not readable:
        return []
    hashes = np.array([photos[row].hash for row in readable], np.uint64)
    found, apart = near_pairs(hashes, radius)
    coarse = np.frombuffer(b"".join(photos[row].coarse for row in readable), np.uint8)
    coarse = coarse.reshape(len(readable), -1)
    similar = similarity(coarse[found[:, 0]], coarse[found[:, 1]])
    kept = similar >= MIN_SIMILARITY
    pairs = []
    for (one, other), distance, same in zip(found[kept], apart[kept], similar[kept], strict=True):
        rows = readable[one], readable[other]
        (split, labels), (other_split, other_labels) = (labeled[images[row]] for row in rows)
        present, others = labels > 0, other_labels > 0
        pairs.append(
            Pair(
                images=(images[rows[0]], images[rows[1]]),
                splits=(split, other_split),
                distance=int(distance),
                similarity=float(same),
                same_file=photos[rows[0]].sha256 == photos[rows[1]].sha256,
                shared=tuple(dataset.names[c] for c in np.flatnonzero(present & others)),
                differing=tuple(dataset.names[c] for c in np.flatnonzero(present != others)),
            )
        )
    return sorted(pairs, key=lambda p: (not p.crosses, not p.same_file, p.distance, p.images))


def count_by_splits(pairs: Sequence[Pair]) -> dict[str, collections.Counter]:
    """Returns how many pairs there are, are one file, and differ in labels, by their splits."""
    counts: dict[str, collections.Counter] = {}
    for pair in pairs:
        own = counts.setdefault(pair.where, collections.Counter())
        own["pairs"] += 1
        own["same file"] += pair.same_file
        own["other labels"] += bool(pair.differing)
    return counts


def photos_shared_with(pairs: Sequence[Pair], split: str, other: str) -> int:
    """Returns how many photos of `split` have a near-duplicate in `other`."""
    found = set()
    for pair in pairs:
        for one in (0, 1):
            if pair.splits[one] == split and pair.splits[1 - one] == other:
                found.add(pair.images[one])
    return len(found)


def pair_table(pairs: Sequence[Pair]) -> Table:
    """Returns the pairs with all that is known of each."""
    header = ["image", "split", "other_image", "other_split", "distance", "likeness", "same_file"]
    rows = [
        [
            pair.images[0],
            pair.splits[0],
            pair.images[1],
            pair.splits[1],
            pair.distance,
            f"{pair.similarity:.3f}",
            "yes" if pair.same_file else "no",
            ";".join(pair.shared),
            ";".join(pair.differing),
        ]
        for pair in pairs
    ]
    return Table("", [*header, "shared_labels", "differing_labels"], rows)
