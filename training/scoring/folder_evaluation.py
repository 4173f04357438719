"""Evaluation of trained runs on any folder data set: figures, pictures, comparison."""

import dataclasses
import pathlib
from collections.abc import Sequence

from biam_tf.files import write_json
from biam_tf.runs import load_run
from training.data.data_manifest import hash_of_split
from training.data.folder.reader import read_folder
from training.data.input.sources import PhotoSource
from training.report.page import ReportData, write_report
from training.scoring.class_groups import count_as_trained, print_warnings
from training.scoring.comparison import compare_runs, format_comparison, require_same_data
from training.scoring.evaluation import (
    evaluate_split,
    evaluation_vocabulary,
    format_figures,
)
from training.scoring.explained_photos import PHOTOS_ON_SHEET, draw_sheet, explain_photos


@dataclasses.dataclass(frozen=True)
class LabeledPhotos:
    """What runs are evaluated on.

    Attributes:
        directory: a folder data set.
        split: name of one of its splits.
        word_vectors: embeddings of the classes; None: see `evaluation_vocabulary`.
    """

    directory: str
    split: str
    word_vectors: str | None = None


def evaluate_on_folder(
    folder: pathlib.Path,
    photos: LabeledPhotos,
    output: pathlib.Path,
    contact_sheet: pathlib.Path | None = None,
    report: pathlib.Path | None = None,
) -> None:
    """Evaluates a run, writes its figures as JSON and prints them.

    Args:
        folder: of the run.
        photos: what it is evaluated on.
        output: the JSON file.
        contact_sheet: a PNG file to draw some photos to; None: none is drawn.
        report: an HTML file to write a report to; None: none is written.

    Raises:
        UserError: the run or the photos cannot be read, or a class has no embedding.
    """
    run = load_run(folder)
    counted = count_as_trained(read_folder(photos.directory), [folder])
    dataset = counted.dataset
    split = dataset.split(photos.split)
    vocabulary = evaluation_vocabulary(run, dataset, photos.word_vectors)
    warnings = counted.warnings(vocabulary)
    print_warnings(warnings)

    def make_source(images: Sequence[str]) -> PhotoSource:
        return PhotoSource(
            dataset.directory, images, run.image_size, "stream", orientation=run.orientation
        )

    metrics, scores = evaluate_split(
        run, make_source(split.images), split.labels, vocabulary, about=dataset.about
    )
    metrics |= {"run": str(folder), "data": photos.directory, "split": photos.split}
    metrics["warnings"] = warnings
    metrics["data_hash"] = hash_of_split(dataset, photos.split)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_json(output, metrics)
    print(f"\n{format_figures(metrics)}\n\nEvery class: {output}")
    if contact_sheet is None and report is None:
        return
    explained = explain_photos(
        run.backbone, run.head, dataset, split, vocabulary, PHOTOS_ON_SHEET, run.orientation
    )
    if contact_sheet is not None:
        title = f"{folder}: {photos.split} photos of {photos.directory}"
        draw_sheet(explained, contact_sheet, dataset, split, vocabulary, title, run.thresholds)
        print(f"Look at {contact_sheet}")
    if report is not None:
        data = ReportData(run, dataset, split, vocabulary, scores, metrics, explained, make_source)
        write_report(report, data)
        print(f"Look at {report}")


def compare_on_folder(
    folders: Sequence[pathlib.Path],
    photos: LabeledPhotos,
    output: pathlib.Path,
    allow_different_data: bool = False,
) -> None:
    """Evaluates several runs, writes figures and differences as JSON and prints them.

    Args:
        folders: of the runs; the others are compared with the first one.
        photos: what they are evaluated on.
        output: the JSON file.
        allow_different_data: compares runs even if they were trained on different data.

    Raises:
        UserError: a run or the photos cannot be read, or the runs cannot be compared.
    """
    require_same_data(folders, allow_different_data)
    dataset = read_folder(photos.directory)
    compared = compare_runs(folders, dataset, photos.split, photos.word_vectors)
    compared |= {"data": photos.directory, "split": photos.split}
    output.parent.mkdir(parents=True, exist_ok=True)
    write_json(output, compared)
    print(f"\n{format_comparison(compared)}\n\nEverything: {output}")
