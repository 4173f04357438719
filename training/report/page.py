"""Collects the content of a report and fills `page.html` with it."""

import dataclasses
import datetime
import importlib.metadata
import os
import pathlib
import platform
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
import yaml

import biam_tf
from biam_tf.command_line import command_to_paste
from biam_tf.files import write_text
from biam_tf.metrics import average_precision
from biam_tf.metrics.figures_by_part import counted_classes, format_count, notes_on_classes
from biam_tf.metrics.stored_scores import Scores
from biam_tf.runs import TrainedRun
from biam_tf.thresholds import Thresholds
from biam_tf.vocabulary import Vocabulary
from training.data.dataset import Split, TaggingDataset
from training.data.input.sources import FeatureSource, PhotoSource
from training.label_review.files import ReviewPaths, thumbnail, top_doubts
from training.loop.tensorboard import LEARNING_RATE, LOSS, read_scalar
from training.report import figures, region_features
from training.report.classes import best_and_worst, class_figures, with_enough_photos
from training.report.photo_cards import photo_cards
from training.report.summary import (
    GOOD,
    MEANINGS,
    WEAK,
    against_validation,
    bands,
    in_words,
    next_steps,
)
from training.scoring.evaluation import stacking_curve
from training.scoring.explained_photos import ExplainedPhotos
from training.tables.svg_charts import scatter
from training.tables.templates import render

# Up to this number the page lists every class (a row has 200 bytes); metrics.json always does.
MAX_CLASSES_LISTED = 10_000
PARTS = {
    "seen": "Seen classes alone",
    "zsl": "ZSL: unseen classes alone",
    "gzsl": "GZSL: all classes",
}
DOUBTS_SHOWN = 12
PACKAGES = ("tensorflow", "keras", "numpy", "pillow", "scikit-learn")
EXTRA = "pip install 'biam-tf[report]'"


@dataclasses.dataclass(frozen=True, eq=False)
class ReportData:
    """The data of a report.

    Attributes:
        run: the trained run.
        dataset: the photos' data set.
        split: the split that was evaluated.
        vocabulary: its classes, in the order of the labels.
        scores: (N, C) of its photos.
        metrics: from `evaluate_split`, and "split", the split's name.
        explained: photos to show.
        make_source: makes the examples of some photos.
        of_training: whether the split is the run's own, so that its learning curves are shown.
    """

    run: TrainedRun
    dataset: TaggingDataset
    split: Split
    vocabulary: Vocabulary
    scores: Scores
    metrics: dict
    explained: ExplainedPhotos
    make_source: Callable[[Sequence[str]], FeatureSource | PhotoSource]
    of_training: bool = False


def write_report(path: pathlib.Path, data: ReportData) -> None:
    """Writes a report as one HTML file that needs no other."""
    page = render("training.report", "page.html", _content(data))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, page)


def _content(data: ReportData) -> dict[str, Any]:
    run, labels, scores, metrics = data.run, data.split.labels, data.scores, data.metrics
    names, groups = data.vocabulary.names, data.vocabulary.groups
    thresholds = run.thresholds and run.thresholds.for_names(names)
    training = data.dataset.splits.get("train") if data.of_training else None
    classes = class_figures(scores, labels, names, groups, thresholds, training)
    named, fewest = with_enough_photos(classes)
    records = _records(data)
    about = data.dataset.about
    rows, reasons = against_validation(records, metrics, about, PARTS)
    shown = bands(named)
    return {
        "title": run.folder.path.resolve().name,
        "metrics": metrics,
        "headline": metrics.get("headline", "mAP"),
        "dataset": data.dataset,
        "photos": len(data.split),
        "seen": len(data.dataset.seen),
        "unseen": len(data.dataset.unseen),
        "parts": _parts(metrics),
        "meanings": MEANINGS,
        "bands": shown,
        "limits": (GOOD, WEAK),
        "steps": next_steps(run, metrics, records, shown, data.of_training),
        "validation_rows": rows,
        "reasons": reasons,
        "records": records,
        "curves": _curves(data, records) if records else [],
        "cards": photo_cards(data.explained, data.dataset, data.split, data.vocabulary, thresholds),
        "class_lists": best_and_worst(named),
        "fewest_photos": fewest,
        "has_training": training is not None,
        "of_training": data.of_training,
        "classes": classes if len(classes) <= MAX_CLASSES_LISTED else [],
        "notes_on_classes": notes_on_classes(metrics),
        "doubts": _doubts(data),
        "precision_recall": figures.precision_recall_figures(
            scores, labels, names, groups, average_precision(scores, labels), thresholds
        ),
        "thresholds": thresholds,
        "fitted_here": data.of_training and metrics["split"] == "val",
        "shown": _rows_of_shown(metrics),
        "threshold_figures": _threshold_figures(data, thresholds),
        "regions": _regions(data),
        "install": EXTRA,
        "config": yaml.safe_dump(dict(run.settings), sort_keys=False, allow_unicode=True),
        "settings": run.settings,
        "versions": _versions(),
        "machine": _machine(),
        "now": _now(),
        "seconds": sum(record["seconds"] for record in records),
    }


