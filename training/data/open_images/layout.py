"""The official files of Open Images v4: where they lie and what they list.

    class-descriptions.csv                     /m/0104x9kv,Vinegret: all classes, no header
    classes-trainable.txt                      /m/0104x9kv: the 7,186 trainable ones, one a line
    train-annotations-human-imagelabels.csv    ImageID,Source,LabelName,Confidence; 0 or 1
    validation-…, test-…                       the same for the other splits
    train-annotations-machine-imagelabels.csv  the same, a confidence from 0 to 1 (optional)
    train-images-with-labels-with-rotation.csv, validation-images-with-rotation.csv,
    test-images-with-rotation.csv              ImageID,Subset,…: all photos (optional)

Files lie in the data set's folder itself, or in `annotations`, `2018_04`, or a folder named
after their split in any of these.
"""

import csv
import dataclasses
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from biam_tf.errors import UserError
from training.data.dataset import OFFICIAL_SPLITS
from training.data.open_images.label_rows import parse_ids
from training.data.problems import Problems

DESCRIPTIONS, TRAINABLE = "class-descriptions.csv", "classes-trainable.txt"
FOLDERS = ("", "annotations", "2018_04")

# What the data set's pages say of v4. The paper prints 125,456 test photos.
DOCUMENTED_PHOTOS = {"train": 9_011_219, "val": 41_620, "test": 125_436}
DOCUMENTED_ROWS = {"train": 27_894_289, "val": 551_390, "test": 1_667_399}
DOCUMENTED_TRAINABLE = 7_186
UNSEEN_CLASSES = 400
RELEASED_UNSEEN = pathlib.Path(__file__).with_name("released_unseen.txt")


def human_labels(split: str) -> str:
    """Returns the name of the file of a split's checked labels."""
    return f"{OFFICIAL_SPLITS[split]}-annotations-human-imagelabels.csv"


def machine_labels(split: str) -> str:
    """Returns the name of the file of a split's machine-generated labels."""
    return f"{OFFICIAL_SPLITS[split]}-annotations-machine-imagelabels.csv"


def photo_list(split: str) -> str:
    """Returns the name of the file that lists a split's photos."""
    return f"{OFFICIAL_SPLITS[split]}-images-{'with-labels-' * (split == 'train')}with-rotation.csv"


def find(directory: pathlib.Path, name: str) -> pathlib.Path | None:
    """Returns where an official file lies, or None."""
    for folder in FOLDERS:
        for inner in ("", name.split("-")[0]):
            path = directory / folder / inner / name
            if path.is_file():
                return path
    return None


@dataclasses.dataclass(frozen=True)
class ClassLists:
    """All classes and those that are trainable.

    Attributes:
        ids: (A,) bytes, all classes of class-descriptions.csv, sorted.
        names: their names, aligned with `ids`; several classes may have the same.
        trainable: positions in `ids`, in the order of classes-trainable.txt.
    """

    ids: np.ndarray
    names: tuple[str, ...]
    trainable: np.ndarray

    def positions(self, ids: Sequence[bytes] | np.ndarray) -> np.ndarray:
        """Returns where classes stand in `ids`; -1 where one does not."""
        return positions_in(self.ids, np.array(ids, dtype=self.ids.dtype))

    def distinct_names(self, positions: np.ndarray) -> tuple[str, ...]:
        """Returns names of classes, with the id behind those that several of them have."""
        chosen = [self.names[position] for position in positions]
        names, counts = np.unique(chosen, return_counts=True)
        repeated = set(names[counts > 1].tolist())
        return tuple(
            f"{name} ({self.ids[position].decode()})" if name in repeated else name
            for name, position in zip(chosen, positions, strict=True)
        )


def positions_in(known: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Returns where values stand in a sorted array; -1 where one does not."""
    if not len(known):
        return np.full(len(wanted), -1)
    at = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    return np.where(known[at] == wanted, at, -1)


def read_classes(directory: pathlib.Path, problems: Problems) -> ClassLists:
    """Reads class-descriptions.csv and classes-trainable.txt.

    Raises:
        UserError: a file is missing, a row is broken or repeated, or a trainable class has no
            description.
    """
    paths = {}
    for name in (DESCRIPTIONS, TRAINABLE):
        path = find(directory, name)
        if path is None:
            problems.add(name, None, "not there; it is one of the files of the download page")
        else:
            paths[name] = path
    problems.raise_if_any()
    described: dict[bytes, str] = {}
    with paths[DESCRIPTIONS].open(newline="", encoding="utf-8-sig") as file:
        for number, row in enumerate(csv.reader(file), start=1):
            if number == 1 and row[:1] == ["LabelName"]:
                continue  # later versions have a header
            if len(row) != 2 or not all(map(str.strip, row)):
                problems.add(DESCRIPTIONS, number, f"expected a class and its name, got {row!r}")
            elif row[0].encode() in described:
                problems.add(DESCRIPTIONS, number, f"class {row[0]!r} is described already")
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
            problems.add(TRAINABLE, number, f"class {shown!r} stands here already")
        else:
            trainable[identifier] = number
    problems.raise_if_any()
    if not trainable:
        raise UserError(f"{paths[TRAINABLE]}: lists no class")
    names = tuple(described[own] for own in ids.tolist())
    wanted = np.array(list(trainable), dtype=ids.dtype)
    return ClassLists(ids, names, np.searchsorted(ids, wanted))


def read_photo_list(
    path: pathlib.Path, problems: Problems, progress: Callable[[int], None] | None = None
) -> np.ndarray:
    """Returns the numbers of the photos that a list has, (N,) uint64, sorted.

    Args:
        path: ImageID is the first column; titles hold commas and quotes, so this is real CSV.
        problems: of the data set.
        progress: called with the bytes read.
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
        problems.add(path.name, int(row) + 2, f"{shown!r} is no photo's number of 16 hex digits")
    return np.unique(numbers[good])
