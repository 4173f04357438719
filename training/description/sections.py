"""The description of a data set as sections of sentences and tables."""

import collections
import dataclasses
from collections.abc import Sequence

from biam_tf.embeddings.sources import encodes_sentences, vocabulary_of
from biam_tf.embeddings.twins import Twins, find_twins
from biam_tf.markdown import escaped
from biam_tf.progress import progress
from biam_tf.vocabulary import names_without_embedding
from training.data.dataset import TaggingDataset
from training.description.duplicates import (
    MIN_SIMILARITY,
    Pair,
    count_by_splits,
    find_pairs,
    photos_shared_with,
)
from training.description.labels import ClassFacts, LabelFacts, SplitFacts, describe_labels
from training.description.photo_scan import Photo, scan_photos
from training.tables.table import Cell, Table

_LISTED = 30
_MAX_LABELS_SHOWN = 10


@dataclasses.dataclass(frozen=True)
class Findings:
    """What was found in a data set.

    Attributes:
        dataset: the photos, classes and labels.
        labels: counts of the labels.
        photos: what was found in each photo of `dataset.images`; None: they were not opened.
        pairs: those of the photos that look the same.
        radius: largest number of bits in which the hashes of a pair differ; None: as `photos`.
        word_vectors: the file in which classes were looked up; None: none was given.
        without_vector: the classes that are not in it.
        twins: unseen classes that are hardly other classes than seen ones.
    """

    dataset: TaggingDataset
    labels: LabelFacts
    photos: Sequence[Photo] | None
    pairs: Sequence[Pair]
    radius: int | None
    word_vectors: str | None
    without_vector: tuple[str, ...]
    twins: tuple[Twins, ...] = ()

    @property
    def unreadable(self) -> list[tuple[str, str]]:
        """Photos that cannot be read, each with the reason."""
        photos = zip(self.dataset.images, self.photos or (), strict=False)
        return [(image, photo.problem) for image, photo in photos if photo.problem is not None]


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of a description.

    Attributes:
        title: its heading.
        lines: sentences, a paragraph each.
        table: below the sentences; None: no table.
        picture: the file name of a picture beside the page; None: no picture.
    """

    title: str
    lines: Sequence[str] = ()
    table: Table | None = None
    picture: str | None = None


def to_markdown(title: str, sections: Sequence[Section], escapes: bool = True) -> str:
    """Returns a description as Markdown.

    Args:
        title: its heading.
        sections: its parts.
        escapes: whether names that hold signs of Markdown are escaped; in a terminal, which shows
            the text as it is, they are not.
    """
    shown = escaped if escapes else str
    parts = [f"# {shown(title)}"]
    for section in sections:
        parts.append(f"## {section.title}")
        parts += [shown(line) for line in section.lines]
        if section.table:
            parts.append(section.table.markdown(padded=True, escapes=escapes).rstrip())
        if section.picture:
            parts.append(f"![{section.title}]({section.picture})")
    return "\n\n".join(parts) + "\n"


def describe(dataset: TaggingDataset, word_vectors: str | None, radius: int | None) -> Findings:
    """Examines a data set.

    Args:
        dataset: photos, classes and labels.
        word_vectors: a file in which the classes are looked up; None: they are not.
        radius: largest number of bits in which the hashes of near-duplicates differ; None leaves
            the photos unopened.

    Raises:
        UserError: the word vectors cannot be read.
    """
    photos, pairs = None, []
    if radius is not None:
        with progress(len(dataset.images), "Opening photos", "photo") as bar:
            photos = scan_photos(dataset.directory, dataset.images, bar.update)
        pairs = find_pairs(dataset, dataset.images, photos, radius)
    without_vector: tuple[str, ...] = ()
    if word_vectors:
        without_vector = ()
        if not encodes_sentences(word_vectors):  # an encoder reads any name
            without_vector = names_without_embedding(word_vectors, dataset.names)
    return Findings(
        dataset=dataset,
        labels=describe_labels(dataset),
        photos=photos,
        pairs=pairs,
        radius=radius,
        word_vectors=word_vectors,
        without_vector=without_vector,
        twins=tuple(_find_twins(dataset, word_vectors, without_vector)),
    )


def _find_twins(
    dataset: TaggingDataset, word_vectors: str | None, without_vector: Sequence[str]
) -> list[Twins]:
    """Compares names, and the embeddings of those that have one if there is a file of them."""
    unseen, seen = ([dataset.names[c] for c in own] for own in (dataset.unseen, dataset.seen))
    named = find_twins(unseen, seen)
    if word_vectors is None:
        return named
    unseen, seen = ([n for n in names if n not in without_vector] for names in (unseen, seen))
    if not unseen or not seen:
        return named
    rows = vocabulary_of(word_vectors, [*unseen, *seen]).embeddings
    embedded = find_twins(unseen, seen, rows[: len(unseen)], rows[len(unseen) :])
    return list({(t.unseen, t.seen): t for t in [*named, *embedded]}.values())


def sections_of(findings: Findings, plot: str | None, sheet: str | None) -> list[Section]:
    """Returns a description.

    Args:
        findings: what is described.
        plot: file name of the plot of class frequencies; None: there is none.
        sheet: file name of the picture of near-duplicates; None: there is none.
    """
    return [
        _splits(findings),
        _labels_per_photo(findings.labels.splits),
        _classes(findings.labels, plot),
        _leaks(findings),
        _without_positives(findings.labels),
        *_twins(findings.twins),
        *([_vectors(findings)] if findings.word_vectors else []),
        *_photo_sections(findings, sheet),
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
    rows = [
        (s.name, s.photos, s.labels, s.without_label, f"{100 * s.unknown_share:.1f} %")
        for s in findings.labels.splits
    ]
    header = ("split", "photos", "labels", "photos without a label", "unknown")
    return Section("Splits", lines, Table("", header, rows))


def _labels_per_photo(splits: Sequence[SplitFacts]) -> Section:
    most = max(len(s.histogram) for s in splits) - 1
    shown = min(most, _MAX_LABELS_SHOWN)
    header = ["split", "mean", "median", "90 %", "most", *map(str, range(shown + 1))]
    header += [f"more than {shown}"] * (most > shown)
    rows = []
    for s in splits:
        counts = [*s.histogram, *[0] * (shown + 1 - len(s.histogram))]
        row: list[Cell] = [s.name, f"{s.mean:.2f}", s.quantile(0.5), s.quantile(0.9)]
        row += [len(s.histogram) - 1, *counts[: shown + 1]]
        rows.append(row + [sum(counts[shown + 1 :])] * (most > shown))
    line = "How many photos have 0, 1, 2, … of the classes that are not ignored."
    return Section("Labels per photo", [line], Table("", header, rows))


def _classes(labels: LabelFacts, plot: str | None) -> Section:
    ranked = shown = labels.by_frequency
    rare = [c for c in ranked if c.group == "seen" and 0 < c.positives.get("train", 0) < 10]
    lines = [f"{len(rare)} seen classes have from 1 to 9 training photos."]
    if len(ranked) > 2 * _LISTED:
        shown = ranked[:_LISTED] + ranked[-_LISTED:]
        lines.append(
            f"The {_LISTED} most and the {_LISTED} least frequent of {len(ranked)} classes; "
            "class_frequency.csv in the folder of --output has all of them."
        )
    return Section("Classes by frequency", lines, class_table(labels, shown), plot)


def class_table(labels: LabelFacts, classes: Sequence[ClassFacts]) -> Table:
    """Returns some classes with their group and number of photos, by split and in all."""
    splits = [s.name for s in labels.splits]
    rows: list[list[Cell]] = [
        [c.name, c.group, *(c.positives[split] for split in splits), c.total] for c in classes
    ]
    return Table("", ("class", "group", *splits, "all"), rows)


def _leaks(findings: Findings) -> Section:
    title = "Unseen classes among training labels"
    leaks = findings.labels.leaks
    if not leaks:
        return Section(title, ["None: no training photo is labeled with an unseen class."])
    unseen, train = findings.dataset.unseen, findings.dataset.split("train")
    photos = int((train.labels.columns(unseen).count(1, axis=1) > 0).sum())
    lines = [
        f"{len(leaks)} of {len(unseen)} unseen classes are labels of {photos} training photos "
        f"({100 * photos / len(train):.1f} %). Training here never uses them, neither as positives "
        "nor as negatives; another program may."
    ]
    if len(leaks) > _LISTED:
        lines.append(f"The {_LISTED} most frequent are listed.")
    rows = [(c.name, c.positives["train"]) for c in leaks[:_LISTED]]
    return Section(title, lines, Table("", ("class", "training photos"), rows))


def _without_positives(labels: LabelFacts) -> Section:
    splits = [s.name for s in labels.splits]
    lines = []
    for split, group in (("train", "seen"), ("val", "seen"), ("test", "seen"), ("test", "unseen")):
        if split in splits:
            names = labels.without_positives(split, group)
            lines.append(f"{group} classes without a {split} photo: {_listed(names)}")
    return Section("Classes without positives", lines)


def _twins(twins: Sequence[Twins]) -> list[Section]:
    if not twins:
        return []
    lines = [
        f"{len(twins)} pairs of an unseen and a seen class that are hardly different. Such a class "
        "is trained under another name, which makes ZSL figures too good: merge the two, or make "
        "one of them ignored."
    ]
    if len(twins) > _LISTED:
        lines.append(f"The first {_LISTED} are listed; description.json has all of them.")
    rows = [(t.unseen, t.seen, t.why) for t in twins[:_LISTED]]
    table = Table("", ("unseen", "seen", "what they have in common"), rows)
    return [Section("Unseen classes like seen ones", lines, table)]


def _vectors(findings: Findings) -> Section:
    names = findings.without_vector
    lines = [f"Classes without an embedding in {findings.word_vectors}: {_listed(names)}"]
    if names:
        lines.append(
            "python -m training.embed_classes shows how each name is looked up and what is nearest."
        )
    return Section("Word vectors", lines)


def describe_unreadable(findings: Findings) -> str:
    """Returns a sentence on the photos that cannot be read."""
    unreadable = findings.unreadable
    backslashes = sum("\\" in image for image, _ in unreadable)
    hint = ""
    if backslashes:
        hint = f" The paths of {backslashes} of them have a backslash; write / instead."
    return f"{len(unreadable)} of {len(findings.dataset.images)} photos cannot be read.{hint}"


def _photo_sections(findings: Findings, sheet: str | None) -> list[Section]:
    if findings.photos is None:
        return []
    return [*_photos(findings, findings.photos), _duplicates(findings, sheet)]


def _photos(findings: Findings, photos: Sequence[Photo]) -> list[Section]:
    unreadable = findings.unreadable
    readable = [photo for photo in photos if photo.problem is None]
    lines = []
    sections, table = [], None
    if readable:
        sides = sorted(min(photo.size) for photo in readable)
        turned = sum(photo.is_turned for photo in readable)
        transparent = sum(photo.is_transparent for photo in readable)
        lines = [
            f"Shorter side from {sides[0]} to {sides[-1]} pixels, median "
            f"{sides[(len(sides) - 1) // 2]}.",
            f"{turned} photos have a camera's orientation, by which they are turned upright "
            "(backbone.orientation).",
            f"{transparent} photos have transparent parts, which are blended over white.",
        ]
        header = ("format", "photos", "with orientation", "with transparency")
        rows: list[list[Cell]] = [
            [form, *counts.values()] for form, counts in count_by_format(photos).items()
        ]
        table = Table("", header, rows)
    if not unreadable:
        return [Section("Photos", [*lines, "All of them can be read."], table)]
    sections.append(Section("Photos", lines, table))
    lines = [describe_unreadable(findings)]
    if len(unreadable) > _LISTED:
        lines.append(f"The first {_LISTED} are listed; description.json has all of them.")
    problems = Table("", ("photo", "problem"), unreadable[:_LISTED])
    return [*sections, Section("Photos that cannot be read", lines, problems)]


def count_by_format(photos: Sequence[Photo]) -> dict[str, dict[str, int]]:
    """Returns the number of readable photos of each format, most frequent first.

    Returns:
        `{"JPEG": {"photos", "with_orientation", "with_transparency"}, ...}`.
    """
    readable = [photo for photo in photos if photo.problem is None]
    counts = {}
    for form, count in collections.Counter(photo.form for photo in readable).most_common():
        own = [photo for photo in readable if photo.form == form]
        counts[form] = {
            "photos": count,
            "with_orientation": sum(photo.is_turned for photo in own),
            "with_transparency": sum(photo.is_transparent for photo in own),
        }
    return counts


def _duplicates(findings: Findings, sheet: str | None) -> Section:
    title, pairs = "Near-duplicate photos", findings.pairs
    how = (
        f"Pairs whose 64-bit perceptual hashes differ in at most {findings.radius} bits and whose "
        f"coarse pictures have a correlation of {MIN_SIMILARITY} or more"
    )
    if not pairs:
        return Section(title, [f"{how}: none."])
    lines = [f"{how}: {len(pairs)}. Look at them before you remove any."]
    for split in ("val", "test"):
        if split in findings.dataset.splits and "train" in findings.dataset.splits:
            count = photos_shared_with(pairs, split, "train")
            share = 100 * count / len(findings.dataset.split(split))
            lines.append(
                f"{count} {split} photos ({share:.1f} %) have a near-duplicate in training."
            )
    rows = [
        (splits, count["pairs"], count["same file"], count["other labels"])
        for splits, count in count_by_splits(pairs).items()
    ]
    header = ("splits", "pairs", "same file", "different labels")
    return Section(title, lines, Table("", header, rows), sheet)


def _listed(names: Sequence[str]) -> str:
    if not names:
        return "none."
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"{len(names)}: " + ", ".join(names[:_LISTED]) + more
