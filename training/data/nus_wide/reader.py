"""Reads NUS-WIDE in its official layout as a `TaggingDataset`."""

import dataclasses
import os
import pathlib
from collections.abc import Callable
from typing import Literal

import numpy as np

from biam_tf.errors import UserError
from biam_tf.sparse_labels import SparseLabels
from training.data.dataset import SEEN, UNSEEN, About, Split, TaggingDataset
from training.data.nus_wide import layout
from training.data.nus_wide.indicator_matrix import indicator_rows, uniform_block
from training.data.nus_wide.photos import FoundPhotos, find_photos
from training.data.nus_wide.remarks import make_remarks
from training.data.problems import Problems
from training.data.source import DataSource, ReadRequest

Configuration = Literal["zero_shot", "standard_81"]
Unlabelled = Literal["keep", "unknown", "drop"]


def read_nus_wide(
    manual_dir: str | os.PathLike,
    configuration: Configuration = "zero_shot",
    unlabelled: Unlabelled = "keep",
    progress: Callable[[int, int], None] | None = None,
    look_for_photos: bool = True,
) -> TaggingDataset:
    """Reads NUS-WIDE from the folder of its unpacked archives; see `layout` for the files.

    `zero_shot`: the seen classes are the 1,000 tags except those spelled exactly like one of the
    81 concepts (1,000 - 75 = 925), in the order of TagList1k.txt, labelled by Flickr's users;
    the unseen classes are the 81 concepts with their verified labels. `standard_81`: the 81
    concepts, all seen.

    The first 80 % of TrainImagelist.txt are training photos, the rest are validation photos. The
    list is split before missing photos are left out, so that the split is always the same.

    Args:
        manual_dir: the folder of the unpacked archives, with the photos anywhere below it.
        configuration: the classes, `zero_shot` or `standard_81`.
        unlabelled: treatment of photos that show no class of a group (seen or unseen). `keep`:
            the group's classes are absent, as in the files and in published figures. `unknown`:
            the group's labels are 0, neither present nor absent. `drop`: photos that show no
            class of any group are left out.
        progress: called with (rows read, total rows) of the largest file.
        look_for_photos: whether to find the photos and leave out missing ones; if False, images
            are named as in Imagelist.txt.

    Returns:
        Classes in the order of the lists, seen ones first; splits train, val and test. While they
        are read, labels take N x C bytes, 271 MB for all of `zero_shot`.

    Raises:
        UserError: files are missing or inconsistent (one message lists all problems with file
            and row), or no listed photo is found.
    """
    directory = pathlib.Path(manual_dir)
    if not directory.is_dir():
        raise UserError(f"{directory}: no such folder; expected the unpacked archives of NUS-WIDE")
    problems = Problems(directory)
    lists = layout.read_lists(directory, configuration == "zero_shot", problems)
    seen_tags = np.flatnonzero(~lists.is_concept)
    found = find_photos(directory, lists.photos) if look_for_photos else _as_listed(lists.photos)
    parts = _parts(lists)
    kept = {
        name: rows[[found.paths[row] is not None for row in rows]] for name, rows in parts.items()
    }
    if not any(map(len, kept.values())):
        raise UserError(
            f"{directory}: none of the {len(lists.photos)} listed photos was found under any of "
            "the names in docs/datasets.md; move or link their folder below this one"
        )
    # One matrix, ordered by split: what is made of it are views, not copies.
    order = np.concatenate(list(kept.values()))
    labels = np.empty((len(order), len(seen_tags) + len(lists.concepts)), np.int8)
    place = np.full(len(lists.photos), -1)
    place[order] = np.arange(len(order))
    _read_tags(directory, lists, seen_tags, place, labels, problems, progress)
    disagreements = _read_concepts(directory, lists, place, labels[:, len(seen_tags) :], problems)
    problems.raise_if_any()

    groups = [slice(0, len(seen_tags)), slice(len(seen_tags), labels.shape[1])]
    groups = [group for group in groups if group.start < group.stop]
    # (groups, N) whether a photo shows a class of the group. max() does not copy the labels.
    shown = np.stack([labels[:, group].max(axis=1) > 0 for group in groups])
    if unlabelled == "unknown":
        for group, own in zip(groups, shown, strict=True):
            labels[~own, group] = 0
    splits, begin = {}, 0
    for name, rows in kept.items():
        part = slice(begin, begin + len(rows))
        begin += len(rows)
        left = shown[:, part].any(axis=0) if unlabelled == "drop" else np.ones(len(rows), bool)
        if left.any():
            images = tuple(found.paths[row] for row in rows[left])
            own = labels[part] if left.all() else labels[part][left]
            splits[name] = Split(images, SparseLabels.of_dense(own, fill=-1))
    remarks = make_remarks(
        directory, configuration, unlabelled, lists, parts, found, shown, splits, disagreements
    )
    missing = tuple(
        name for name, path in zip(lists.photos, found.paths, strict=True) if path is None
    )
    partial = None
    if missing:
        partial = f"{len(missing):,} of {len(lists.photos):,} listed photos are missing"
    concept_group = UNSEEN if configuration == "zero_shot" else SEEN
    return TaggingDataset(
        directory,
        (*(lists.tags[tag] for tag in seen_tags), *lists.concepts),
        (SEEN,) * len(seen_tags) + (concept_group,) * len(lists.concepts),
        splits,
        # As in the evaluation of the released code.
        About(remarks, missing, partial, classes_without_positives="zero"),
    )


