"""The files of a review: the list of doubted labels to correct, and the page to look through it."""

import dataclasses
import pathlib
from collections.abc import Iterable, Sequence

from biam_tf.contact_sheet import fitted
from biam_tf.csv_files import read_rows, write_rows
from biam_tf.errors import UserError
from biam_tf.files import write_text
from biam_tf.photos import Orientation, PhotoError, open_photo
from biam_tf.runs import RunPaths
from biam_tf.spreadsheets import literal_cell
from training.data.dataset import Split, TaggingDataset
from training.data.folder.corrections import ABSENT, CORRECTIONS, PRESENT
from training.data.problems import Problems
from training.label_review.doubts import Doubt
from training.report.photo_cards import data_uri
from training.tables.templates import render

HEADER = ("number", "image", "class", "label", "suggestion", "probability", "corrected")
_THUMBNAIL = 260


@dataclasses.dataclass(frozen=True)
class ReviewPaths:
    """The files of a review, in the folder `review` of a run.

    Attributes:
        run: folder of the run.
    """

    run: pathlib.Path

    @property
    def folder(self) -> pathlib.Path:
        """Folder of all of them."""
        return self.run / "review"

    @property
    def folds(self) -> pathlib.Path:
        """Folder of the out-of-fold scores."""
        return self.folder / "folds"

    @property
    def doubts(self) -> pathlib.Path:
        """The labels that are doubted, CSV."""
        return self.folder / "doubts.csv"

    @property
    def page(self) -> pathlib.Path:
        """The same with the photos, one HTML file."""
        return self.folder / "index.html"

    @property
    def annotations(self) -> pathlib.Path:
        """The corrected labels of the data set, CSV."""
        return self.folder / "annotations.csv"


@dataclasses.dataclass(frozen=True)
class ListedDoubt:
    """A row of the list.

    Attributes:
        image: the photo, by its name in the data set.
        name: of the class.
        label: "present" or "absent", as it is given.
        probability: per cent, that the photo shows the class.
        corrected: "present", "absent", "unknown", or empty: not looked at.
    """

    image: str
    name: str
    label: str
    probability: float
    corrected: str = ""

    @property
    def suggestion(self) -> str:
        """The other label."""
        return ABSENT if self.label == PRESENT else PRESENT


def listed(doubts: Iterable[Doubt], dataset: TaggingDataset, split: Split) -> list[ListedDoubt]:
    """Returns doubts by the names of photos and classes.

    Args:
        doubts: of the seen classes of the data set.
        dataset: the classes.
        split: the photos.
    """
    names = [dataset.names[c] for c in dataset.seen]
    return [
        ListedDoubt(split.images[d.row], names[d.column], d.label, 100 * d.probability)
        for d in doubts
    ]


def write_doubts(path: pathlib.Path, doubts: Sequence[ListedDoubt]) -> None:
    """Writes the list; raises as `biam_tf.files.replacing` does."""
    rows = [
        [
            number,
            own.image,
            own.name,
            own.label,
            own.suggestion,
            f"{own.probability:.1f}",
            own.corrected,
        ]
        for number, own in enumerate(doubts, start=1)
    ]
    write_rows(path, HEADER, rows)


def read_doubts(path: pathlib.Path, dataset: TaggingDataset) -> list[ListedDoubt]:
    """Reads the list of `write_doubts`, also after a spreadsheet has saved it.

    Args:
        path: the CSV file; columns may be in any order, and the others may be missing.
        dataset: its photos and classes.

    Raises:
        UserError: the file is missing, or rows are invalid; all of them are named.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; give the list that a review has written")
    problems, doubts = Problems(path.parent), []
    # As they are, which the page saves, and as `write_doubts` writes them.
    images, names = (
        {form(own): own for own in every for form in (str, literal_cell)}
        for every in (dataset.images, dataset.names)
    )

    def header_is_good(header: list[str]) -> bool:
        missing = [c for c in ("image", "class", "label", "corrected") if c not in header]
        for column in missing:
            problems.add(path.name, 1, f"no column {column!r}; the columns are {', '.join(header)}")
        return not missing

    for number, cells in read_rows(path, header_is_good, problems):
        image, name = images.get(cells["image"]), names.get(cells["class"])
        label, corrected = cells["label"].lower(), cells["corrected"].lower()
        if image is None:
            problems.add(path.name, number, f"no such photo in the data set: {cells['image']!r}")
        if name is None:
            problems.add(path.name, number, f"no such class in the data set: {cells['class']!r}")
        if label not in (PRESENT, ABSENT):
            problems.add(path.name, number, f"label {label!r}: expected {PRESENT} or {ABSENT}")
        if corrected and corrected not in CORRECTIONS:
            allowed = ", ".join(CORRECTIONS)
            problems.add(
                path.name,
                number,
                f"corrected {cells['corrected']!r}: write one of {allowed}, or leave it empty",
            )
        if image is not None and name is not None:
            probability = _number(cells.get("probability", ""))
            doubts.append(ListedDoubt(image, name, label, probability, corrected))
    problems.raise_if_any()
    return doubts


def _number(text: str) -> float:
    """A number as a spreadsheet may have saved it; NaN of anything else."""
    try:
        return float(text.replace(",", ".").removesuffix("%"))
    except ValueError:
        return float("nan")


def write_page(
    path: pathlib.Path,
    doubts: Sequence[ListedDoubt],
    dataset: TaggingDataset,
    apply_command: str,
    orientation: Orientation,
) -> None:
    """Writes the page to look through the doubts, one HTML file that needs no other.

    Args:
        path: of the file.
        doubts: most doubted first.
        dataset: their photos and labels.
        apply_command: the command that takes the file that the page saves.
        orientation: whether photos are turned upright as EXIF data say.
    """
    split = dataset.split("train")
    rows = {image: row for row, image in enumerate(split.images)}
    cards = []
    for own in doubts:
        present = split.labels[rows[own.image]] > 0
        labels = [name for name, shown in zip(dataset.names, present, strict=True) if shown]
        cards.append({"doubt": own, "labels": labels, **thumbnail(own, dataset, orientation)})
    values = {
        "title": f"{path.parent.parent.resolve().name}: labels to check",
        "cards": cards,
        "names": sorted({own.name for own in doubts}),
        "header": HEADER,
        "apply_command": apply_command,
        "directory": str(dataset.directory),
    }
    write_text(path, render("training.label_review", "page.html", values))


def thumbnail(
    doubt: ListedDoubt, dataset: TaggingDataset, orientation: Orientation
) -> dict[str, object]:
    """Returns a small picture of a doubt's photo: its data URI, width and height."""
    try:
        photo = open_photo(dataset.photo_path(doubt.image), orientation=orientation).image
    except PhotoError:  # features may be stored of photos that are gone
        return {"source": "", "width": 0, "height": 0}
    small = fitted(photo, _THUMBNAIL)
    return {"source": data_uri(small), "width": small.width, "height": small.height}


def top_doubts(run: RunPaths, dataset: TaggingDataset, count: int) -> list[ListedDoubt]:
    """Returns the first doubts of a run's review that nobody has looked at; none without one."""
    path = ReviewPaths(run.path).doubts
    if not path.exists():
        return []
    return [own for own in read_doubts(path, dataset) if not own.corrected][:count]
