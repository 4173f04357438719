"""The official files of Open Images v4: their paths, class lists and photos.

    class-descriptions.csv                     /m/0104x9kv,Vinegret: all classes, no header
    classes-trainable.txt                      /m/0104x9kv: the 7,186 trainable ones, one per line
    train-annotations-human-imagelabels.csv    ImageID,Source,LabelName,Confidence; 0 or 1
    validation-…, test-…                       the same for the other splits
    train-annotations-machine-imagelabels.csv  the same, a confidence from 0 to 1 (optional)
    train-images-with-labels-with-rotation.csv, validation-images-with-rotation.csv,
    test-images-with-rotation.csv              ImageID,Subset,…: all photos (optional)

Files are in the data set's folder itself, in `annotations` or `2018_04`, or in a folder named
after their split in any of these.
"""

import csv
import dataclasses
import os
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from biam_tf.errors import UserError
from biam_tf.photos import ENDINGS
from training.data.dataset import OFFICIAL_SPLITS
from training.data.file_walk import files_below
from training.data.open_images.label_rows import ID_DIGITS, parse_ids
from training.data.problems import Problems

DESCRIPTIONS, TRAINABLE = "class-descriptions.csv", "classes-trainable.txt"
FOLDERS = ("", "annotations", "2018_04")

# Sizes of v4 according to the data set's pages. The paper prints 125,456 test photos.
DOCUMENTED_PHOTOS = {"train": 9_011_219, "val": 41_620, "test": 125_436}
DOCUMENTED_ROWS = {"train": 27_894_289, "val": 551_390, "test": 1_667_399}
DOCUMENTED_TRAINABLE = 7_186
UNSEEN_CLASSES = 400
RELEASED_UNSEEN = pathlib.Path(__file__).with_name("released_unseen.txt")


def human_labels(split: str) -> str:
    """Returns the file name of a split's human-verified labels."""
    return f"{OFFICIAL_SPLITS[split]}-annotations-human-imagelabels.csv"


def machine_labels(split: str) -> str:
    """Returns the file name of a split's machine-generated labels."""
    return f"{OFFICIAL_SPLITS[split]}-annotations-machine-imagelabels.csv"


def photo_list(split: str) -> str:
    """Returns the file name of a split's list of photos."""
    return f"{OFFICIAL_SPLITS[split]}-images-{'with-labels-' * (split == 'train')}with-rotation.csv"


def find(directory: pathlib.Path, name: str) -> pathlib.Path | None:
    """Returns the path of an official file, or None if it is missing."""
    for folder in FOLDERS:
        for inner in ("", name.split("-")[0]):
            path = directory / folder / inner / name
            if path.is_file():
                return path
    return None


@dataclasses.dataclass(frozen=True)
class ClassLists:
    """All classes and the trainable ones.

    Attributes:
        ids: (A,) bytes, all classes of class-descriptions.csv, sorted.
        names: their names, aligned with `ids`; not unique.
        trainable: indices into `ids`, in the order of classes-trainable.txt.
    """

    ids: np.ndarray
    names: tuple[str, ...]
    trainable: np.ndarray

    def positions(self, ids: Sequence[bytes] | np.ndarray) -> np.ndarray:
        """Returns the indices of classes in `ids`; -1 for unknown ones."""
        return positions_in(self.ids, np.array(ids, dtype=self.ids.dtype))

    def distinct_names(self, positions: np.ndarray) -> tuple[str, ...]:
        """Returns names of classes, with the id appended to names that are not unique."""
        chosen = [self.names[position] for position in positions]
        names, counts = np.unique(chosen, return_counts=True)
        repeated = set(names[counts > 1].tolist())
        return tuple(
            f"{name} ({self.ids[position].decode()})" if name in repeated else name
            for name, position in zip(chosen, positions, strict=True)
        )


