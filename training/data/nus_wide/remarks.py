"""Remarks on NUS-WIDE as it is read: counts, rules, differences from the documentation."""

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
    """Returns the remarks, one line each.

    Args:
        directory: folder of the data set.
        configuration: `zero_shot` or `standard_81`.
        unlabelled: treatment of photos without a label.
        lists: the official lists.
        parts: rows of each split, including missing photos.
        found: the photo files.
        shown: (groups, N) bool; whether a photo shows a class of the group, without missing
            photos.
        splits: the splits of the data set.
        disagreements: differences between the two sets of label files.
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
        f"splits before photos are left out: {cut} (whole data set, released code: train 129,431, "
        "val 32,358, test 107,859); after: "
        + ", ".join(f"{name} {len(split):,}" for name, split in splits.items())
    )
    repeated = sum(count - 1 for count in collections.Counter(map(photo_id, lists.photos)).values())
    if repeated:
        lines.append(f"{repeated} photos are listed twice, in different folders: kept")
    if disagreements:
        more = f" and {len(disagreements) - SHOWN} more" * (len(disagreements) > SHOWN)
        lines.append(
            f"{layout.LABELS_BY_SPLIT[0]} differs from {layout.LABELS[0]} (used): "
            f"{'; '.join(disagreements[:SHOWN])}{more}"
        )
    return tuple(lines)


def _photos_line(lists: layout.Lists, found: FoundPhotos) -> str:
    present = sum(path is not None for path in found.paths)
    line = f"photos: {len(lists.photos):,} listed, {present:,} found"
    missing = len(lists.photos) - present
    if missing:
        line += f", {missing:,} missing and left out"
    if found.empty:
        line += f"; {found.empty:,} empty files skipped"
    if found.placeholders:
        line += f"; {found.placeholders:,} files are Flickr's placeholder for a removed photo"
    if found.several:
        line += f"; {found.several:,} photos have several files"
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
        "drop": f"the {none:,} are left out, {photos - none:,} remain",
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
        f"{count:,} {item} ({layout.DOCUMENTED[item]:,})"
        for item, count in here.items()
        if count != layout.DOCUMENTED[item]
    ]
    return [f"differs from the documentation, in brackets: {'; '.join(found)}"] * bool(found)


def word_list_remarks(directory: pathlib.Path) -> list[str]:
    """Returns a line for each class list that differs from the released code's."""
    lines = []
    for places in (layout.TAGS, layout.CONCEPTS):
        path = layout.find(directory, places)
        if path is None:
            continue
        known = known_files(CHECKSUMS)[places[-1]]
        words = path.read_bytes().split()
        official_form = b"".join(word + b"\r\n" for word in words)
        if hashlib.sha256(official_form).hexdigest() != known.sha256:
            lines.append(f"{places[0]}: differs from the list of the released code")
    return lines
