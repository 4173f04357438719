"""The report: its parts are put together here and set into `page.html`."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jinja2
import numpy as np
import yaml

from biam_tf.files import write_text
from biam_tf.metrics import average_precision, labels_of_classes
from biam_tf.metrics.stored_scores import Scores
from biam_tf.runs import TrainedRun
from biam_tf.vocabulary import Vocabulary
from training.data.dataset import Split, TaggingDataset
from training.loop.tensorboard import LEARNING_RATE, LOSS, read_scalar
from training.report import facts, figures, region_features
from training.report.charts import scatter
from training.report.photo_cards import photo_cards
from training.scoring.evaluation import stacking_curve
from training.scoring.explained_photos import ExplainedPhotos

LISTED_CLASSES = 8
# Classes with fewer photos are among the best and the worst only where there are too few others.
ENOUGH_PHOTOS = 5
# The page lists every class up to here; metrics.json always does.
MOST_CLASSES_LISTED = 500
PARTS = {
    "zsl": "ZSL: unseen classes alone",
    "gzsl": "GZSL: all classes",
    "seen": "Seen classes alone",
}
EXTRA = 'pip install "biam-tf[report]"'


@dataclasses.dataclass(frozen=True, eq=False)
class ReportData:
    """What a report is about.

    Attributes:
        run: the trained run.
        dataset: the photos' data set.
        split: the split that was evaluated.
        vocabulary: its classes, in the order of the labels.
        scores: (N, C) of its photos.
        metrics: of `evaluate_split`, with "split", its name.
        explained: photos to show.
        make_source: photo names to examples.
        of_training: the split is the run's own, and its learning curves belong here.
    """

    run: TrainedRun
    dataset: TaggingDataset
    split: Split
    vocabulary: Vocabulary
    scores: Scores
    metrics: dict
    explained: ExplainedPhotos
    make_source: Callable[[Sequence[str]], Any]
    of_training: bool = False


def write_report(path: pathlib.Path, data: ReportData) -> None:
    """Writes a report, one HTML file without any other, whole or not at all."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("training.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("page.html").render(_content(data))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, page)


def _content(data: ReportData) -> dict[str, Any]:
    run, labels, scores, metrics = data.run, data.split.labels, data.scores, data.metrics
    names, groups = data.vocabulary.names, data.vocabulary.groups
    aps, (_, positives) = average_precision(scores, labels), labels_of_classes(labels)
    thresholds = run.thresholds and run.thresholds.for_names(names)
    classes = [
        {"name": names[c], "group": groups[c], "ap": float(aps[c]), "positives": int(positives[c])}
        for c in np.argsort(-aps, kind="stable")
        if positives[c]
    ]
    with_enough = sum(entry["positives"] >= ENOUGH_PHOTOS for entry in classes)
    fewest = ENOUGH_PHOTOS if with_enough >= 4 * LISTED_CLASSES else 1
    records = _records(data)
    return {
        "title": run.folder.path.resolve().name,
        "metrics": metrics,
        "headline": metrics.get("headline", "mAP"),
        "dataset": data.dataset,
        "photos": len(data.split),
        "seen": len(data.dataset.seen),
        "unseen": len(data.dataset.unseen),
        "parts": _parts(metrics),
        "records": records,
        "curves": _curves(data, records) if records else [],
        "cards": photo_cards(data.explained, data.dataset, data.split, data.vocabulary, thresholds),
        "class_lists": _class_lists([c for c in classes if c["positives"] >= fewest]),
        "fewest_photos": fewest,
        "classes": classes if len(classes) <= MOST_CLASSES_LISTED else [],
        "classes_without_positives": int((positives == 0).sum()),
        "precision_recall": figures.precision_recall_figures(
            scores, labels, names, groups, aps, thresholds
        ),
        "thresholds": thresholds,
        "fitted_here": data.of_training and metrics["split"] == "val",
        "threshold_figures": _threshold_figures(data, thresholds),
        "regions": _regions(data),
        "install": EXTRA,
        "config": yaml.safe_dump(dict(run.settings), sort_keys=False, allow_unicode=True),
        "settings": run.settings,
        "versions": facts.versions(),
        "machine": facts.machine(),
        "now": facts.now(),
        "seconds": sum(record["seconds"] for record in records),
    }


def _records(data: ReportData) -> list[dict]:
    """What the log says of each epoch; a closed form has none."""
    if not data.of_training or not data.run.folder.log.exists():
        return []
    records = [json.loads(line) for line in data.run.folder.log.read_text().splitlines()]
    return [record for record in records if "loss" in record]


def _curves(data: ReportData, records: list[dict]) -> list[figures.Figure]:
    folder = data.run.folder.tensorboard
    return figures.learning_curves(
        records, read_scalar(folder, LOSS), read_scalar(folder, LEARNING_RATE)
    )


def _parts(metrics: dict) -> list[dict]:
    """A row of the table of figures for each part that has classes."""
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
                "figures": metrics[part],
                "f1s": {key: value and value["f1"] for key, value in f1s.items()},
                "intervals": metrics["bootstrap"].get(part, {}),
                "at_threshold": at and at[part],
            }
        )
    return rows


def _class_lists(classes: list[dict]) -> list[dict]:
    lists = []
    for group in ("unseen", "seen"):
        own = [entry for entry in classes if entry["group"] == group]
        count = min(LISTED_CLASSES, len(own) // 2)
        if count:
            lists.append({"title": f"Best {group} classes", "classes": own[:count]})
            lists.append({"title": f"Worst {group} classes", "classes": own[-count:][::-1]})
    return lists


def _threshold_figures(data: ReportData, thresholds) -> list[figures.Figure]:
    shown = []
    if thresholds is not None:
        own = data.scores, data.split.labels, data.vocabulary.groups
        shown.append(figures.reliability_figure(thresholds, *own))
    curve = stacking_curve(data.scores, data.split.labels, data.vocabulary.groups)
    if curve is not None:
        stacking = thresholds and thresholds.stacking
        shown.append(figures.stacking_figure(curve, stacking and stacking["constant"]))
    return shown


def _regions(data: ReportData) -> dict[str, Any]:
    """The two planes of region features, or why they are missing."""
    if data.explained.response_maps is None:
        return {"missing": "This head classifies no single regions: it has no region features."}
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
            return {"missing": "It needs scikit-learn, which is not installed.", "install": EXTRA}
        alike = region_features.neighbours_alike(features, gathered.members)
        label = f"{title}: t-SNE of {len(features)} photos of {len(names)} classes"
        note = f"Nearest neighbour of the same class: {100 * alike:.0f} % of the photos."
        planes.append(figures.Figure(title, scatter(plane, gathered.members, names, label), note))
    groups = {data.vocabulary.groups[c] for c in gathered.classes}
    return {
        "planes": planes,
        "names": names,
        "group": groups.pop() if len(groups) == 1 else "",
        "photos": len(gathered.members),
    }
