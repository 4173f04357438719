"""Open Images v4 in its official layout, read in place as a `TaggingDataset`."""

import dataclasses
import os
import pathlib
from collections.abc import Callable
from typing import Annotated, Literal

import numpy as np

from biam_tf.errors import UserError
from training.config.typed_yaml import Range
from training.data.dataset import (
    OFFICIAL_SPLITS,
    SEEN,
    SPLITS,
    UNSEEN,
    About,
    Split,
    TaggingDataset,
)
from training.data.open_images import layout
from training.data.open_images.label_rows import read_label_rows
from training.data.open_images.layout import ClassLists, positions_in
from training.data.open_images.photos import find_photos
from training.data.open_images.remarks import SplitCounts, make_remarks
from training.data.problems import Problems
from training.data.source import DataSource, ReadRequest

UnseenClasses = Literal["most_frequent", "released"]
KS = (3, 5, 10, 20)  # the paper's, and those of every other data set


def read_open_images(
    manual_dir: str | os.PathLike,
    unseen_classes: UnseenClasses = "most_frequent",
    machine_confidence: float | None = None,
    progress: Callable[[int, int], None] | None = None,
    look_for_photos: bool = True,
) -> TaggingDataset:
    """Reads Open Images v4 from where its files were put; see `layout` for them.

    Labels that people checked are +1 (confidence 1) and -1 (confidence 0); everything else is
    unknown, 0. Of several rows for one photo and class the last counts, as in the released code.
    Seen classes are the trainable ones, in the order of classes-trainable.txt. Splits are the
    official ones; a split whose label file is not there is left out.

    Only photos that are there count, so that any part of the 9 million can be used; the rules
    for classes look at the label files alone and give everyone the same classes.

    Args:
        manual_dir: the folder of the files and, anywhere below it, the photos.
        unseen_classes: `most_frequent`: the 400 classes with the most checked present labels in
            the test split's file among those that are not trainable; of equally frequent ones
            those that come first by id. `released`: the 400 of the released code's lists.
        machine_confidence: from which confidence on a machine-generated label of a training
            photo counts as present, where people checked nothing; None: machine-generated
            labels are not read.
        progress: called with (bytes read, bytes in all) of the label files.
        look_for_photos: whether photos that are not there are left out; without, images are
            named `train/000060e3121c7305.jpg`.

    Returns:
        Seen classes first; an id stands behind names that several classes have. Labels take
        N x C bytes.

    Raises:
        UserError: files are missing or rows are wrong; all problems are in the one message, with
            file and row. No listed photo is there, or labels would not fit into the memory.
    """
    directory = pathlib.Path(manual_dir)
    if not directory.is_dir():
        raise UserError(f"{directory}: no such folder; the files of Open Images were expected here")
    problems = Problems(directory)
    classes = layout.read_classes(directory, problems)
    files = {split: layout.find(directory, layout.human_labels(split)) for split in SPLITS}
    if unseen_classes == "most_frequent" and files["test"] is None:
        text = "not there; the unseen classes are the most frequent of this file"
        problems.add(layout.human_labels("test"), None, text)
    elif not any(files.values()):
        problems.add(layout.human_labels("train"), None, "not there, nor any other split's")
    machine = layout.find(directory, layout.machine_labels("train"))
    if machine_confidence is not None and machine is None:
        problems.add(layout.machine_labels("train"), None, "not there: data.machine_confidence")
    problems.raise_if_any()

    photos = find_photos(directory) if look_for_photos else None
    read = [path for path in files.values() if path]
    read += [machine] if machine_confidence is not None and machine is not None else []
    counted = _Bytes(sum(path.stat().st_size for path in read), progress)
    known = None if photos is None else photos[0]
    facts = {
        split: _read_split(directory, path, split, classes, known, problems, counted)
        for split, path in files.items()
        if path is not None
    }
    if machine_confidence is not None and "train" in facts:
        facts["train"] = _with_machine_labels(
            facts["train"], machine, machine_confidence, classes, known, problems, counted
        )
    problems.raise_if_any()

    released = np.array(layout.RELEASED_UNSEEN.read_bytes().split())
    candidates = 0
    if unseen_classes == "released":
        unseen = classes.positions(released)
        unseen = unseen[unseen >= 0]
    else:
        unseen, candidates = most_frequent_unseen(facts["test"].frequencies, classes)
    if np.isin(unseen, classes.trainable).any():
        raise UserError(f"{directory}: a class of the released unseen ones is trainable here")
    chosen = np.concatenate([classes.trainable, unseen])
    column_of = np.full(len(classes.ids), -1)
    column_of[chosen] = np.arange(len(chosen))

    numbers = {split: np.unique(fact.photos) for split, fact in facts.items()}
    if not any(map(len, numbers.values())):
        raise UserError(
            f"{directory}: no listed photo is there; put the folders train, validation and test "
            "with files such as 000060e3121c7305.jpg, or links to them, below this one"
        )
    _check_memory(directory, sum(map(len, numbers.values())), len(chosen))
    splits = {
        split: Split(
            _images(own, split, photos), _labels(facts[split], own, column_of, len(chosen))
        )
        for split, own in numbers.items()
        if len(own)
    }
    counts = {
        split: SplitCounts(
            listed=fact.listed,
            there=len(numbers[split]),
            rows=fact.rows,
            size=path.stat().st_size,
        )
        for split, fact in facts.items()
        if (path := files[split]) is not None
    }
    remarks, partial = make_remarks(
        counts, classes, unseen, released, candidates, unseen_classes, splits
    )
    return TaggingDataset(
        directory,
        classes.distinct_names(chosen),
        (SEEN,) * len(classes.trainable) + (UNSEEN,) * len(unseen),
        splits,
        About(remarks, (), partial, headline="weighted_mAP", ks=KS),
    )


