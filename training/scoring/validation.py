"""Validation during training: scores of the validation photos, and the figure that decides."""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from biam_tf.errors import UserError
from biam_tf.metrics import evaluate_scores
from biam_tf.metrics.figures_by_part import counted_classes, format_count
from biam_tf.sparse_labels import SparseLabels
from biam_tf.vocabulary import Vocabulary
from training.config import RunConfig, TrainingConfig
from training.data.dataset import TaggingDataset
from training.data.input.sources import FeatureSource, PhotoSource
from training.scoring.scorer import make_scorer, score_examples

Validate = Callable[[], dict[str, Any]]


def make_validation(
    config: RunConfig,
    dataset: TaggingDataset,
    vocabulary: Vocabulary,
    model: keras.Model,
    source: FeatureSource | PhotoSource | None,
    prints: bool = True,
) -> Validate | None:
    """Returns a function that evaluates the current weights of a model on the validation split.

    The function returns the metrics of `evaluate_scores`. It is None if there is no such split, or
    nothing can be measured on it: the reason is printed, and the last epoch is kept.

    Args:
        config: settings of the run.
        dataset: of the run.
        vocabulary: its classes.
        model: inputs of `source` and class embeddings to scores.
        source: the examples of the split; None in a process that never calls the function.
        prints: whether it prints what cannot be measured. Defaults to `True`.

    Raises:
        UserError: the settings select an epoch by a figure that is undefined on these photos.
    """
    if "val" not in dataset.splits:
        if config.training.patience is not None:
            raise UserError(
                f"training.patience: {config.training.patience}: there is no photo of split val "
                "to tell a better epoch by; set training.patience: null"
            )
        if prints:
            print("no photo of split val: the last epoch is kept, not the best", flush=True)
        return None
    with contextlib.nullcontext() if prints else contextlib.redirect_stdout(None):
        selectable = check_selectable(config, dataset)
    if not selectable:
        return None
    labels = dataset.split("val").labels
    scorer = make_scorer(model)

    def validate() -> dict[str, Any]:
        if source is None:
            raise RuntimeError("only the chief validates")
        batches = source.evaluation_batches(config.training.batch_size)
        scores = score_examples(scorer, batches, vocabulary.embeddings, len(labels))
        return evaluate_scores(
            scores,
            labels,
            vocabulary.names,
            vocabulary.groups,
            dataset.about.ks,
            classes_without_positives=dataset.about.classes_without_positives,
        )

    return validate


def check_selectable(config: RunConfig, dataset: TaggingDataset) -> bool:
    """Returns whether epochs can be compared on the validation split; prints why not, if not.

    Raises:
        UserError: `training.select_on` is undefined there, but another figure is not; or nothing
            can be measured, but `training.patience` needs it.
    """
    select_on, patience = config.training.select_on, config.training.patience
    part, _, figure = select_on.partition("_")
    labels = dataset.split("val").labels
    columns = {"seen": dataset.seen, "zsl": dataset.unseen, "gzsl": np.arange(labels.shape[1])}
    defined = {key: _defined_classes(labels.columns(own)) for key, own in columns.items()}
    if defined[part]:
        _print_counts(defined, columns)
        return True
    others = [f"{key}_{figure}" for key in columns if defined[key]]
    shown = labels.columns(columns[part]).count(1, axis=0).any()
    if others:
        reason = (
            "no validation photo is known not to show it, for any such class that one shows"
            if shown
            else "no validation photo shows such a class"
        )
        raise UserError(f"training.select_on: {select_on}: {reason}; choose {' or '.join(others)}")
    reason = (
        "no class has photos that show it and photos known not to show it"
        if shown
        else "its photos show none of the classes"
    )
    if patience is not None:
        raise UserError(
            f"training.patience: {patience}: nothing can be measured on split val: {reason}; "
            "label its photos, or set training.patience: null"
        )
    print(
        f"nothing can be measured on split val: {reason}; the last epoch is kept, not the best",
        flush=True,
    )
    return False


def _defined_classes(labels: SparseLabels) -> int:
    """The number of classes with a positive and a negative, whose average precision is defined."""
    return int(np.count_nonzero((labels.count(1, axis=0) > 0) & (labels.count(-1, axis=0) > 0)))


def _print_counts(defined: Mapping[str, int], columns: Mapping[str, np.ndarray]) -> None:
    parts = [
        f"{format_count(defined[part], len(columns[part]))} {group}"
        for part, group in (("seen", "seen"), ("zsl", "unseen"))
        if len(columns[part])
    ]
    if any(defined[part] < len(own) for part, own in columns.items()):
        print(
            f"validation mAP is over {' and '.join(parts)} classes: the others have no photo in "
            "split val that shows them, or none known not to",
            flush=True,
        )


def selected_figure(
    metrics: dict[str, Any], settings: TrainingConfig
) -> tuple[float, dict[str, Any]]:
    """Returns the figure of `training.select_on`, and what the log records of a validation."""
    parts = [
        key
        for key in ("zsl", "gzsl", "seen")
        if metrics[key] and metrics[key]["mAP"] is not None and counted_classes(metrics, key)[0]
    ]
    part, figure = settings.select_on.split("_", 1)
    record: dict[str, Any] = {
        "validation": {key: metrics[key]["mAP"] for key in parts},
        "validation_classes": {key: list(counted_classes(metrics, key)) for key in parts},
    }
    if figure == "weighted_mAP":
        record["validation_weighted"] = {key: metrics[key][figure] for key in parts}
    return metrics[part][figure], record
