"""What was found in a data set, put into words."""

import collections
import dataclasses
from collections.abc import Sequence

from training.data.dataset import TaggingDataset
from training.description.duplicates import (
    LEAST_LIKENESS,
    Pair,
    count_by_kind,
    photos_shared_with,
)
from training.description.labels import ClassFacts, LabelFacts, SplitFacts
from training.description.photo_scan import Photo
from training.description.sections import Section

_LISTED = 30
_MOST_LABELS_SHOWN = 10


@dataclasses.dataclass(frozen=True)
class Findings:
    """Everything that is known of a data set.

    Attributes:
        dataset: the photos, classes and labels.
        labels: what the lists say.
        photos: what was found in each photo of `dataset.images`; None: they were not opened.
        pairs: photos that look alike, of those.
        radius: most bits in which the hashes of a pair differ.
        word_vectors: the file that classes were looked up in; None: none was named.
        without_vector: the classes it lacks.
    """

    dataset: TaggingDataset
    labels: LabelFacts
    photos: Sequence[Photo] | None
    pairs: Sequence[Pair]
    radius: int
    word_vectors: str | None
    without_vector: tuple[str, ...]

    @property
    def unreadable(self) -> list[tuple[str, str]]:
        """Photos that cannot be read, and why."""
        photos = zip(self.dataset.images, self.photos or (), strict=False)
        return [(image, photo.problem) for image, photo in photos if photo.problem is not None]


def sections_of(findings: Findings, plot: str | None, sheet: str | None) -> list[Section]:
    """Returns a description.

    Args:
        findings: what is described.
        plot: file name of the plot of class frequencies, where there is one.
        sheet: file name of the picture of near-duplicates, where there is one.
    """
    return [
        _splits(findings),
        _labels_per_photo(findings.labels.splits),
        _classes(findings.labels, plot),
        _leaks(findings),
        _without_positives(findings.labels),
        *([_vectors(findings)] if findings.word_vectors else []),
        *([_photos(findings), _duplicates(findings, sheet)] if findings.photos is not None else []),
    ]


def _splits(findings: Findings) -> Section:
    dataset = findings.dataset
    lines = [
        f"{len(dataset.images)} photos; {len(dataset.seen)} seen and {len(dataset.unseen)} unseen "
        "classes."
    ]
    repeated = sum(len(split) for split in dataset.splits.values()) - len(dataset.images)
    if repeated:
        lines.append(f"{repeated} photos are listed in more than one split, or twice in one.")
    rows = tuple(
        (s.name, s.photos, s.labels, s.without_label, f"{100 * s.unknown_share:.1f} %")
        for s in findings.labels.splits
    )
    header = ("split", "photos", "labels", "photos without a label", "unknown")
    return Section("Splits", tuple(lines), header, rows)


def _labels_per_photo(splits: Sequence[SplitFacts]) -> Section:
    most = max(len(s.histogram) for s in splits) - 1
    shown = min(most, _MOST_LABELS_SHOWN)
    header = ("split", "mean", "median", "90 %", "most", *map(str, range(shown + 1)))
    header += (f"more than {shown}",) * (most > shown)
    rows = []
    for s in splits:
        counts = [*s.histogram, *[0] * (shown + 1 - len(s.histogram))]
        row = (s.name, f"{s.mean:.2f}", s.quantile(0.5), s.quantile(0.9), len(s.histogram) - 1)
        row += tuple(counts[: shown + 1])
        rows.append(row + (sum(counts[shown + 1 :]),) * (most > shown))
    line = "How many photos have 0, 1, 2, … of the classes that are not ignored."
    return Section("Labels per photo", (line,), header, tuple(rows))


def _classes(labels: LabelFacts, plot: str | None) -> Section:
    ranked = sorted(labels.classes, key=lambda c: -c.total)
    shown = ranked
    note = ()
    if len(ranked) > 2 * _LISTED:
        shown = ranked[:_LISTED] + ranked[-_LISTED:]
        note = (
            f"The {_LISTED} most and the {_LISTED} least frequent of {len(ranked)} classes; all of "
            "them are in class_frequency.csv of the folder that --output names.",
        )
    rare = [c for c in ranked if c.group == "seen" and 0 < c.positives.get("train", 0) < 10]
    line = f"{len(rare)} seen classes have fewer than 10 training photos, but at least one."
    splits = tuple(s.name for s in labels.splits)
    rows = tuple(class_row(c, splits) for c in shown)
    header = ("class", "group", *splits, "all")
    return Section("Classes by frequency", (line, *note), header, rows, plot)


