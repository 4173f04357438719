"""Training of the systems that have a closed form: one pass over the examples, no epochs."""

import json
import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from biam_tf.errors import UserError
from biam_tf.files import append_line
from biam_tf.models.systems import SYSTEMS
from biam_tf.progress import progress
from training.config import RunConfig
from training.loop.trainer import validated
from training.pipeline.run_folder import RunFolder, save_model


def require_epochs(config: RunConfig, command: str) -> None:
    """Raises the UserError for a command that trains for some steps, which this head never does."""
    if SYSTEMS[config.head.system].fit is not None:
        raise UserError(
            f"head.system: {config.head.system} has a closed form: it is solved within seconds, "
            f"without steps or a learning rate; there is nothing for {command} to tell. Run "
            "`python -m training.run`"
        )


def fit_head(
    config: RunConfig,
    folder: RunFolder,
    head,
    source,
    labels: np.ndarray,
    seen_embeddings: np.ndarray,
    validate: Callable[[], dict] | None,
) -> None:
    """Solves for the head's weights and keeps the head in the run's folder.

    Args:
        config: settings of the run; its system has a `fit`.
        folder: where the model and the log go.
        head: the system's, as built.
        source: a `FeatureSource` of the training examples.
        labels: (N, S) int8 for the seen classes, +1, -1 or 0.
        seen_embeddings: (S, d_a).
        validate: returns the metrics of `evaluate_scores` on the validation split.

    Raises:
        UserError: the settings ask for what has no closed form, or the folder cannot be written.
    """
    if folder.model.exists() and folder.log.exists():  # it was stopped during evaluation
        return
    system = config.head.system
    if config.strategy == "multi_worker":
        raise UserError(f"strategy: multi_worker: head.system: {system} is solved in one process")
    started = time.perf_counter()
    with progress(len(source), f"solving {system}", "photo") as bar:
        batches = _batches(source, labels, config.training.batch_size, bar.update)
        SYSTEMS[system].fit(head, config.head.settings, batches, seen_embeddings)
    record = {"epoch": 1, "best_epoch": 1}
    if validate is not None:
        record |= validated(validate(), config.training)[1]
    record["seconds"] = round(time.perf_counter() - started, 2)
    save_model(folder.model, head)
    append_line(folder.log, json.dumps(record))
    print(f"{system}: solved in {record['seconds']:.1f} s", flush=True)


def _batches(source, labels, batch_size, progress):
    begin = 0
    for inputs in source.evaluation_batches(batch_size):
        count = len(inputs["scene_feature"])
        yield inputs, tf.constant(labels[begin : begin + count])
        begin += count
        progress(count)