def positions_in(known: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Returns the indices of values in a sorted array; -1 for values that are not in it."""
    if not len(known):
        return np.full(len(wanted), -1)
    at = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    return np.where(known[at] == wanted, at, -1)


def read_classes(directory: pathlib.Path, problems: Problems) -> ClassLists:
    """Reads class-descriptions.csv and classes-trainable.txt.

    Raises:
        UserError: a file is missing, a row is invalid or repeated, or a trainable class has no
            description.
    """
    paths = {}
    for name in (DESCRIPTIONS, TRAINABLE):
        path = find(directory, name)
        if path is None:
            problems.add(name, None, "not found; get it from the download page")
        else:
            paths[name] = path
    problems.raise_if_any()
    described: dict[bytes, str] = {}
    with paths[DESCRIPTIONS].open(newline="", encoding="utf-8-sig") as file:
        for number, row in enumerate(csv.reader(file), start=1):
            if number == 1 and row[:1] == ["LabelName"]:
                continue  # later versions have a header
            if len(row) != 2 or not all(map(str.strip, row)):
                problems.add(DESCRIPTIONS, number, f"expected a class id and a name, got {row!r}")
            elif row[0].encode() in described:
                problems.add(DESCRIPTIONS, number, f"class {row[0]!r} is repeated")
            else:
                described[row[0].encode()] = row[1].strip()
    ids = np.array(sorted(described), dtype=np.bytes_)
    trainable: dict[bytes, int] = {}
    for number, line in enumerate(paths[TRAINABLE].read_bytes().splitlines(), start=1):
        identifier = line.strip()
        shown = identifier.decode("utf-8", "replace")
        if not identifier:
            continue
        if identifier not in described:
            problems.add(TRAINABLE, number, f"class {shown!r} is not in {DESCRIPTIONS}")
        elif identifier in trainable:
            problems.add(TRAINABLE, number, f"class {shown!r} is repeated")
        else:
            trainable[identifier] = number
    problems.raise_if_any()
    if not trainable:
        raise UserError(f"{paths[TRAINABLE]}: no classes")
    names = tuple(described[own] for own in ids.tolist())
    wanted = np.array(list(trainable), dtype=ids.dtype)
    return ClassLists(ids, names, np.searchsorted(ids, wanted))


def read_photo_list(
    path: pathlib.Path, problems: Problems, progress: Callable[[int], None] | None = None
) -> np.ndarray:
    """Returns the sorted photo ids of a list of photos, (N,) uint64.

    Args:
        path: CSV file with ImageID as its first column; other columns may be quoted.
        problems: collects the problems of the data set.
        progress: called with the number of bytes read.
    """
    ids: list[bytes] = []
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        rows = csv.reader(file)
        header = next(rows, [])
        if header[:1] != ["ImageID"]:
            problems.add(path.name, 1, f"expected the header ImageID,…, got {','.join(header)!r}")
            return np.empty(0, np.uint64)
        ids = [row[0].encode() if row else b"" for row in rows]
    if progress:
        progress(path.stat().st_size)
    numbers, good = parse_ids(ids)
    for row in np.flatnonzero(~good):
        shown = ids[row].decode("utf-8", "replace")
        problems.add(path.name, int(row) + 2, f"{shown!r} is not a photo id of 16 hex digits")
    return np.unique(numbers[good])


def find_photos(directory: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns the sorted ids, (P,) uint64, and the relative paths, (P,) objects, of the photos.

    A photo's file is named after its id, 16 hexadecimal digits, in any folder below `directory`;
    if a photo has several files, the first by path is used. No file is opened.
    """
    ids: list[int] = []
    paths: list[str] = []
    for path, _ in files_below(directory):
        stem, ending = os.path.splitext(path.rsplit("/", 1)[-1])
        if len(stem) == ID_DIGITS and ending.lower() in ENDINGS:
            try:
                ids.append(int(stem, 16))
            except ValueError:
                continue
            paths.append(path)
    named = np.array(paths, dtype=object)
    by_path = np.argsort(named, kind="stable")
    numbers, first = np.unique(np.array(ids, np.uint64)[by_path], return_index=True)
    return numbers, named[by_path][first]