def most_frequent_unseen(
    frequencies: np.ndarray, classes: ClassLists, count: int = layout.UNSEEN_CLASSES
) -> tuple[np.ndarray, int]:
    """Returns the unseen classes, the most frequent first, and of how many they were chosen.

    Args:
        frequencies: (A,) how many present labels the test split's file has of each class.
        classes: A classes; ids are sorted.
        count: how many classes, at most.
    """
    frequencies = frequencies.copy()
    frequencies[classes.trainable] = 0
    order = np.argsort(-frequencies, kind="stable")
    candidates = int((frequencies > 0).sum())
    return order[: min(count, candidates)], candidates


@dataclasses.dataclass(frozen=True)
class _Facts:
    """Labels of one split's photos that are there, and counts over all its photos.

    Attributes:
        photos: (R,) uint64, the photo of each label.
        classes: (R,) position of its class.
        values: (R,) int8, +1 or -1.
        frequencies: (A,) present labels of each class, in the whole file.
        listed: how many photos the split has.
        rows: of the file.
    """

    photos: np.ndarray
    classes: np.ndarray
    values: np.ndarray
    frequencies: np.ndarray
    listed: int
    rows: int


class _Bytes:
    """Turns bytes read here and there into progress."""

    def __init__(self, total: int, progress: Callable[[int, int], None] | None):
        self._done, self._total, self._progress = 0, total, progress

    def __call__(self, count: int) -> None:
        self._done += count
        if self._progress:
            self._progress(self._done, self._total)


def _read_split(directory, path, split, classes, known, problems, counted) -> _Facts:
    list_path = layout.find(directory, layout.photo_list(split))
    listed = None if list_path is None else layout.read_photo_list(list_path, problems)
    list_name = "" if list_path is None else list_path.name
    frequencies = np.zeros(len(classes.ids), np.int64)
    parts, ids, rows = [], [], 0
    for block in read_label_rows(path, problems, counted):
        rows += len(block.rows)
        wrong = (block.confidences != 0) & (block.confidences != 1)
        for row in np.flatnonzero(wrong):
            text = f"confidence {block.confidences[row]:g}; a checked label has 0 or 1"
            problems.add(path.name, int(block.rows[row]), text)
        position = _class_positions(block, classes, path.name, problems)
        if listed is None:
            ids.append(np.unique(block.photos))
        else:
            for row in np.flatnonzero(positions_in(listed, block.photos) < 0):
                text = f"photo {int(block.photos[row]):016x} is not in {list_name}"
                problems.add(path.name, int(block.rows[row]), text)
        present = block.confidences == 1
        frequencies += np.bincount(position[present & (position >= 0)], minlength=len(frequencies))
        use = position >= 0
        if known is not None:
            use &= positions_in(known, block.photos) >= 0
        values = np.where(present[use], 1, -1).astype(np.int8)
        parts.append((block.photos[use], position[use].astype(np.int32), values))
    if listed is None:
        listed = np.unique(np.concatenate(ids)) if ids else np.empty(0, np.uint64)
    return _Facts(*_joined(parts), frequencies, len(listed), rows)


