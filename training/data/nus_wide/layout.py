"""The official files of NUS-WIDE: where they lie, what they list, and what they should hold.

    ConceptsList/Concepts81.txt              the 81 concepts, one a line
    Groundtruth/AllLabels/Labels_sky.txt     a 0 or 1 for each photo; one file a concept
    Groundtruth/TrainTestLabels/…            the same, cut by split: Labels_sky_Train.txt
    ImageList/Imagelist.txt                  all photos, as actor\\0001_2124494179.jpg
    ImageList/TrainImagelist.txt, TestImagelist.txt
    NUS_WID_Tags/TagList1k.txt               the 1,000 tags, one a line
    NUS_WID_Tags/AllTags1k.txt               1,000 zeros and ones for each photo

Rows of the label files are those of Imagelist.txt. Upper and lower case and the outer folder may
differ, as they do between copies. TrainTestLabels is compared, but not read: it has a known
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

# What the data set's page, its paper and the released code say of the whole data set.
DOCUMENTED = {
    "photos": 269_648,
    "training photos": 161_789,
    "test photos": 107_859,
    "tags": 1_000,
    "concepts": 81,
    "tags that are concepts": 75,
}
# The released code trains on the first 80 % of the training photos and validates on the others;
# 129,431 is the number its published log shows. The paper does not say.
TRAINED_SHARE = 0.8


@dataclasses.dataclass(frozen=True)
class Lists:
    """The lists of NUS-WIDE.

    Attributes:
        photos: `folder/name` of each, in the order of the label files' rows.
        train: positions in `photos`, in the order of TrainImagelist.txt.
        test: likewise.
        concepts: names.
        tags: names; empty where they were not asked for.
    """

    photos: tuple[str, ...]
    train: np.ndarray
    test: np.ndarray
    concepts: tuple[str, ...]
    tags: tuple[str, ...]

    @property
    def is_concept(self) -> np.ndarray:
        """Which tags coincide with a concept, letter for letter: they are not seen classes."""
        return np.isin(self.tags, self.concepts)


def find(directory: pathlib.Path, places: tuple[str, ...]) -> pathlib.Path | None:
    """Returns the first of some relative paths that exists, whatever its upper and lower case."""
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
    """Returns where an official file lies; notes a problem where it is not."""
    found = find(directory, places)
    if found is None:
        archive = places[0].split("/")[0]
        problems.add(places[0], None, f"not there; it comes with the archive {archive}.zip")
    return found


def label_file(folder: pathlib.Path, concept: str, split: str = "") -> pathlib.Path:
    """Returns the file of a concept's labels."""
    return folder / f"Labels_{concept}{split}.txt"


def read_lists(directory: pathlib.Path, with_tags: bool, problems: Problems) -> Lists:
    """Reads the lists; what is wrong with them is raised here.

    Args:
        directory: holds the unpacked archives.
        with_tags: whether the 1,000 tags are needed.
        problems: of the data set.

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
        _note_repeated(values or (), shown.get(places, ""), problems)
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
                text = f"photo {line!r} stands in a list for the second time"
                problems.add(shown[places], number, text)
            else:
                taken[row] = 1
                rows.append(row)
        parts.append(np.array(rows, np.intp))
    left = np.flatnonzero(taken == 0)
    if len(left):
        text = (
            f"{len(left)} photos of {shown[PHOTOS]} are neither here nor in {shown[TEST]}, the "
            f"first of them {photos[left[0]]!r} in row {left[0] + 1}: is a list cut short?"
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
    # Names of files are bytes: whatever is not UTF-8 comes back as it was when they are opened.
    text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    lines = [line.strip() for line in text.splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    shown = str(path.relative_to(directory))
    if not lines:
        problems.add(shown, None, "lists nothing")
    for number, line in enumerate(lines, start=1):
        if not line:
            problems.add(shown, number, "an empty row")
    return lines


def _note_repeated(values, shown: str, problems: Problems) -> None:
    first: dict[str, int] = {}
    for number, value in enumerate(values, start=1):
        if first.setdefault(value, number) != number:
            text = f"{value!r} stands in row {first[value]} already"
            problems.add(shown, number, text)
