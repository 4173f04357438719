"""Remarks on Open Images as it is read: counts, rules, differences from the documentation."""

import dataclasses
import pathlib
from collections.abc import Mapping

import numpy as np

from training.data.checksums import known_files
from training.data.dataset import OFFICIAL_SPLITS, Split
from training.data.open_images import layout
from training.data.open_images.layout import ClassLists

CHECKSUMS = pathlib.Path(__file__).with_name("checksums.tsv")


@dataclasses.dataclass(frozen=True)
class SplitCounts:
    """Counts of one split: photos listed and found, rows and bytes of its label file."""

    listed: int
    found: int
    rows: int
    size: int


def make_remarks(
    counts: Mapping[str, SplitCounts],
    classes: ClassLists,
    unseen: np.ndarray,
    released: np.ndarray,
    candidates: int,
    unseen_classes: str,
    splits: Mapping[str, Split],
) -> tuple[tuple[str, ...], str | None]:
    """Returns the remarks, and a text on what is missing, or None if nothing is.

    Args:
        counts: counts of each split.
        classes: all classes.
        unseen: indices of the unseen classes.
        released: ids of the released code's unseen classes.
        candidates: number of classes that the unseen ones were chosen from.
        unseen_classes: rule for the unseen classes.
        splits: the splits of the data set.
    """
    lines = [_classes_line(classes, unseen, released, candidates, unseen_classes)]
    for split, own in counts.items():
        lines.append(_split_line(split, own, splits.get(split)))
    lines += _differences(counts, classes)
    missing = [
        f"{own.listed - own.found:,} of {own.listed:,} listed {split} photos"
        for split, own in counts.items()
        if own.found < own.listed
    ]
    missing += [f"split {split}" for split in OFFICIAL_SPLITS if split not in counts]
    return tuple(lines), f"missing: {', '.join(missing)}" if missing else None


def _classes_line(classes, unseen, released, candidates: int, rule: str) -> str:
    line = f"classes: {len(classes.trainable):,} trainable seen; {len(unseen):,} unseen"
    if rule == "released":
        absent = len(released) - len(unseen)
        return (
            line
            + ", the released code's"
            + f" ({absent} of them not in these files)" * bool(absent)
        )
    shared = np.isin(classes.ids[unseen], released).sum()
    return (
        f"{line}, the most frequent of {candidates:,} classes in the test labels that are not "
        f"trainable; {shared} of them are among the released code's {len(released)}"
    )


def _split_line(split: str, own: SplitCounts, labels: Split | None) -> str:
    line = f"{split}: {own.listed:,} photos listed, {own.found:,} found"
    if labels is not None:
        present, absent = (labels.labels.count(value, axis=0).sum() for value in (1, -1))
        line += f"; labels of these classes: {present:,} present, {absent:,} absent"
    return line


def _differences(counts: Mapping[str, SplitCounts], classes: ClassLists) -> list[str]:
    found = []
    if len(classes.trainable) != layout.DOCUMENTED_TRAINABLE:
        found.append(
            f"{len(classes.trainable):,} trainable classes ({layout.DOCUMENTED_TRAINABLE:,})"
        )
    known = known_files(CHECKSUMS)
    for split, own in counts.items():
        official = known[layout.human_labels(split)].size
        if own.rows != layout.DOCUMENTED_ROWS[split]:
            found.append(f"{own.rows:,} {split} labels ({layout.DOCUMENTED_ROWS[split]:,})")
        elif own.size != official:
            found.append(f"{layout.human_labels(split)} has {own.size:,} bytes ({official:,})")
        if own.listed > layout.DOCUMENTED_PHOTOS[split]:
            found.append(f"{own.listed:,} {split} photos ({layout.DOCUMENTED_PHOTOS[split]:,})")
    if not found:
        return []
    return [f"differs from the documentation of v4, in brackets: {'; '.join(found)}"]
