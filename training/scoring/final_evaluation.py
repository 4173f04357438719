"""The evaluation of a trained run: thresholds, metrics, the sheet of pictures, the report."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from biam_tf.embeddings.twins import twins_of
from biam_tf.files import write_json, write_text
from biam_tf.metrics.cuts import parse_target
from biam_tf.metrics.held_out import read_folds
from biam_tf.models.systems import SYSTEMS
from biam_tf.runs import RunPaths, TrainedRun, load_run
from biam_tf.thresholds import Fitting, Thresholds, fit_thresholds, reason_not_to_fit
from biam_tf.vocabulary import Vocabulary
from training.config import RunConfig, load_config
from training.data.data_manifest import DataManifest
from training.data.dataset import TaggingDataset
from training.data.input.sources import FeatureSource, PhotoSource
from training.pipeline.examples import final_split, open_dataset, open_examples
from training.pipeline.run_folder import RunFolder
from training.scoring.evaluation import (
    TAGS_PER_PHOTO,
    evaluate_split,
    format_figures,
    score_split,
)
from training.scoring.explained_photos import PHOTOS_ON_SHEET, draw_sheet, explain_photos

MakeSource = Callable[[Sequence[str]], FeatureSource | PhotoSource]


def evaluate_run(
    config: RunConfig,
    folder: RunFolder,
    dataset: TaggingDataset,
    vocabulary: Vocabulary,
    make_source: MakeSource,
) -> dict[str, Any]:
    """Evaluates a trained run and writes everything into its folder, `metrics.json` last.

    Args:
        config: settings of the run.
        folder: has the trained models.
        dataset: of the run.
        vocabulary: its classes.
        make_source: photos of `dataset` to examples for scoring.

    Returns:
        The metrics, as written.
    """
    trained = with_thresholds(config, load_run(folder.path), dataset, vocabulary, make_source)
    metrics = write_figures(config, trained, dataset, vocabulary, make_source)
    if folder.data_manifest.exists():  # a dry run has none
        manifest = DataManifest.read(folder.data_manifest)
        metrics["data_manifest"] = manifest.hash
        metrics["data_hash"] = manifest.split_hash(metrics["split"])
    write_json(folder.metrics, metrics)
    return metrics


def evaluate_again(folder: pathlib.Path, report: pathlib.Path | None) -> None:
    """Evaluates a finished run again, writes its report and prints its figures.

    Args:
        folder: of the run.
        report: an HTML file to write the report to; None: in the run's folder.

    Raises:
        UserError: the folder is not a trained run, or its data cannot be read.
    """
    run = load_run(folder)
    config = load_config(run.folder.config)
    examples = open_examples(config, folder, open_dataset(config), run.backbone)
    dataset, make_source = examples.dataset, examples.source
    if run.thresholds is None:
        run = with_thresholds(config, run, dataset, run.vocabulary, make_source)
    metrics = write_figures(config, run, dataset, run.vocabulary, make_source, report)
    print(f"\n{format_figures(metrics)}\n\nLook at {report or run.folder.report_page}")


def write_figures(
    config: RunConfig,
    trained: TrainedRun,
    dataset: TaggingDataset,
    vocabulary: Vocabulary,
    make_source: MakeSource,
    path: pathlib.Path | None = None,
) -> dict[str, Any]:
    """Evaluates the final split; draws the sheet and the report unless the settings say not to.

    Args:
        config: settings of the run.
        trained: the run, with its thresholds.
        dataset: of the run.
        vocabulary: its classes.
        make_source: photos of `dataset` to examples for scoring.
        path: of the report; None: in the run's folder, and the sheet beside it.
    """
    from training.report.page import ReportData, write_report

    name = final_split(dataset)
    split = dataset.split(name)
    metrics, scores = evaluate_split(
        trained,
        make_source(split.images),
        split.labels,
        vocabulary,
        f"evaluating on {name}",
        config.training.seed,
        dataset.about,
    )
    metrics["split"] = name
    metrics["warnings"] = twins_of(vocabulary)
    if not config.training.report:
        return metrics
    explained = explain_photos(
        trained.backbone,
        trained.head,
        dataset,
        split,
        vocabulary,
        PHOTOS_ON_SHEET,
        trained.orientation,
    )
    if path is None:
        path = trained.folder.report_page
        title = f"{config.output}: top tags and where they were seen"
        sheet = trained.folder.contact_sheet
        draw_sheet(explained, sheet, dataset, split, vocabulary, title, trained.thresholds)
    data = ReportData(
        run=trained,
        dataset=dataset,
        split=split,
        vocabulary=vocabulary,
        scores=scores,
        metrics=metrics,
        explained=explained,
        make_source=make_source,
        of_training=True,
    )
    write_report(path, data)
    return metrics


def with_thresholds(
    config: RunConfig,
    trained: TrainedRun,
    dataset: TaggingDataset,
    vocabulary: Vocabulary,
    make_source: MakeSource,
) -> TrainedRun:
    """Returns the run with thresholds fitted to its validation photos, and writes them.

    If the validation photos do not allow it, prints the reason and returns the run unchanged.

    Args:
        config: settings of the run.
        trained: the run.
        dataset: of the run.
        vocabulary: its classes.
        make_source: photos of `dataset` to examples for scoring.
    """
    if "val" not in dataset.splits:
        print("no photo of split val: no thresholds, and scores stay uncalibrated", flush=True)
        return trained
    split = dataset.split("val")
    reason = reason_not_to_fit(split.labels, vocabulary.groups)
    if reason:
        print(f"no thresholds, and scores stay uncalibrated: {reason}", flush=True)
        return trained
    scores = score_split(trained, make_source(split.images), vocabulary, "thresholds from val")
    fitting = thresholds_fitting(config, trained.folder, dataset)
    thresholds = fit_thresholds(
        scores,
        split.labels,
        vocabulary.names,
        vocabulary.groups,
        seed=config.training.seed,
        k=TAGS_PER_PHOTO,
        fitting=fitting,
    )
    _print_what_is_missing(thresholds, bool(fitting.held_out))
    write_text(trained.folder.thresholds, thresholds.to_json())
    return dataclasses.replace(trained, thresholds=thresholds)


def thresholds_fitting(config: RunConfig, folder: RunPaths, dataset: TaggingDataset) -> Fitting:
    """Returns how the thresholds of a run are fitted, with the scores of its held-out folds."""
    share = None
    if not dataset.about.unseen_in_training:
        share = len(dataset.unseen) / len(dataset.names)
    return Fitting(
        target=parse_target(config.thresholds.target),
        held_out=read_folds(folder.held_out, config.thresholds.held_out_folds),
        share_of_unseen=share,
        is_trained=SYSTEMS[config.head.system].trained,
        is_corrected=True,
        fewest_photos=config.thresholds.fewest_photos,
    )


def _print_what_is_missing(thresholds: Thresholds, has_folds: bool) -> None:
    """Prints which classes get no probability, and why."""
    held_out = thresholds.fitted_on["held_out"]
    if held_out is not None and not held_out["target_is_reached"]:
        print(
            f"thresholds.target: {thresholds.fitted_on['target']}: no threshold reaches it on the "
            "classes held out of training: unseen and new classes become no tags",
            flush=True,
        )
    photos, fewest = thresholds.fitted_on["images"], thresholds.fitted_on["fewest_images"]
    if photos < fewest:
        print(
            f"only {photos} labeled validation photos, fewer than thresholds.fewest_photos: "
            f"{fewest}: thresholds, but no probabilities",
            flush=True,
        )
    elif np.isnan(thresholds.rule.slopes).any():
        reason = (
            "the held-out folds show too little on the validation photos"
            if has_folds
            else "no held-out folds"
        )
        print(
            f"{reason}: classes that were not trained get thresholds, but no probabilities",
            flush=True,
        )