def _with_machine_labels(facts, path, least, classes, known, problems, counted) -> _Facts:
    """The checked labels behind the machine's: of two for one photo and class, the last counts."""
    parts = []
    for block in read_label_rows(path, problems, counted):
        position = _class_positions(block, classes, path.name, problems)
        use = (position >= 0) & (block.confidences >= least)
        if known is not None:
            use &= positions_in(known, block.photos) >= 0
        ones = np.ones(use.sum(), np.int8)
        parts.append((block.photos[use], position[use].astype(np.int32), ones))
    parts.append((facts.photos, facts.classes, facts.values))
    photos, positions, values = _joined(parts)
    return dataclasses.replace(facts, photos=photos, classes=positions, values=values)


def _class_positions(block, classes, file: str, problems: Problems) -> np.ndarray:
    position = positions_in(classes.ids, block.classes)
    for row in np.flatnonzero(position < 0):
        shown = block.classes[row].decode("utf-8", "replace")
        text = f"class {shown!r} is not in {layout.DESCRIPTIONS}"
        problems.add(file, int(block.rows[row]), text)
    return position


def _joined(parts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    kinds = (np.uint64, np.int32, np.int8)
    if not parts:
        photos, classes, values = (np.empty(0, kind) for kind in kinds)
    else:
        photos, classes, values = (np.concatenate(own) for own in zip(*parts, strict=True))
    return photos, classes, values


def _images(numbers: np.ndarray, split: str, photos) -> tuple[str, ...]:
    if photos is None:
        folder = OFFICIAL_SPLITS[split]
        return tuple(f"{folder}/{number:016x}.jpg" for number in numbers.tolist())
    return tuple(photos[1][positions_in(photos[0], numbers)])


def _labels(facts: _Facts, numbers: np.ndarray, column_of: np.ndarray, columns: int) -> np.ndarray:
    labels = np.zeros((len(numbers), columns), np.int8)
    column = column_of[facts.classes]
    use = column >= 0
    # Of a place that occurs twice, NumPy keeps the last value.
    labels[np.searchsorted(numbers, facts.photos[use]), column[use]] = facts.values[use]
    return labels


def _check_memory(directory: pathlib.Path, photos: int, classes: int) -> None:
    from training.machine import total_memory  # which brings TensorFlow

    needed, there = photos * classes, total_memory()
    if needed > there // 2:  # what comes later copies parts of them
        raise UserError(
            f"{directory}: labels of {photos:,} photos and {classes:,} classes take "
            f"{needed / 1e9:.1f} GB, more than half of this machine's {there / 1e9:.1f} GB; use "
            "fewer photos (those that are below the folder count), or a larger machine"
        )


@dataclasses.dataclass(frozen=True)
class OpenImagesSettings:
    """The settings of Open Images; see `read_open_images`.

    Attributes:
        unseen_classes: the 400 most frequent test classes that are not trainable, or those of the
            released code's list.
        machine_confidence: from which confidence on machine-generated labels of training photos
            count as present; null: they are not read.
    """

    unseen_classes: UnseenClasses = "most_frequent"
    machine_confidence: Annotated[float, Range(above=0, at_most=1)] | None = None


def _read(request: ReadRequest) -> TaggingDataset:
    return read_open_images(
        request.required_directory,
        request.settings.unseen_classes,
        request.settings.machine_confidence,
        request.progress,
        request.look_for_photos,
    )


OPEN_IMAGES = DataSource(
    "open_images",
    _read,
    OpenImagesSettings,
    needs_directory="Open Images needs the folder of its files, see docs/datasets.md",
    work=("reading labels", "byte"),
)
