"""Reads Open Images v4 in its official layout as a `TaggingDataset`."""

import dataclasses
import os
import pathlib
from collections.abc import Callable
from typing import Annotated, Literal

import numpy as np

from biam_tf.errors import UserError
from biam_tf.files import size_in_words
from biam_tf.sparse_labels import SparseLabels
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
from training.data.open_images.layout import ClassLists, find_photos, positions_in
from training.data.open_images.remarks import SplitCounts, make_remarks
from training.data.problems import Problems
from training.data.source import DataSource, ReadRequest

UnseenClasses = Literal["most_frequent", "released"]
# Photo, class and value of a label while labels are sorted; three bytes remain.
BYTES_PER_LABEL = 24
_AT_ONCE = 2**22  # labels
KS = (3, 5, 10, 20)  # the paper's, and the defaults of other data sets


def read_open_images(
    manual_dir: str | os.PathLike,
    unseen_classes: UnseenClasses = "most_frequent",
    machine_confidence: float | None = None,
    progress: Callable[[int, int], None] | None = None,
    look_for_photos: bool = True,
) -> TaggingDataset:
    """Reads Open Images v4 from the folder of its files; see `layout` for the files.

    Human-verified labels are +1 (confidence 1) or -1 (confidence 0); all others are 0, unknown.
    If several rows have the same photo and class, the last one is used, as in the released code.
    Seen classes are the trainable ones, in the order of classes-trainable.txt. Splits are the
    official ones; a split whose label file is missing is left out.

    Missing photos are left out, so any part of the 9 million can be used. The classes depend only
    on the label files, so they are the same for every part.

    Args:
        manual_dir: the folder of the files, with the photos anywhere below it.
        unseen_classes: `most_frequent`: among the classes that are not trainable, the 400 with
            the most human-verified present labels in the test split; ties are broken by id.
            `released`: the 400 of the released code's lists.
        machine_confidence: minimum confidence of a machine-generated label of a training photo
            to count as present if there is no human-verified label; None: machine-generated
            labels are not read.
        progress: called with (bytes read, total bytes) of the label files.
        look_for_photos: whether to find the photos and leave out missing ones; if False, images
            are named `train/000060e3121c7305.jpg`.

    Returns:
        Seen classes first; the id is appended to names that are not unique. Labels take three bytes
        each, of those that are not unknown.

    Raises:
        UserError: files are missing or rows are invalid (one message lists all problems with
            file and row), no listed photo is found, or the labels do not fit into memory.
    """
    directory = pathlib.Path(manual_dir)
    if not directory.is_dir():
        raise UserError(f"{directory}: no such folder; expected the files of Open Images")
    problems = Problems(directory)
    classes = layout.read_classes(directory, problems)
    files = {split: layout.find(directory, layout.human_labels(split)) for split in SPLITS}
    if unseen_classes == "most_frequent" and files["test"] is None:
        text = "not found; the unseen classes are the most frequent in this file"
        problems.add(layout.human_labels("test"), None, text)
    elif not any(files.values()):
        problems.add(layout.human_labels("train"), None, "not found, nor that of any other split")
    machine = layout.find(directory, layout.machine_labels("train"))
    if machine_confidence is not None and machine is None:
        problems.add(
            layout.machine_labels("train"), None, "not found; needed by data.machine_confidence"
        )
    problems.raise_if_any()

    photos = find_photos(directory) if look_for_photos else None
    read = [path for path in files.values() if path]
    read += [machine] if machine_confidence is not None and machine is not None else []
    counted = _ByteProgress(sum(path.stat().st_size for path in read), progress)
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
        raise UserError(
            f"{directory}: one of the released unseen classes is trainable in these files"
        )
    chosen = np.concatenate([classes.trainable, unseen])
    column_of = np.full(len(classes.ids), -1, np.int32)
    column_of[chosen] = np.arange(len(chosen), dtype=np.int32)

    numbers = {split: np.unique(fact.photos) for split, fact in facts.items()}
    if not any(map(len, numbers.values())):
        raise UserError(
            f"{directory}: no listed photo was found; move or link the folders train, validation "
            "and test, with files such as 000060e3121c7305.jpg, below this one"
        )
    listed = sum(len(fact.photos) for fact in facts.values())
    _check_memory(directory, sum(map(len, numbers.values())), len(chosen), listed)
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
            found=len(numbers[split]),
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
    """Returns the unseen classes, the most frequent first, and the number of candidates.

    Args:
        frequencies: (A,) number of present labels of each class in the test split's file.
        classes: all A classes.
        count: maximum number of unseen classes.
    """
    frequencies = frequencies.copy()
    frequencies[classes.trainable] = 0
    order = np.argsort(-frequencies, kind="stable")
    candidates = int((frequencies > 0).sum())
    return order[: min(count, candidates)], candidates


@dataclasses.dataclass(frozen=True)
class _SplitLabels:
    """Labels of the found photos of one split, and counts over all its photos.

    Attributes:
        photos: (R,) uint64, photo id of each label.
        classes: (R,) int32, index of its class.
        values: (R,) int8, +1 or -1.
        frequencies: (A,) number of present labels of each class in the whole file.
        listed: number of photos of the split.
        rows: number of rows of the file.
    """

    photos: np.ndarray
    classes: np.ndarray
    values: np.ndarray
    frequencies: np.ndarray
    listed: int
    rows: int


