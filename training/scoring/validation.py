"""Validation during training: scores of the validation photos, and the figure that decides."""

from collections.abc import Callable
from typing import Any

import keras

from biam_tf.errors import UserError
from biam_tf.metrics import evaluate_scores
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
) -> Validate | None:
    """Returns a function that evaluates the current weights of a model on the validation split.

    The function returns the metrics of `evaluate_scores`. It is None if there is no such split.

    Args:
        config: settings of the run.
        dataset: of the run.
        vocabulary: its classes.
        model: inputs of `source` and class embeddings to scores.
        source: the examples of the split; None in a process that never calls the function.

    Raises:
        UserError: the settings select an epoch by a figure that is undefined on these photos.
    """
    if "val" not in dataset.splits:
        if config.training.patience is not None:
            raise UserError(
                f"training.patience: {config.training.patience}: there is no photo of split val "
                "to tell a better epoch by; set training.patience: null"
            )
        print("no photo of split val: the last epoch is kept, not the best", flush=True)
        return None
    check_selectable(config, dataset)
    labels = dataset.split("val").labels
    scorer = make_scorer(model)

    def validate() -> dict[str, Any]:
        if source is None:
            raise RuntimeError("only the chief validates")
        batches = source.evaluation_batches(config.training.batch_size)
        scores = score_examples(scorer, batches, vocabulary.embeddings, len(labels))
        ks = dataset.about.ks
        return evaluate_scores(scores, labels, vocabulary.names, vocabulary.groups, ks)

    return validate


def check_selectable(config: RunConfig, dataset: TaggingDataset) -> None:
    """Raises a UserError if `training.select_on` is undefined on the validation split."""
    part = config.training.select_on.split("_", 1)[0]
    labels = dataset.split("val").labels
    if part != "gzsl":
        labels = labels[:, dataset.seen if part == "seen" else dataset.unseen]
    if not (labels > 0).any():
        raise UserError(
            f"training.select_on: {config.training.select_on}: no validation photo shows such a "
            "class; choose seen_mAP or seen_weighted_mAP"
        )


def selected_figure(
    metrics: dict[str, Any], settings: TrainingConfig
) -> tuple[float, dict[str, Any]]:
    """Returns the figure of `training.select_on`, and what the log records of a validation."""
    parts = [
        key
        for key in ("zsl", "gzsl", "seen")
        if metrics[key] and metrics[key]["classes_without_positives"] < metrics[key]["classes"]
    ]
    part, figure = settings.select_on.split("_", 1)
    record = {"validation": {key: metrics[key]["mAP"] for key in parts}}
    if figure == "weighted_mAP":
        record["validation_weighted"] = {key: metrics[key][figure] for key in parts}
    return metrics[part][figure], record
