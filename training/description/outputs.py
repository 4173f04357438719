"""The folder that a description is written to: texts, tables, a plot and a sheet of photos."""

import base64
import dataclasses
import pathlib
from collections.abc import Sequence

from markupsafe import Markup
from PIL import Image, ImageDraw

from biam_tf.files import replacing, write_json, write_text
from biam_tf.photos import open_photo
from training.description.duplicates import Pair, count_by_splits, pair_table
from training.description.labels import LabelFacts
from training.description.sections import (
    Findings,
    Section,
    class_table,
    count_by_format,
    sections_of,
    to_markdown,
)
from training.tables.plots import COLORS, can_plot, new_figure, save_figure
from training.tables.templates import render

PLOT, SHEET = "class_frequency.png", "duplicates.png"
PAIRS_ON_SHEET = 40
# Classes of a plot that are named; of more, the names would overlap or fill pages.
MOST_NAMED, _LONGEST_NAME = 80, 40
_SIDE, _MARGIN, _TEXT, _COLUMNS = 150, 10, 32, 4


def write_description(findings: Findings, title: str, folder: pathlib.Path) -> list[pathlib.Path]:
    """Writes a description as Markdown, JSON and HTML, with its tables and pictures.

    Args:
        findings: what was found.
        title: of the description.
        folder: created if missing; files of an earlier description are replaced.

    Returns:
        The files.

    Raises:
        UserError: the folder cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = ["description.md", "description.json", "description.html", "class_frequency.csv"]
    plot = sheet = None
    if can_plot(folder / PLOT):
        plot_class_frequency(findings.labels, folder / PLOT)
        written.append(plot := PLOT)
    if findings.photos is not None:
        write_text(folder / "duplicates.csv", pair_table(findings.pairs).csv())
        written.append("duplicates.csv")
    if findings.pairs:
        draw_pairs(findings.dataset.directory, findings.pairs, folder / SHEET)
        written.append(sheet := SHEET)
    frequencies = class_table(findings.labels, findings.labels.by_frequency)
    write_text(folder / "class_frequency.csv", frequencies.csv())
    sections = sections_of(findings, plot, sheet)
    write_text(folder / "description.md", to_markdown(title, sections))
    write_text(folder / "description.html", to_html(title, sections, folder))
    write_json(folder / "description.json", as_json(findings))
    return [folder / name for name in written]


def as_json(findings: Findings) -> dict:
    """Returns what was found as plain values."""
    labels = findings.labels
    values: dict[str, object] = {
        "directory": str(findings.dataset.directory),
        "fingerprint": findings.dataset.fingerprint,
        "splits": [dataclasses.asdict(split) | {"mean": split.mean} for split in labels.splits],
        "classes": [dataclasses.asdict(c) for c in labels.classes],
        "unseen_classes_in_training_labels": [c.name for c in labels.leaks],
    }
    values["unseen_classes_like_seen_ones"] = [dataclasses.asdict(t) for t in findings.twins]
    if findings.word_vectors is not None:
        values["word_vectors"] = findings.word_vectors
        values["classes_without_vector"] = list(findings.without_vector)
    if findings.photos is not None:
        values["unreadable_photos"] = [
            {"image": image, "problem": problem} for image, problem in findings.unreadable
        ]
        values["formats"] = count_by_format(findings.photos)
        counts = {where: dict(count) for where, count in count_by_splits(findings.pairs).items()}
        values["near_duplicates"] = {"radius": findings.radius, "by_splits": counts}
    return values


def to_html(title: str, sections: Sequence[Section], folder: pathlib.Path) -> Markup:
    """Returns a description as one HTML page that needs no other file.

    Args:
        title: of the page.
        sections: its parts.
        folder: where the sections' pictures are.
    """
    pictures = {
        section.picture: base64.b64encode((folder / section.picture).read_bytes()).decode()
        for section in sections
        if section.picture
    }
    values = {"title": title, "sections": sections, "pictures": pictures}
    return render("training.description", "page.html", values)


def plot_class_frequency(labels: LabelFacts, path: pathlib.Path) -> None:
    """Draws how many photos show each class, most frequent first, on a logarithmic scale.

    Up to `MOST_NAMED` classes are named, one below the other.
    """
    ranked = labels.by_frequency
    named = len(ranked) <= MOST_NAMED
    figure, axes = new_figure(8.0, 1.2 + 0.24 * len(ranked)) if named else new_figure(9.0, 4.5)
    for group, color in zip(("seen", "unseen"), COLORS, strict=False):
        ranks = [rank for rank, c in enumerate(ranked) if c.group == group]
        counts = [ranked[rank].total for rank in ranks]
        if not ranks:
            continue
        label = f"{group} ({len(ranks)})"
        if named:
            bars = axes.barh(ranks, counts, height=0.8, color=color, label=label)
            axes.bar_label(bars, labels=[f"{count:,}" for count in counts], padding=3, fontsize=8)
        else:
            axes.bar(ranks, counts, width=1.0, color=color, label=label)
    number, order = "photos, all splits", "classes, most frequent first"
    if named:
        # A name is text: "$" begins no formula.
        names = [_shortened(c.name).replace("$", r"\$") for c in ranked]
        axes.set_yticks(range(len(ranked)), names, fontsize=9)
        axes.set_ylim(len(ranked) - 0.4, -0.6)
        axes.set_xscale("symlog", linthresh=1)
        axes.margins(x=0.12)
        axes.set_xlabel(number)
        axes.grid(axis="y", alpha=0)
    else:
        axes.set_yscale("symlog", linthresh=1)
        axes.set_xlabel(order)
        axes.set_ylabel(number)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False)
    save_figure(figure, path)


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


def draw_pairs(directory: pathlib.Path, pairs: Sequence[Pair], path: pathlib.Path) -> None:
    """Draws the first pairs side by side, with their splits, names and distance, as PNG."""
    pairs = pairs[:PAIRS_ON_SHEET]
    columns = min(_COLUMNS, len(pairs))
    width, height = 2 * _SIDE + 3 * _MARGIN, _SIDE + _TEXT + 2 * _MARGIN
    rows = -(-len(pairs) // columns)
    sheet = Image.new("RGB", (columns * width, rows * height), "white")
    draw = ImageDraw.Draw(sheet)
    for index, pair in enumerate(pairs):
        left, top = index % columns * width + _MARGIN, index // columns * height + _MARGIN
        for side, image in enumerate(pair.images):
            small = open_photo(directory / image).image
            small.thumbnail((_SIDE, _SIDE))
            corner = left + side * (_SIDE + _MARGIN)
            sheet.paste(small, (corner, top))
            text = f"{pair.splits[side]}: {pathlib.PurePosixPath(image).name}"
            draw.text((corner, top + _SIDE + 2), text[:26], fill="black")
        apart = "same file" if pair.same_file else f"{pair.distance} bits apart"
        draw.text((left, top + _SIDE + 16), apart, fill="#b03020" if pair.crosses else "#555555")
    with replacing(path) as partial:
        sheet.save(partial, "PNG")
