"""The data set returned by all readers: class names, groups, and photos with labels."""

import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Collection, Iterable
from typing import Literal

import numpy as np

from biam_tf.embeddings.names import normalize
from biam_tf.errors import UserError, did_you_mean
from biam_tf.sparse_labels import SparseLabels

SPLITS = ("train", "val", "test")
SEEN, UNSEEN, IGNORED = "seen", "unseen", "ignored"
# Names of the splits in public data sets.
OFFICIAL_SPLITS = {"train": "train", "val": "validation", "test": "test"}


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """The photos of one split and their labels.

    Attributes:
        images: (N,) paths relative to the data set's directory, in annotation order.
        labels: (N, C) int8; +1 present, -1 absent, 0 unknown. A matrix becomes `SparseLabels`.
    """

    images: tuple[str, ...]
    labels: SparseLabels

    def __post_init__(self):
        if self.labels.dtype != np.int8 or self.labels.ndim != 2:
            raise ValueError(
                f"labels must be an int8 matrix, got {self.labels.dtype} {self.labels.shape}"
            )
        if len(self.images) != len(self.labels):
            raise ValueError(f"{len(self.images)} images, but {len(self.labels)} rows of labels")
        if not isinstance(self.labels, SparseLabels):
            object.__setattr__(self, "labels", SparseLabels.of_dense(self.labels))

    def __len__(self) -> int:
        return len(self.images)

    def part(self, rows: np.ndarray) -> "Split":
        """Returns some of the photos, by positions or a mask."""
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        return Split(tuple(self.images[row] for row in rows.tolist()), self.labels.rows(rows))


@dataclasses.dataclass(frozen=True)
class About:
    """Information about a data set besides its photos and labels.

    Attributes:
        remarks: messages for the user: counts, applied rules, differences from the documentation.
        missing: photos that the data set lists but that do not exist, as listed.
        partial: describes what is missing if the data set is not complete; None if it is complete.
        headline: the metric that papers on the data set report.
        ks: the values of K for which F1@K is reported.
        classes_without_positives: what such a class counts in mAP: nothing ("left_out"), or "zero"
            where published figures of the data set are computed so.
        unseen_in_training: whether training and validation photos may show unseen classes, as
            photos that somebody collected do. False only where they were chosen or made so that
            none does; photos to be tagged then differ from them.
    """

    remarks: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    partial: str | None = None
    headline: Literal["mAP", "weighted_mAP"] = "mAP"
    ks: tuple[int, ...] = (3, 5)
    classes_without_positives: Literal["left_out", "zero"] = "left_out"
    unseen_in_training: bool = True


@dataclasses.dataclass(frozen=True, eq=False)
class TaggingDataset:
    """Photos, classes and labels of a data set; the photos themselves are not loaded.

    Attributes:
        directory: the folder that image paths are relative to.
        names: (C,) names of the classes, without ignored ones.
        groups: (C,) "seen" or "unseen", aligned with `names`.
        splits: the splits by name, "train", "val" or "test"; some may be missing.
        about: further information from the reader.
        groups_as_read: (C,) the original groups if `counting_as_seen` has changed them, else None.
    """

    directory: pathlib.Path
    names: tuple[str, ...]
    groups: tuple[str, ...]
    splits: dict[str, Split]
    about: About = About()
    groups_as_read: tuple[str, ...] | None = None

    def __post_init__(self):
        object.__setattr__(self, "names", tuple(map(normalize, self.names)))
        if len(self.names) != len(self.groups):
            raise ValueError(f"{len(self.names)} names, but {len(self.groups)} groups")
        for name, split in self.splits.items():
            if split.labels.shape[1] != len(self.names):
                raise ValueError(
                    f"split {name!r} has labels for {split.labels.shape[1]} classes, "
                    f"but the data set has {len(self.names)}"
                )

    @functools.cached_property
    def seen(self) -> np.ndarray:
        """Positions of the seen classes in `names`, ascending."""
        return self._positions(SEEN)

    @functools.cached_property
    def unseen(self) -> np.ndarray:
        """Positions of the unseen classes in `names`, ascending."""
        return self._positions(UNSEEN)

    def _positions(self, group: str) -> np.ndarray:
        return np.flatnonzero(np.asarray(self.groups, dtype=object) == group)

    def counting_as_seen(self, names: Collection[str]) -> "TaggingDataset":
        """Returns the data set with the given classes in the group "seen".

        With all names, this is the standard multi-label task.
        """
        names = set(names)
        moved = [column for column in self.unseen if self.names[column] in names]
        if not moved:
            return self
        pairs = zip(self.names, self.groups, strict=True)
        groups = tuple(SEEN if name in names else group for name, group in pairs)
        remark = f"{len(moved)} unseen classes count as seen"
        if "train" in self.splits:
            shown = self.splits["train"].labels.count(1, axis=0)[moved] > 0
            if not shown.all():
                remark += f"; {(~shown).sum()} of them are in no training photo"
        about = dataclasses.replace(self.about, remarks=(*self.about.remarks, remark))
        read = self.groups_as_read or self.groups
        return dataclasses.replace(self, groups=groups, about=about, groups_as_read=read)

    def split(self, name: str) -> Split:
        """Returns the split called `name`.

        Raises:
            UserError: the data set has no such split; the message lists its splits.
        """
        if name not in self.splits:
            hint = "" if name in SPLITS else did_you_mean(name, SPLITS)
            raise UserError(
                f"{self.directory}: no photo of split {name!r}{hint}; "
                f"this data set has: {', '.join(self.splits) or 'no photos at all'}"
            )
        return self.splits[name]

    @functools.cached_property
    def images(self) -> tuple[str, ...]:
        """The photos of all splits, each once, split by split."""
        return tuple(
            dict.fromkeys(image for split in self.splits.values() for image in split.images)
        )

    def photo_path(self, image: str) -> pathlib.Path:
        """Returns the path of the photo `image` of a split."""
        return self.directory / image

    @functools.cached_property
    def fingerprint(self) -> str:
        """Fingerprint of the classes, original groups, photo names and labels, 16 hex digits.

        It does not depend on the directory, so a data set may be moved, nor on the photos' bytes.
        """
        digest, groups = hashlib.sha256(), self.groups_as_read or self.groups
        add_texts(digest, [str(len(self.names)), *self.names, *groups])
        for name, split in sorted(self.splits.items()):
            add_texts(digest, [name, str(len(split)), *split.images])
            split.labels.update(digest)
        return digest.hexdigest()[:16]


def add_texts(digest: "hashlib._Hash", texts: Iterable[str]) -> None:
    """Updates a `hashlib` object with texts, each preceded by its length.

    The lengths distinguish ("ab", "c") from ("a", "bc").
    """
    for text in texts:
        encoded = text.encode()
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