def _as_listed(photos: tuple[str, ...]) -> FoundPhotos:
    return FoundPhotos(photos, empty=0, placeholders=0, several=0)


def _parts(lists: layout.Lists) -> dict[str, np.ndarray]:
    trained = int(layout.TRAINED_SHARE * len(lists.train))
    return {"train": lists.train[:trained], "val": lists.train[trained:], "test": lists.test}


def _read_tags(directory, lists, seen_tags, place, labels, problems, progress) -> None:
    """Fills in the columns of the seen tags."""
    if not len(lists.tags):
        return
    path = layout.require(directory, layout.TAG_MATRIX, problems)
    if path is None:
        return
    blocks = indicator_rows(
        path,
        str(path.relative_to(directory)),
        len(lists.photos),
        len(lists.tags),
        layout.PHOTOS[0],
        problems,
        progress,
    )
    for first, block in blocks:
        to = place[first : first + len(block)]
        block = block[to >= 0][:, seen_tags].view(np.int8)
        labels[to[to >= 0], : len(seen_tags)] = 2 * block - 1


def _read_concepts(directory, lists, place, labels, problems) -> list[str]:
    """Fills in the concepts' columns; returns the differences from the files by split."""
    folder = layout.require(directory, layout.LABELS, problems)
    by_split = layout.find(directory, layout.LABELS_BY_SPLIT)
    if folder is None:
        return []
    disagreements = []
    for column, concept in enumerate(lists.concepts):
        path = layout.label_file(folder, concept)
        shown = str(path.relative_to(directory))
        if not path.is_file():
            problems.add(shown, None, f"not found, but {layout.CONCEPTS[0]} lists {concept!r}")
            continue
        whole = np.zeros(len(lists.photos), np.int8)
        count = len(lists.photos)
        for first, block in indicator_rows(path, shown, count, 1, layout.PHOTOS[0], problems):
            whole[first : first + len(block)] = block[:, 0]
        labels[place[place >= 0], column] = 2 * whole[place >= 0] - 1
        if by_split is not None:
            for split, rows in (("_Train", lists.train), ("_Test", lists.test)):
                other = layout.label_file(by_split, concept, split)
                disagreements += _compare(other, whole[rows], str(other.relative_to(directory)))
    return disagreements


def _compare(path: pathlib.Path, expected: np.ndarray, shown: str) -> list[str]:
    if not path.is_file():
        return []
    text = path.read_bytes()
    digits = uniform_block(text, 1) if text.endswith(b"\n") else None
    if digits is not None and np.array_equal(digits[:, 0], expected):
        return []
    values = np.array(text.split())
    if len(values) != len(expected):
        return [f"{shown} has {len(values):,} rows, not {len(expected):,}"]
    rows = np.flatnonzero(values != np.where(expected, b"1", b"0"))
    return [f"{shown} row {row + 1:,} is {values[row].decode()}" for row in rows]


@dataclasses.dataclass(frozen=True)
class NusWideSettings:
    """The settings of NUS-WIDE; see `read_nus_wide`.

    Attributes:
        configuration: the classes, `zero_shot` (925 tags seen, 81 concepts unseen) or
            `standard_81`.
        unlabelled: treatment of photos that show no class: `keep`, `unknown` or `drop`.
    """

    configuration: Configuration = "zero_shot"
    unlabelled: Unlabelled = "keep"


def _read(request: ReadRequest) -> TaggingDataset:
    return read_nus_wide(
        request.required_directory,
        request.settings.configuration,
        request.settings.unlabelled,
        request.progress,
        request.look_for_photos,
    )


NUS_WIDE = DataSource(
    "nus_wide",
    _read,
    NusWideSettings,
    needs_directory="NUS-WIDE needs the folder of its unpacked archives; see docs/datasets.md",
    work=("reading labels", "photo"),
)
