"""Finds the stored features of photos by the photos' contents.

A photo has features in a store if the store has a photo of the same name, size and modification
time, or one of the same contents (SHA-256), under any name. Only photos whose size occurs in the
store are read to compare contents. A photo that is not there, as where photos are on another
machine, cannot be compared: the features of its name are taken.

Parts written by version 0.1 have names only. There, a photo counts as unchanged if its file was
neither written nor replaced after the part was complete, and if this version reads the same pixels:
version 0.1 ignored orientation and transparency.
"""

import contextlib
import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from biam_tf.photos import Orientation
from training.data.features import storage
from training.data.features.manifest import EARLY_PREPROCESSING
from training.data.features.photo_files import PhotoFiles, PhotoState
from training.data.features.store import FeatureStore
from training.data.features.store_part import StorePart
from training.data.input.broken_photos import BrokenPhoto

# Photos whose contents were compared: {name: [size, time, SHA-256]}. Saves comparing them again.
COMPARED = "compared_photos.json"
_NO_ROW = -1


@dataclasses.dataclass(frozen=True)
class Found:
    """What a store has of some photos.

    Attributes:
        rows: record numbers of the photos with features.
        broken: the photos that could not be read and have not changed since.
        missing: the photos to extract, in order: new, changed, or replaced broken ones.
        not_here: number of photos without a file, whose features are taken by their names.
        sha256: SHA-256 of the photos with features, where the store has it.
    """

    rows: dict[str, int]
    broken: tuple[BrokenPhoto, ...]
    missing: tuple[str, ...]
    not_here: int
    sha256: dict[str, str]


def find_photos(
    store: FeatureStore,
    files: PhotoFiles,
    images: Sequence[str],
    hash_all: bool = False,
    orientation: Orientation = "follow",
) -> Found:
    """Returns what a store has of `images`.

    Args:
        store: the store.
        files: the photos.
        images: relative paths, each once.
        hash_all: whether to compare the contents of all photos that are there, also of those with
            the same size and modification time.
        orientation: whether photos are to be turned upright as EXIF data say.
    """
    search = _Search(store, files, images, orientation)
    for part, first_row in zip(*search.parts_latest_first, strict=True):
        search.by_name(part, first_row, hash_all)
    search.by_contents(hash_all)
    return search.found()


