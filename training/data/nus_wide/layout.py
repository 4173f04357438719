"""The official files of NUS-WIDE: their paths, lists and documented sizes.

    ConceptsList/Concepts81.txt              the 81 concepts, one per line
    Groundtruth/AllLabels/Labels_sky.txt     a 0 or 1 for each photo; one file per concept
    Groundtruth/TrainTestLabels/…            the same by split: Labels_sky_Train.txt
    ImageList/Imagelist.txt                  all photos, as actor\\0001_2124494179.jpg
    ImageList/TrainImagelist.txt, TestImagelist.txt
    NUS_WID_Tags/TagList1k.txt               the 1,000 tags, one per line
    NUS_WID_Tags/AllTags1k.txt               1,000 zeros and ones for each photo

Rows of the label files are in the order of Imagelist.txt. Letter case and the outer folder may
differ, as they do between copies. TrainTestLabels is only compared with AllLabels: it has a known
wrong value (Labels_lake_Train.txt row 78,372 is -1130179).
"""

import dataclasses
import os
import pathlib

import numpy as np

from training.data.problems import Problems

CONCEPTS = ("ConceptsList/Concepts81.txt", "Concepts81.txt")
TAGS = ("NUS_WID_Tags/TagList1k.txt", "TagList1k.txt")
PHOTOS = ("ImageList/Imagelist.txt", "Imagelist.txt")
TRAIN = ("ImageList/TrainImagelist.txt", "TrainImagelist.txt")
TEST = ("ImageList/TestImagelist.txt", "TestImagelist.txt")
TAG_MATRIX = ("NUS_WID_Tags/AllTags1k.txt", "AllTags1k.txt")
LABELS = ("Groundtruth/AllLabels", "AllLabels")
LABELS_BY_SPLIT = ("Groundtruth/TrainTestLabels", "TrainTestLabels")

# Sizes of the whole data set according to its page, its paper and the released code.
DOCUMENTED = {
    "photos": 269_648,
    "training photos": 161_789,
    "test photos": 107_859,
    "tags": 1_000,
    "concepts": 81,
    "tags that are concepts": 75,
}
# The released code trains on the first 80 % of the training photos and validates on the rest;
# its published log shows 129,431 training photos. The paper does not give the split.
TRAINED_SHARE = 0.8


@dataclasses.dataclass(frozen=True)
class Lists:
    """The lists of NUS-WIDE.

    Attributes:
        photos: `folder/name` of each photo, in the order of the label files' rows.
        train: indices into `photos`, in the order of TrainImagelist.txt.
        test: the same for TestImagelist.txt.
        concepts: names of the concepts.
        tags: names of the tags; empty if they were not read.
    """

    photos: tuple[str, ...]
    train: np.ndarray
    test: np.ndarray
    concepts: tuple[str, ...]
    tags: tuple[str, ...]

    @property
    def is_concept(self) -> np.ndarray:
        """(tags,) bool: the tag is spelled exactly like a concept, so it is not a seen class."""
        return np.isin(self.tags, self.concepts)


def find(directory: pathlib.Path, places: tuple[str, ...]) -> pathlib.Path | None:
    """Returns the first of several relative paths that exists, ignoring letter case."""
    for place in places:
        found: pathlib.Path | None = directory
        for part in place.split("/"):
            if found is None or not found.is_dir():
                found = None
                break
            found = _child(found, part)
        if found is not None:
            return found
    return None


def _child(folder: pathlib.Path, name: str) -> pathlib.Path | None:
    exact = folder / name
    if exact.exists():
        return exact
    spelt = [entry.name for entry in os.scandir(folder) if entry.name.lower() == name.lower()]
    return folder / min(spelt) if spelt else None


def require(
    directory: pathlib.Path, places: tuple[str, ...], problems: Problems
) -> pathlib.Path | None:
    """Returns the path of an official file, or reports a problem if it is missing."""
    found = find(directory, places)
    if found is None:
        archive = places[0].split("/")[0]
        problems.add(places[0], None, f"not found; it is part of {archive}.zip")
    return found


def label_file(folder: pathlib.Path, concept: str, split: str = "") -> pathlib.Path:
    """Returns the path of a concept's label file."""
    return folder / f"Labels_{concept}{split}.txt"


def read_lists(directory: pathlib.Path, with_tags: bool, problems: Problems) -> Lists:
    """Reads the lists and raises their problems.

    Args:
        directory: folder of the unpacked archives.
        with_tags: whether to read the 1,000 tags.
        problems: collects the problems of the data set.

    Raises:
        UserError: a file is missing, a row is empty or repeated, or the training and test lists
            do not make up the list of all photos.
    """
    wanted = [PHOTOS, TRAIN, TEST, CONCEPTS] + [TAGS] * with_tags
    found = {places: require(directory, places, problems) for places in wanted}
    problems.raise_if_any()
    paths = {places: path for places, path in found.items() if path is not None}
    lines = {places: _read_lines(path, directory, problems) for places, path in paths.items()}
    photos = [normal_name(line) for line in lines[PHOTOS]]
    shown = {places: str(path.relative_to(directory)) for places, path in paths.items()}
    for places, values in ((PHOTOS, photos), (CONCEPTS, lines[CONCEPTS]), (TAGS, lines.get(TAGS))):
        _report_repeated(values or (), shown.get(places, ""), problems)
    problems.raise_if_any()
    positions = {name: row for row, name in enumerate(photos)}
    taken = np.zeros(len(photos), np.uint8)
    parts = []
    for places in (TRAIN, TEST):
        rows = []
        for number, line in enumerate(lines[places], start=1):
            row = positions.get(normal_name(line))
            if row is None:
                text = f"photo {line!r} is not in {shown[PHOTOS]}"
                problems.add(shown[places], number, text)
            elif taken[row]:
                text = f"photo {line!r} is listed twice"
                problems.add(shown[places], number, text)
            else:
                taken[row] = 1
                rows.append(row)
        parts.append(np.array(rows, np.intp))
    left = np.flatnonzero(taken == 0)
    if len(left):
        text = (
            f"{len(left)} photos of {shown[PHOTOS]} are neither here nor in {shown[TEST]}, first "
            f"{photos[left[0]]!r} in row {left[0] + 1}: is a list truncated?"
        )
        problems.add(shown[TRAIN], len(lines[TRAIN]) + 1, text)
    problems.raise_if_any()
    train, test = parts
    tags = tuple(lines.get(TAGS, ()))
    return Lists(tuple(photos), train, test, tuple(lines[CONCEPTS]), tags)


def normal_name(line: str) -> str:
    r"""Returns `actor/0001_2124494179.jpg` for `C:\any\actor\0001_2124494179.jpg`."""
    return "/".join(line.replace("\\", "/").split("/")[-2:])


def _read_lines(path: pathlib.Path, directory: pathlib.Path, problems: Problems) -> list[str]:
    # surrogateescape: file names that are not UTF-8 survive until the files are opened.
    text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    lines = [line.strip() for line in text.splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    shown = str(path.relative_to(directory))
    if not lines:
        problems.add(shown, None, "the file is empty")
    for number, line in enumerate(lines, start=1):
        if not line:
            problems.add(shown, number, "empty row")
    return lines


def _report_repeated(values, shown: str, problems: Problems) -> None:
    first: dict[str, int] = {}
    for number, value in enumerate(values, start=1):
        if first.setdefault(value, number) != number:
            text = f"{value!r} is already in row {first[value]}"
            problems.add(shown, number, text)
