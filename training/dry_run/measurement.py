"""A run in small, measured: what the whole one will take, before it is started."""

import contextlib
import dataclasses
import io
import math
import pathlib
import tempfile
import time

import numpy as np

from biam_tf.metrics import evaluate_scores
from biam_tf.metrics.stored_scores import IN_MEMORY
from training.config import RunConfig
from training.data.dataset import TaggingDataset
from training.data.features import storage
from training.dry_run.estimates import Costs, Room, Sizes
from training.dry_run.sample import Sample, Watch, workload
from training.dry_run.text import Findings, format_findings
from training.loop.closed_form import require_epochs
from training.loop.devices import computing_in, make_strategy
from training.loop.objective import prepare_head
from training.loop.trainer import train
from training.machine import (
    available_memory,
    free_disk,
    peak_gpu_memory,
    peak_memory,
    same_disk,
    total_memory,
)
from training.pipeline.run_folder import RunFolder
from training.pipeline.whole_run import (
    build_models,
    check_selectable,
    class_vocabulary,
    open_dataset,
)
from training.scoring.final_evaluation import evaluate_run
from training.scoring.scorer import make_scorer, score_examples

EPOCHS = 3  # of the sample: the first compiles
METRICS_ELEMENTS = 20_000_000  # scores that the figures are timed on, at most


def dry_run(config: RunConfig) -> bool:
    """Makes the run in small, in a temporary folder, and prints what the whole one will take.

    Nothing is written into the run's folder or its feature store. Data sets that draw their
    pictures draw them, as the run would.

    Args:
        config: the run's settings.

    Returns:
        Whether memory and disk suffice.

    Raises:
        UserError: whatever the run would refuse.
    """
    started, memory_free = time.perf_counter(), available_memory()
    folder = RunFolder(pathlib.Path(config.output))
    folder.check_free_for(config)
    require_epochs(config, "a dry run")
    strategy = make_strategy(config)
    dataset = open_dataset(config)
    vocabulary = class_vocabulary(config, dataset)
    if "val" in dataset.splits:
        check_selectable(config, dataset)
    with computing_in(config.training.precision), tempfile.TemporaryDirectory() as aside:
        models = build_models(config, strategy, vocabulary)
        setup = time.perf_counter() - started
        sample = Sample(config, folder, dataset, models, pathlib.Path(aside))
        findings = _measure(sample, strategy, vocabulary, setup, memory_free)
    print("\n" + format_findings(findings), flush=True)
    return not findings.shortages


