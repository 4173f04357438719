"""The folder that a description is written to."""

import dataclasses
import pathlib

from biam_tf.files import write_json, write_text
from training.description.duplicates import count_by_kind, to_csv
from training.description.pictures import draw_pairs, plot_class_frequency
from training.description.sections import to_html, to_markdown
from training.description.text import Findings, class_row, sections_of
from training.tables.csv_files import csv_text
from training.tables.plots import can_plot

PLOT, SHEET = "class_frequency.png", "duplicates.png"


def write_description(findings: Findings, title: str, folder: pathlib.Path) -> list[pathlib.Path]:
    """Writes a description as Markdown, JSON and HTML, with its tables and pictures.

    Args:
        findings: what was found.
        title: of the description.
        folder: made where it does not exist; files of an earlier description are replaced.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "description.md": None,
        "description.json": None,
        "description.html": None,
        "class_frequency.csv": _frequencies(findings),
    }
    plot = sheet = None
    if can_plot(folder / PLOT):
        plot_class_frequency(findings.labels, folder / PLOT)
        files[plot := PLOT] = None
    if findings.photos is not None:
        files["duplicates.csv"] = to_csv(findings.pairs)
    if findings.pairs:
        draw_pairs(findings.dataset.directory, findings.pairs, folder / SHEET)
        files[sheet := SHEET] = None
    for name, text in files.items():
        if text is not None:
            write_text(folder / name, text)
    sections = sections_of(findings, plot, sheet)
    write_text(folder / "description.md", to_markdown(title, sections))
    write_text(folder / "description.html", to_html(title, sections, folder))
    write_json(folder / "description.json", as_json(findings))
    return [folder / name for name in files]


def as_json(findings: Findings) -> dict:
    """Returns what was found as plain values."""
    labels = findings.labels
    values = {
        "directory": str(findings.dataset.directory),
        "fingerprint": findings.dataset.fingerprint,
        "splits": [dataclasses.asdict(split) | {"mean": split.mean} for split in labels.splits],
        "classes": [dataclasses.asdict(c) for c in labels.classes],
        "unseen_classes_in_training_labels": [c.name for c in labels.leaks],
    }
    if findings.word_vectors is not None:
        values["word_vectors"] = findings.word_vectors
        values["classes_without_vector"] = list(findings.without_vector)
    if findings.photos is not None:
        unreadable = [{"image": image, "problem": why} for image, why in findings.unreadable]
        values["unreadable_photos"] = unreadable
        counts = {kind: dict(count) for kind, count in count_by_kind(findings.pairs).items()}
        values["near_duplicates"] = {"radius": findings.radius, "by_splits": counts}
    return values


def _frequencies(findings: Findings) -> str:
    splits = [split.name for split in findings.labels.splits]
    ranked = sorted(findings.labels.classes, key=lambda c: -c.total)
    rows = (class_row(facts, splits) for facts in ranked)
    return csv_text(["class", "group", *splits, "all"], rows)
