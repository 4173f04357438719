"""Photos that cannot be read: checking their share, reporting them and leaving them out."""

import csv
import dataclasses
import io
from collections.abc import Collection, Sequence

import numpy as np

from biam_tf.csv_files import csv_text
from biam_tf.errors import UserError
from training.data.dataset import TaggingDataset

BROKEN_PHOTOS = "broken_photos.csv"
MOST_NAMED = 100
SETTING = "data.max_broken_share"


@dataclasses.dataclass(frozen=True)
class BrokenPhoto:
    """A photo that cannot be read: its path in the data set, and the reason."""

    image: str
    reason: str


def check_share(
    broken: Sequence[BrokenPhoto], total: int, max_share: float, directory: object
) -> None:
    """Checks that the share of broken photos is within the limit.

    Args:
        broken: the broken photos.
        total: number of photos, including broken ones.
        max_share: `data.max_broken_share`, the limit, from 0 to 1.
        directory: the folder of the photos, for the message.

    Raises:
        UserError: more photos are broken; the message lists them with the reasons.
    """
    if len(broken) <= max_share * total:
        return
    allowed = f" ({SETTING}: {max_share:g} allows {int(max_share * total)})" if max_share else ""
    raise UserError(
        f"{directory}: {len(broken)} of {total} photos cannot be read{allowed}; replace them, "
        f"remove their rows from the data set, or raise {SETTING} to continue without them:\n"
        + "\n".join(_lines(broken))
    )


@dataclasses.dataclass(frozen=True)
class BrokenLimit:
    """How many photos of a data set may be broken while a part of them is extracted.

    Attributes:
        max_share: `data.max_broken_share`.
        total: number of photos of the data set, including broken ones.
        known: broken photos outside of the part.
    """

    max_share: float
    total: int
    known: tuple[BrokenPhoto, ...] = ()

    def is_exceeded(self, broken: Sequence[BrokenPhoto]) -> bool:
        """Returns whether `broken` photos of the part are too many."""
        return len(self.known) + len(broken) > self.max_share * self.total

    def check(self, broken: Sequence[BrokenPhoto], directory: object) -> None:
        """Raises a `UserError` that lists all broken photos if they are too many."""
        check_share([*self.known, *broken], self.total, self.max_share, directory)


def report(broken: Sequence[BrokenPhoto], total: int, listed_in: str) -> str:
    """Returns the message about photos that are left out."""
    count = "1 photo is" if len(broken) == 1 else f"{len(broken)} photos are"
    share = 100 * len(broken) / total
    return f"{count} broken and left out, {share:.2g} % of {total}; listed in {listed_in}:\n" + (
        "\n".join(_lines(broken, 10))
    )


def _lines(broken: Sequence[BrokenPhoto], most: int = MOST_NAMED) -> list[str]:
    lines = [f"  {photo.image}: {photo.reason}" for photo in broken[:most]]
    return lines + [f"  and {len(broken) - most} more"] * (len(broken) > most)


def to_csv(broken: Sequence[BrokenPhoto]) -> str:
    """Returns the photos as CSV text with the columns image and reason."""
    return csv_text(["image", "reason"], ((photo.image, photo.reason) for photo in broken))


def from_csv(text: str) -> tuple[BrokenPhoto, ...]:
    """Parses the text that `to_csv` returned."""
    return tuple(BrokenPhoto(**row) for row in csv.DictReader(io.StringIO(text)))


def without_photos(dataset: TaggingDataset, images: Collection[str]) -> TaggingDataset:
    """Returns the data set without some photos, and without splits that have no photo left."""
    if not images:
        return dataset
    left_out = frozenset(images)
    splits = {}
    for name, split in dataset.splits.items():
        kept = np.array([image not in left_out for image in split.images], bool)
        if kept.any():
            splits[name] = split if kept.all() else split.part(kept)
    return dataclasses.replace(dataset, splits=splits)
