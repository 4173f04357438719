"""Several runs on the same photos: a table, and intervals of their differences."""

import dataclasses
import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from biam_tf.errors import UserError
from biam_tf.metrics.bootstrap import bootstrap_differences, number_of_resamples
from biam_tf.metrics.figures_by_part import counted_classes, format_count, notes_on_classes
from biam_tf.metrics.stored_scores import Scores
from biam_tf.runs import RunPaths, load_run
from training.data.data_manifest import DataManifest, hash_of_split
from training.data.dataset import TaggingDataset
from training.data.input.sources import PhotoSource
from training.scoring.class_groups import count_as_trained, print_warnings
from training.scoring.evaluation import (
    LEVEL,
    TAGS_PER_PHOTO,
    evaluate_split,
    evaluation_vocabulary,
)
from training.tables.table import Table, signed_difference

_SEED = 0
_PARTS = (("zsl", "ZSL"), ("gzsl", "GZSL"), ("seen", "seen"))


def require_same_data(runs: Sequence[pathlib.Path], allow_different: bool = False) -> None:
    """Checks that runs were trained on the same photos, labels and classes.

    Args:
        runs: their folders, at least two.
        allow_different: prints what differs instead of raising. Defaults to `False`.

    Raises:
        UserError: they were not, or a run has no data manifest; the message lists what differs.
    """
    if len(set(runs)) < len(runs):
        raise UserError("the same run is given twice; give different runs to compare")
    folders = [RunPaths(pathlib.Path(run)) for run in runs]
    for folder in folders:
        folder.require_whole()
    without_manifest = [folder for folder in folders if not folder.data_manifest.exists()]
    problems = [
        f"{folder.path} has no {folder.data_manifest.name}: its training data is unknown"
        for folder in without_manifest
    ]
    described = [folder for folder in folders if folder not in without_manifest]
    manifests = [DataManifest.read(folder.data_manifest) for folder in described]
    for other, manifest in zip(described[1:], manifests[1:], strict=True):
        differences = manifests[0].differences(manifest)
        if differences:
            problems.append(
                f"{described[0].path} and {other.path} were trained on other data: "
                + "; ".join(differences)
            )
        elif manifests[0].embeddings != manifest.embeddings:
            print(f"{described[0].path} and {other.path}: the same data, other class embeddings")
    if problems and not allow_different:
        raise UserError(
            "these runs cannot be compared fairly:\n"
            + "\n".join(f"  {problem}" for problem in problems)
            + "\nTo compare them nevertheless: --allow-different-data"
        )
    for problem in problems:
        print(f"WARNING: {problem}", flush=True)


def compare_runs(
    runs: Sequence[pathlib.Path],
    dataset: TaggingDataset,
    split_name: str,
    word_vectors: str | None = None,
) -> dict[str, Any]:
    """Evaluates runs on the same photos and compares each with the first one.

    Args:
        runs: their folders.
        dataset: has the photos and classes.
        split_name: which photos.
        word_vectors: of the classes, as for `evaluation_vocabulary`.

    Returns:
        "runs": the metrics of each, as `evaluate_split` returns them, with its folder;
        "warnings": what makes them doubtful; and "differences": for each but the first, estimate,
        low and high by part and metric.

    Raises:
        UserError: a run cannot be read or has no embedding for a class; or one has data.all_seen
            and another has not.
    """
    split = dataset.split(split_name)
    metrics: list[dict[str, Any]] = []
    scores: list[Scores] = []
    all_seen: bool | None = None
    warnings: dict[str, None] = {}
    counted = count_as_trained(dataset, runs)
    for path in runs:
        run = load_run(path)
        if all_seen not in (None, run.all_seen):
            raise UserError(
                f"{runs[0]} and {path} count other classes as seen (data.all_seen): their metrics "
                "are of different tasks"
            )
        all_seen = run.all_seen
        vocabulary = evaluation_vocabulary(run, counted.dataset, word_vectors)
        own_warnings = counted.warnings(vocabulary)
        print_warnings([warning for warning in own_warnings if warning not in warnings])
        warnings |= dict.fromkeys(own_warnings)
        source = PhotoSource(
            dataset.directory, split.images, run.image_size, "stream", orientation=run.orientation
        )
        label = f"scoring with {path}"
        own, run_scores = evaluate_split(
            run, source, split.labels, vocabulary, label, about=dataset.about
        )
        metrics.append({"run": str(path), **own})
        scores.append(run_scores)
    differences = bootstrap_differences(
        scores,
        split.labels,
        counted.dataset.groups,
        TAGS_PER_PHOTO,
        _SEED,
        level=LEVEL,
        classes_without_positives=dataset.about.classes_without_positives,
    )
    return {
        "data_hash": hash_of_split(counted.dataset, split_name),
        "warnings": list(warnings),
        "runs": metrics,
        "compared_with": str(runs[0]),
        "resamples": number_of_resamples(split.labels),
        "level": LEVEL,
        "differences": [
            {
                "run": str(path),
                **{
                    part: {figure: dataclasses.asdict(own) for figure, own in figures.items()}
                    for part, figures in by_part.items()
                },
            }
            for path, by_part in zip(runs[1:], differences, strict=True)
        ],
    }


def format_comparison(compared: Mapping[str, Any]) -> str:
    """Returns the comparison as two tables in per cent: the runs and their differences.

    Figures that are undefined on these photos are left out, and the reason is below the tables.
    """
    first = compared["runs"][0]
    figures = [
        (part, title, figure)
        for part, title in _PARTS
        for figure in ("mAP", f"F1@{TAGS_PER_PHOTO}")
        if figure in first["bootstrap"].get(part, {})
    ]
    titles = [f"{title} {figure}" for _, title, figure in figures]
    counts = [
        f"{title} {format_count(*counted_classes(first, part))}"
        for part, title in _PARTS
        if first[part]
    ]
    below = "\n".join([f"Classes in mAP: {', '.join(counts)}.", *notes_on_classes(first)])
    if not figures:
        return f"No figure is defined on these photos.\n\n{below}"
    rows = [
        [run["run"], *(f"{100 * _figure(run, part, figure):.1f}" for part, _, figure in figures)]
        for run in compared["runs"]
    ]
    runs = Table("", ["per cent", *titles], rows)
    rows = []
    for other, (part, title, figure) in itertools.product(compared["differences"], figures):
        own = other[part][figure]
        cells = signed_difference(*(100 * own[key] for key in ("estimate", "low", "high")))
        rows.append([other["run"], f"{title} {figure}", *cells])
    level = f"{100 * compared['level']:.0f} %"
    differences = Table(
        "",
        [f"differences from {compared['compared_with']}", "figure", "difference", level],
        rows,
        f"{level} intervals of a paired bootstrap ({compared['resamples']} draws); * excludes 0.",
    )
    return f"{runs.markdown(padded=True)}\n{differences.markdown(padded=True).rstrip()}\n\n{below}"


def _figure(metrics: Mapping[str, Any], part: str, figure: str) -> float:
    value = metrics[part][figure]
    return value if figure == "mAP" else value["f1"]