class _ByteProgress:
    """Adds up the bytes read from several files and reports progress."""

    def __init__(self, total: int, progress: Callable[[int, int], None] | None):
        self._done, self._total, self._progress = 0, total, progress

    def __call__(self, count: int) -> None:
        self._done += count
        if self._progress:
            self._progress(self._done, self._total)


def _read_split(directory, path, split, classes, known, problems, counted) -> _SplitLabels:
    list_path = layout.find(directory, layout.photo_list(split))
    listed = None if list_path is None else layout.read_photo_list(list_path, problems)
    list_name = "" if list_path is None else list_path.name
    frequencies = np.zeros(len(classes.ids), np.int64)
    parts, ids, rows = [], [], 0
    for block in read_label_rows(path, problems, counted):
        rows += len(block.rows)
        wrong = (block.confidences != 0) & (block.confidences != 1)
        for row in np.flatnonzero(wrong):
            text = f"confidence {block.confidences[row]:g}; a human-verified label has 0 or 1"
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
    return _SplitLabels(*_concatenate(parts), frequencies, len(listed), rows)


def _with_machine_labels(
    facts, path, min_confidence, classes, known, problems, counted
) -> _SplitLabels:
    """Puts the machine labels before the verified ones, since the last label is used."""
    parts = []
    for block in read_label_rows(path, problems, counted):
        position = _class_positions(block, classes, path.name, problems)
        use = (position >= 0) & (block.confidences >= min_confidence)
        if known is not None:
            use &= positions_in(known, block.photos) >= 0
        ones = np.ones(use.sum(), np.int8)
        parts.append((block.photos[use], position[use].astype(np.int32), ones))
    parts.append((facts.photos, facts.classes, facts.values))
    photos, positions, values = _concatenate(parts)
    return dataclasses.replace(facts, photos=photos, classes=positions, values=values)


def _class_positions(block, classes, file: str, problems: Problems) -> np.ndarray:
    position = positions_in(classes.ids, block.classes)
    for row in np.flatnonzero(position < 0):
        shown = block.classes[row].decode("utf-8", "replace")
        text = f"class {shown!r} is not in {layout.DESCRIPTIONS}"
        problems.add(file, int(block.rows[row]), text)
    return position


def _concatenate(parts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    kinds = (np.uint64, np.int32, np.int8)
    if not parts:
        photos, classes, values = (np.empty(0, kind) for kind in kinds)
    else:
        of_kinds = [list(own) for own in zip(*parts, strict=True)]
        parts.clear()  # so that each kind is in memory twice only while it is joined
        photos, classes, values = (np.concatenate(of_kinds.pop(0)) for _ in kinds)
    return photos, classes, values


def _images(numbers: np.ndarray, split: str, photos) -> tuple[str, ...]:
    if photos is None:
        folder = OFFICIAL_SPLITS[split]
        return tuple(f"{folder}/{number:016x}.jpg" for number in numbers.tolist())
    return tuple(photos[1][positions_in(photos[0], numbers)])


def _labels(
    facts: _SplitLabels, numbers: np.ndarray, column_of: np.ndarray, columns: int
) -> SparseLabels:
    """The labels of some classes; of several of a photo and class, the last one is used."""
    rows, classes, values = (np.empty(0, kind) for kind in (np.int32, np.int32, np.int8))
    parts = [(rows, classes, values)]
    for start in range(0, len(facts.photos), _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        column = column_of[facts.classes[some]]
        use = column >= 0
        row = np.searchsorted(numbers, facts.photos[some][use]).astype(np.int32)
        parts.append((row, column[use], facts.values[some][use]))
    rows, classes, values = (np.concatenate(own) for own in zip(*parts, strict=True))
    parts.clear()
    return SparseLabels.of_entries(rows, classes, values, (len(numbers), columns), 0)


def _check_memory(directory: pathlib.Path, photos: int, classes: int, labels: int) -> None:
    from training.machine import total_memory  # imports TensorFlow

    needed, memory = labels * BYTES_PER_LABEL, total_memory()
    if needed > memory // 2:
        raise UserError(
            f"{directory}: {labels:,} labels of {photos:,} photos and {classes:,} classes take "
            f"{size_in_words(needed)} while they are sorted, more than half of this machine's "
            f"{size_in_words(memory)}; use fewer photos (leave fewer below the folder), a higher "
            "data.machine_confidence, or a machine with more memory"
        )


@dataclasses.dataclass(frozen=True)
class OpenImagesSettings:
    """The settings of Open Images; see `read_open_images`.

    Attributes:
        unseen_classes: `most_frequent`, the 400 most frequent test classes that are not trainable,
            or `released`, those of the released code's lists.
        machine_confidence: minimum confidence of machine-generated labels of training photos to
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
    needs_directory="Open Images needs the folder of its files; see docs/datasets.md",
    work=("reading labels", "byte"),
)