def class_row(facts: ClassFacts, splits: Sequence[str]) -> tuple[str | int, ...]:
    """Returns a class as a row of the table: name, group, photos by split, all photos."""
    return (facts.name, facts.group, *(facts.positives[split] for split in splits), facts.total)


def _leaks(findings: Findings) -> Section:
    title = "Unseen classes among training labels"
    leaks = findings.labels.leaks
    if not leaks:
        return Section(title, ("None: no training photo is labeled with an unseen class.",))
    unseen, train = findings.dataset.unseen, findings.dataset.split("train")
    photos = int((train.labels[:, unseen] > 0).any(axis=1).sum())
    line = (
        f"{len(leaks)} of {len(unseen)} unseen classes are labels of {photos} training photos "
        f"({100 * photos / len(train):.1f} %). Training here never looks at them, neither as "
        "positives nor as negatives; another program may."
    )
    rows = tuple((c.name, c.positives["train"]) for c in leaks[:_LISTED])
    more = (f"And {len(leaks) - _LISTED} more.",) * (len(leaks) > _LISTED)
    return Section(title, (line, *more), ("class", "training photos"), rows)


def _without_positives(labels: LabelFacts) -> Section:
    splits = [s.name for s in labels.splits]
    lines = []
    for split, group in (("train", "seen"), ("val", "seen"), ("test", "seen"), ("test", "unseen")):
        if split in splits:
            names = labels.without_positives(split, group)
            lines.append(f"{group} classes without a {split} photo: {_listed(names)}")
    return Section("Classes without positives", tuple(lines))


def _vectors(findings: Findings) -> Section:
    names = findings.without_vector
    lines = [f"Classes without an embedding in {findings.word_vectors}: {_listed(names)}"]
    if names:
        lines.append(
            "python -m training.embed_classes looks names up by a more generous rule and says what "
            "each was found by."
        )
    return Section("Word vectors", tuple(lines))


def _photos(findings: Findings) -> Section:
    readable = [photo for photo in findings.photos if photo.problem is None]
    lines = []
    if readable:
        forms = collections.Counter(photo.form for photo in readable).most_common()
        sides = sorted(min(photo.size) for photo in readable)
        lines = [
            ", ".join(f"{count} {form}" for form, count in forms)
            + f"; shorter side from {sides[0]} to {sides[-1]} pixels, half of them at most "
            f"{sides[(len(sides) - 1) // 2]}."
        ]
    broken = findings.unreadable
    if not broken:
        return Section("Photos", (*lines, "All of them can be read."))
    lines.append(f"{len(broken)} of {len(findings.photos)} photos cannot be read.")
    if len(broken) > _LISTED:
        lines.append(f"The first {_LISTED} are listed; all of them are in description.json.")
    return Section("Photos", tuple(lines), ("photo", "problem"), tuple(broken[:_LISTED]))


def _duplicates(findings: Findings, sheet: str | None) -> Section:
    title, pairs = "Near-duplicate photos", findings.pairs
    how = (
        f"Pairs whose 64-bit perceptual hashes differ in at most {findings.radius} bits and whose "
        f"coarse pictures correlate by {LEAST_LIKENESS} or more"
    )
    if not pairs:
        return Section(title, (f"{how}: none.",))
    lines = [f"{how}: {len(pairs)}. Look at them before you believe or remove them."]
    for split in ("val", "test"):
        if split in findings.dataset.splits and "train" in findings.dataset.splits:
            count = photos_shared_with(pairs, split, "train")
            share = 100 * count / len(findings.dataset.split(split))
            lines.append(
                f"{count} {split} photos ({share:.1f} %) have a near-duplicate in training."
            )
    rows = tuple(
        (kind, count["pairs"], count["same file"], count["other labels"])
        for kind, count in count_by_kind(pairs).items()
    )
    header = ("where", "pairs", "the same file", "with other labels")
    return Section(title, tuple(lines), header, rows, sheet)


def _listed(names: Sequence[str]) -> str:
    if not names:
        return "none."
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"{len(names)}: " + ", ".join(names[:_LISTED]) + more