def _measure(sample: Sample, strategy, vocabulary, setup: float, memory_free: int) -> Findings:
    config, models, dataset = sample.config, sample.models, sample.dataset
    work = workload(sample)
    scorer = make_scorer(models.scored)
    watch, scorings = Watch(), []
    watched = "val" if "val" in sample.small.splits else sample.final

    def score() -> dict:
        begun = time.perf_counter()
        source, split = sample.sources[watched], sample.small.split(watched)
        batches = source.evaluation_batches(config.training.batch_size)
        scores = score_examples(scorer, batches, vocabulary.embeddings, len(split))
        scorings.append(time.perf_counter() - begun)
        metrics = evaluate_scores(scores, split.labels, vocabulary.names, vocabulary.groups)
        watch.note("validated")
        return metrics

    place = RunFolder(sample.aside / "run")
    small_config = dataclasses.replace(
        config,
        training=dataclasses.replace(config.training, epochs=EPOCHS, patience=None),
        output=str(place.path),
    )
    place.claim(small_config)
    vocabulary.save(place.vocabulary)
    place.write_backbone_identity(config.backbone, models.backbone)
    prepare_head(models.head, config.head, sample.train.labels[:, dataset.seen])
    print(f"{EPOCHS} short epochs on {len(sample.sources['train'])} photos ...", flush=True)
    begun = time.perf_counter()
    with _quietly():
        train(
            small_config,
            place,
            strategy,
            models.trainee(place),
            sample.sources["train"],
            sample.small.split("train").labels[:, dataset.seen],
            score if "val" in sample.small.splits else None,
            observers=[watch],
        )
    while len(scorings) < 2:
        score()
    first_step, step, epoch_end = step_times(begun, watch.events)
    score_photo = scorings[-1] / len(sample.sources[watched])
    print("evaluation ...", flush=True)
    begun = time.perf_counter()
    with _quietly():
        evaluate_run(small_config, place, sample.small, vocabulary, sample.source)
    scored = sum(len(sample.sources[name]) for name in sample.scored)
    finish = time.perf_counter() - begun - score_photo * scored
    validation_metrics, _ = _time_metrics(dataset, "val", vocabulary)
    test_metrics, score_bytes = _time_metrics(dataset, sample.final, vocabulary)
    checkpoint = max(_bytes_below(folder) for folder in place.checkpoints.iterdir())
    sizes = Sizes(
        dry_run_peak=peak_memory(),
        sample=sample.held_bytes,
        photo=sample.photo_bytes,
        score_rows=score_bytes,
        store_photo=math.ceil(sample.store_photo),
        checkpoint=checkpoint,
        run_folder=_bytes_below(place.path) - _bytes_below(place.checkpoints),
    )
    costs = Costs(
        setup=setup,
        check_photo=sample.check_photo,
        first_extraction=sample.first_extraction,
        extract_photo=sample.extract_photo,
        read_photo=sample.read_photo,
        first_step=first_step,
        step=step,
        first_score=max(0.0, scorings[0] - scorings[-1]),
        score_photo=score_photo,
        validation_metrics=validation_metrics,
        test_metrics=test_metrics,
        epoch_end=epoch_end,
        finish=max(0.0, finish),
    )
    local = storage.is_local(sample.store)
    room = Room(
        memory=total_memory(),
        memory_free=memory_free,
        store_disk=free_disk(sample.store) if local else None,
        run_disk=free_disk(sample.folder.path),
        one_disk=local and same_disk(sample.store, sample.folder.path),
        gpus=peak_gpu_memory(),
    )
    return Findings(
        output=config.output,
        classes=(len(dataset.seen), len(dataset.unseen)),
        parameters=models.scored.count_params(),
        trained_parameters=sum(math.prod(v.shape) for v in models.trained.trainable_variables),
        work=work,
        costs=costs,
        sizes=sizes,
        room=room,
    )


def step_times(started: float, events) -> tuple[float, float, float]:
    """Returns seconds of the first step, of a later step, and of what ends an epoch.

    Args:
        started: when the training was called.
        events: `(what, time)` in order: "step" after each step, "validated" after a
            validation, "epoch" when the models of an epoch are written and before its
            checkpoint is.
    """
    steps, ends, before = [], [], ("start", started)
    first_step = events[0][1] - started
    first_of_epoch = []
    for event in events:
        elapsed = event[1] - before[1]
        if event[0] == "step" and before[0] == "step":
            steps.append(elapsed)
        elif event[0] == "step" and before[0] == "epoch":
            first_of_epoch.append(elapsed)
        elif event[0] == "epoch":
            ends.append(elapsed)
        before = event
    # With one step an epoch there is no step after a step.
    step = float(np.median(steps or first_of_epoch))
    checkpoint = max(0.0, float(np.median(first_of_epoch)) - step)
    return first_step, step, float(np.median(ends)) + checkpoint


def _time_metrics(dataset: TaggingDataset, split: str, vocabulary) -> tuple[float, int]:
    """Returns seconds of a split's figures, and the bytes of scores beyond those timed here."""
    if split not in dataset.splits:
        return 0.0, 0
    labels = dataset.split(split).labels
    rows = min(len(labels), max(1, METRICS_ELEMENTS // labels.shape[1]))
    scores = np.random.default_rng(0).normal(size=(rows, labels.shape[1])).astype(np.float32)
    begun = time.perf_counter()
    evaluate_scores(scores, labels[:rows], vocabulary.names, vocabulary.groups)
    seconds = (time.perf_counter() - begun) * len(labels) / rows
    size = labels.size * scores.itemsize
    return seconds, size - scores.nbytes if size <= IN_MEMORY else 0


def _bytes_below(folder: pathlib.Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@contextlib.contextmanager
def _quietly():
    """Keeps the sample's own lines and bars from looking like the run's."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
