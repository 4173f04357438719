"""What lies beside an exported model, in `assets.extra`: facts for people, warm-up for servers."""

import json
import pathlib
import shutil
from collections.abc import Mapping

import numpy as np

from biam_tf.runs import TrainedRun
from serving.graph.model_card import model_card
from serving.graph.name_table import Embeddings
from serving.graph.self_check import Requests, sample_photos
from serving.graph.signatures import GraphSettings
from serving.graph.warmup import FILE_NAME, write_warmup_requests


def write_assets(
    folder: pathlib.Path,
    run: TrainedRun,
    embeddings: Embeddings,
    settings: GraphSettings,
    requests: Requests,
    differences: Mapping[str, float],
) -> None:
    """Writes vocabulary, configuration, thresholds, metrics, model card and warm-up requests."""
    folder.mkdir()
    run.vocabulary.save(folder / "vocabulary.npz")
    shutil.copyfile(run.folder.config, folder / "config.yaml")
    if run.folder.thresholds.exists():
        shutil.copyfile(run.folder.thresholds, folder / run.folder.thresholds.name)
    metrics = None
    if run.folder.metrics.exists():
        shutil.copyfile(run.folder.metrics, folder / "metrics.json")
        metrics = json.loads(run.folder.metrics.read_text())
    card = model_card(run, embeddings, settings, metrics, differences)
    (folder / "model_card.md").write_text(card, encoding="utf-8")

    batching = settings.batching
    # Where the size of a batch matters to the device, every size is tried before it is needed.
    sizes = batching.batch_sizes if batching and batching.whole_powers else [1]
    batches = [
        ("features", {"images": np.array(sample_photos(size), dtype=object)}) for size in sizes
    ]
    write_warmup_requests(folder / FILE_NAME, [*batches, *requests.items()])