class _Search:
    """The photos that are looked for, and what was found of them."""

    def __init__(
        self,
        store: FeatureStore,
        files: PhotoFiles,
        images: Sequence[str],
        orientation: Orientation,
    ):
        self._store, self._files, self._images = store, files, images
        self._orientation = orientation
        self._states = files.states(images)
        self._left = dict.fromkeys(range(len(images)))  # positions, in order
        self._rows: dict[int, int] = {}
        self._broken: dict[int, BrokenPhoto] = {}
        self._sha256: dict[int, str] = {}
        self._not_here = 0

    @property
    def parts_latest_first(self) -> tuple[list[StorePart], list[int]]:
        """The parts of the store, and the number of the first record of each."""
        parts = self._store.parts
        first_rows = np.cumsum([0, *(part.count for part in parts[:-1])]).tolist()
        return list(reversed(parts)), first_rows[::-1]

    def by_name(self, part: StorePart, first_row: int, hash_all: bool) -> None:
        """Finds photos of the same name, size and time in one part."""
        place_of = {image: place for place, image in enumerate(part.photos)}
        places = {i: place_of[self._images[i]] for i in self._left if self._images[i] in place_of}
        if not places:
            return
        broken = {photo.image: photo for photo in part.broken}
        rows = _rows_of(part.photos, broken, first_row)
        records = part.records.rows() if part.records is not None else None
        if records is None:
            same = self._unchanged_since(part, places)
            if part.manifest.preprocessing == EARLY_PREPROCESSING:
                same = self._read_as_before(same)
        else:
            same = self._with_same_state(places, records, hash_all)
        for i in same:
            image, place = self._images[i], places[i]
            self._not_here += not self._states[i].exists and image not in broken
            if image in broken:
                self._broken[i] = broken[image]
            else:
                self._rows[i] = rows[place]
                self._sha256[i] = records[place][1] if records is not None else ""
            del self._left[i]

    def _unchanged_since(self, part: StorePart, places: Iterable[int]) -> list[int]:
        names = [self._images[i] for i in places]
        changed = set(self._files.changed_since(names, part.written_at))
        return [i for i in places if self._images[i] not in changed]

    def _read_as_before(self, places: Sequence[int]) -> list[int]:
        names = [self._images[i] for i in places]
        changed = set(self._files.read_otherwise(names, self._orientation))
        return [i for i in places if self._images[i] not in changed]

    def _with_same_state(
        self,
        places: dict[int, int],
        records: Sequence[tuple[PhotoState, str]],
        hash_all: bool,
    ) -> list[int]:
        same = [
            i
            for i, place in places.items()
            if self._states[i] == records[place][0] or not self._states[i].exists
        ]
        if hash_all:
            here = [i for i in same if self._states[i].exists and records[places[i]][1]]
            contents = self._files.sha256([self._images[i] for i in here])
            other = {
                i
                for i, sha256 in zip(here, contents, strict=True)
                if sha256 != records[places[i]][1]
            }
            same = [i for i in same if i not in other]
        return same

    def by_contents(self, hash_all: bool) -> None:
        """Finds photos of the same contents, under any name, in all parts."""
        sizes = {
            int(size)
            for part in self._store.parts
            if part.records is not None
            for size in np.unique(part.records.states[:, 0])
        }
        candidates = [
            i for i in self._left if self._states[i].exists and self._states[i].bytes in sizes
        ]
        if not candidates or not self._files.is_local:
            return
        contents = self._contents(candidates, {} if hash_all else self._compared())
        rows = self._rows_by_sha256(set(contents.values()))
        taken, found = set(self._rows.values()), []
        for i, sha256 in contents.items():
            # Every photo has a record of its own, which streaming relies on.
            row = next((row for row in rows.get(sha256, ()) if row not in taken), _NO_ROW)
            if row != _NO_ROW:
                taken.add(row)
                found.append(i)
                self._rows[i], self._sha256[i] = row, sha256
                del self._left[i]
        self._note_compared({self._images[i]: (*self._states[i], contents[i]) for i in found})

    def _contents(
        self, positions: Sequence[int], known: Mapping[str, tuple[int, int, str]]
    ) -> dict[int, str]:
        for i in positions:
            size, time, sha256 = known.get(self._images[i], (0, 0, ""))
            if self._states[i] == (size, time):
                self._files.remember({self._images[i]: sha256})
        found = self._files.sha256([self._images[i] for i in positions])
        return {i: sha256 for i, sha256 in zip(positions, found, strict=True) if sha256}

    def _rows_by_sha256(self, wanted: set[str]) -> dict[str, list[int]]:
        rows: dict[str, list[int]] = {}
        parts, first_rows = self.parts_latest_first
        for part, first_row in zip(parts, first_rows, strict=True):
            if part.records is None:
                continue
            broken = {photo.image for photo in part.broken}
            numbers = _rows_of(part.photos, broken, first_row)
            for row, (_, sha256) in zip(numbers, part.records.rows(), strict=True):
                if sha256 in wanted and row != _NO_ROW:
                    rows.setdefault(sha256, []).append(row)
        return rows

    def _compared(self) -> dict[str, tuple[int, int, str]]:
        file = storage.join(self._store.path, COMPARED)
        if not storage.is_file(file):
            return {}
        try:
            read = json.loads(storage.read_text(file))
            return {
                name: (int(size), int(time), str(sha)) for name, (size, time, sha) in read.items()
            }
        except (ValueError, TypeError, AttributeError, RecursionError):
            return {}  # the photos are compared again

    def _note_compared(self, photos: dict[str, tuple[int, int, str]]) -> None:
        known = self._compared()
        if photos.items() <= known.items():
            return
        text = json.dumps(known | photos, ensure_ascii=False, indent=0) + "\n"
        with contextlib.suppress(Exception):  # a store that may only be read is as good
            storage.write_text(storage.join(self._store.path, COMPARED), text)

    def found(self) -> Found:
        """Returns everything that was found."""
        images = self._images
        return Found(
            rows={images[i]: row for i, row in sorted(self._rows.items())},
            broken=tuple(photo for _, photo in sorted(self._broken.items())),
            missing=tuple(images[i] for i in self._left),
            not_here=self._not_here,
            sha256={images[i]: sha256 for i, sha256 in self._sha256.items()},
        )


def _rows_of(photos: Sequence[str], broken: Iterable[str], first_row: int) -> list[int]:
    """Returns the record number of each photo of a part; `_NO_ROW` of broken ones."""
    left_out, rows, row = set(broken), [], first_row
    for image in photos:
        rows.append(_NO_ROW if image in left_out else row)
        row += image not in left_out
    return rows
