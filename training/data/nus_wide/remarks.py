"""What is said of NUS-WIDE when it is read: counts, rules, and differences from what is known."""

import collections
import hashlib
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from training.data.checksums import known_files
from training.data.dataset import Split
from training.data.nus_wide import layout
from training.data.nus_wide.photos import FoundPhotos, photo_id

SHOWN = 3
CHECKSUMS = pathlib.Path(__file__).with_name("checksums.tsv")


def make_remarks(
    directory: pathlib.Path,
    configuration: str,
    unlabelled: str,
    lists: layout.Lists,
    parts: Mapping[str, np.ndarray],
    found: FoundPhotos,
    shown: np.ndarray,
    splits: Mapping[str, Split],
    disagreements: Sequence[str],
) -> tuple[str, ...]:
    """Returns the lines.

    Args:
        directory: of the data set.
        configuration: zero_shot or standard_81.
        unlabelled: what was done with photos without a label.
        lists: the official lists.
        parts: rows of each split, photos that are not there included.
        found: the photos.
        shown: (groups, N) bool; whether a photo that is there shows a class of each group.
        splits: as returned.
        disagreements: between the two sets of label files.
    """
    removed = int(lists.is_concept.sum())
    lines = []
    if configuration == "zero_shot":
        lines.append(
            f"classes: {len(lists.tags):,} tags - {removed} that are concepts = "
            f"{len(lists.tags) - removed:,} seen; {len(lists.concepts)} concepts unseen"
        )
    else:
        lines.append(f"classes: the {len(lists.concepts)} concepts, all seen")
    lines.append(_photos_line(lists, found))
    lines.append(_unlabelled_line(configuration, unlabelled, shown))
    lines += _differences(configuration, lists, removed)
    lines += word_list_remarks(directory)
    cut = ", ".join(f"{name} {len(rows):,}" for name, rows in parts.items())
    lines.append(
        f"split before photos are left out: {cut} (whole data set, released code: train 129,431, "
        "val 32,358, test 107,859); after: "
        + ", ".join(f"{name} {len(split):,}" for name, split in splits.items())
    )
    repeated = sum(count - 1 for count in collections.Counter(map(photo_id, lists.photos)).values())
    if repeated:
        lines.append(f"{repeated} photos stand in the lists a second time, in another folder: kept")
    if disagreements:
        more = f" and {len(disagreements) - SHOWN} more" * (len(disagreements) > SHOWN)
        lines.append(
            f"{layout.LABELS_BY_SPLIT[0]} differs from {layout.LABELS[0]}, which is used: "
            f"{'; '.join(disagreements[:SHOWN])}{more}"
        )
    return tuple(lines)


def _photos_line(lists: layout.Lists, found: FoundPhotos) -> str:
    there = sum(path is not None for path in found.paths)
    line = f"photos: {len(lists.photos):,} listed, {there:,} there"
    missing = len(lists.photos) - there
    if missing:
        line += f", {missing:,} missing and left out"
    if found.empty:
        line += f"; {found.empty:,} empty files passed over"
    if found.placeholders:
        line += f"; {found.placeholders:,} files are Flickr's picture for a removed photo"
    if found.several:
        line += f"; of {found.several:,} there are several files"
    return line


def _unlabelled_line(configuration: str, unlabelled: str, shown: np.ndarray) -> str:
    photos = shown.shape[1]
    none = int((~shown.any(axis=0)).sum())
    if configuration == "zero_shot":
        counts = (
            f"{(~shown[0]).sum():,} of {photos:,} photos show no seen tag, "
            f"{(~shown[1]).sum():,} no concept, {none:,} neither"
        )
    else:
        counts = f"{none:,} of {photos:,} photos show no concept"
    done = {
        "keep": "kept, with every class absent",
        "unknown": "their labels are unknown, neither present nor absent",
        "drop": f"the {none:,} are left out, {photos - none:,} stay",
    }
    return f"without a label: {counts}: {done[unlabelled]} (data.unlabelled: {unlabelled})"


def _differences(configuration: str, lists: layout.Lists, removed: int) -> list[str]:
    here = {
        "photos": len(lists.photos),
        "training photos": len(lists.train),
        "test photos": len(lists.test),
        "concepts": len(lists.concepts),
    }
    if configuration == "zero_shot":
        here |= {"tags": len(lists.tags), "tags that are concepts": removed}
    found = [
        f"{count:,} {what} ({layout.DOCUMENTED[what]:,})"
        for what, count in here.items()
        if count != layout.DOCUMENTED[what]
    ]
    return [f"differs from the documentation, in brackets: {'; '.join(found)}"] * bool(found)


def word_list_remarks(directory: pathlib.Path) -> list[str]:
    """Returns a line for each list of classes that is not the one of the released code."""
    lines = []
    for places in (layout.TAGS, layout.CONCEPTS):
        path = layout.find(directory, places)
        if path is None:
            continue
        known = known_files(CHECKSUMS)[places[-1]]
        words = path.read_bytes().split()
        official_form = b"".join(word + b"\r\n" for word in words)
        if hashlib.sha256(official_form).hexdigest() != known.sha256:
            lines.append(f"{places[0]}: not the list that the released code comes with")
    return lines