def _records(data: ReportData) -> list[dict]:
    """The log's records of the epochs; a closed form has none."""
    if not data.of_training or not data.run.folder.log.exists():
        return []
    return [record for record in data.run.folder.read_log() if "loss" in record]


def _curves(data: ReportData, records: list[dict]) -> list[figures.Figure]:
    folder = data.run.folder.tensorboard
    return figures.learning_curves(
        records, read_scalar(folder, LOSS), read_scalar(folder, LEARNING_RATE)
    )


def _parts(metrics: dict) -> list[dict]:
    """Rows of the table of figures: the parts that have classes."""
    rows = []
    for part, title in PARTS.items():
        if metrics[part] is None:
            continue
        f1s = {key: value for key, value in metrics[part].items() if key.startswith("F1@")}
        at = metrics["at_threshold"]
        rows.append(
            {
                "key": part,
                "title": title,
                "in_words": in_words(metrics, part),
                "figures": metrics[part],
                "classes": format_count(*counted_classes(metrics, part)),
                "f1s": {key: value and value["f1"] for key, value in f1s.items()},
                "intervals": metrics["bootstrap"].get(part, {}),
                "at_threshold": at and at[part],
            }
        )
    return rows


def _rows_of_shown(metrics: dict) -> list[dict]:
    """Rows of the table of tags shown: what their probabilities state and how many are right."""
    reliability = metrics.get("reliability")
    if not reliability:
        return []
    kinds = {"at_half": "shown with 50 to 100 %", "at_threshold": "at threshold"}
    return [
        {
            "title": f"{group.capitalize()} classes, {title}",
            "is_enough": reliability[group][key]["tags"] >= reliability["fewest_tags"],
            **reliability[group][key],
        }
        for group in ("seen", "unseen")
        if reliability[group]
        for key, title in kinds.items()
    ]


def _doubts(data: ReportData) -> dict[str, Any] | None:
    """The first training labels that a review has found doubtful; None of other photos."""
    if not data.of_training or "train" not in data.dataset.splits:
        return None
    found = top_doubts(data.run.folder, data.dataset, DOUBTS_SHOWN)
    orientation = data.explained.orientation
    return {
        "cards": [{"doubt": own, **thumbnail(own, data.dataset, orientation)} for own in found],
        "page": ReviewPaths(data.run.folder.path).page,
        "command": command_to_paste("training.review", data.run.folder.path),
    }


def _threshold_figures(data: ReportData, thresholds: Thresholds | None) -> list[figures.Figure]:
    shown = []
    if data.metrics.get("reliability"):
        shown.append(figures.reliability_figure(data.metrics["reliability"]))
    curve = stacking_curve(data.scores, data.split.labels, data.vocabulary.groups)
    if curve is not None:
        stacking = None if thresholds is None else thresholds.stacking
        constant = None if stacking is None else stacking["constant"]
        shown.append(figures.stacking_figure(curve, constant))
    return shown


def _regions(data: ReportData) -> dict[str, Any]:
    """The two planes of region features, or the reason why they are missing."""
    if data.explained.response_maps is None:
        return {"missing": "This head does not classify regions."}
    gathered = region_features.gather(data.run, data.split, data.vocabulary, data.make_source)
    if gathered is None:
        return {"missing": "Too few photos show exactly one of several classes."}
    names = [data.vocabulary.names[c] for c in gathered.classes]
    planes = []
    for title, features in (
        ("Average over all regions", gathered.averages),
        ("Strongest region", gathered.strongest),
    ):
        try:
            plane = region_features.to_plane(features, data.run.settings["training"]["seed"])
        except ImportError:
            return {"missing": "This needs scikit-learn, which is not installed.", "install": EXTRA}
        share = region_features.share_of_like_neighbors(features, gathered.members)
        label = f"{title}: t-SNE of {len(features)} photos of {len(names)} classes"
        note = f"The nearest neighbor has the same class for {100 * share:.0f} % of the photos."
        chart, legend = scatter(plane, gathered.members, names, label)
        planes.append(figures.Figure(title, chart, note, legend))
    groups = {data.vocabulary.groups[c] for c in gathered.classes}
    return {
        "planes": planes,
        "names": names,
        "group": groups.pop() if len(groups) == 1 else "",
        "photos": len(gathered.members),
    }


def _versions() -> dict[str, str]:
    """Versions of Python, of this package and of the packages it uses, by name."""
    found = {"biam-tf": biam_tf.__version__, "Python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def _machine() -> dict[str, str]:
    """The machine that writes the report."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    gpus = [
        tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name)
        for gpu in tf.config.list_physical_devices("GPU")
    ]
    return {
        "system": platform.platform(terse=True),
        "processor": f"{_processor()}, {len(os.sched_getaffinity(0))} cores",
        "memory": f"{memory / 2**30:.0f} GiB",
        "GPU": ", ".join(gpus) or "none",
    }


def _now() -> str:
    """The time to the minute, with its zone."""
    return datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")


def _processor() -> str:
    information = pathlib.Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
