"""A trial run on a sample of the photos, measured to tell what the whole run will take."""

import contextlib
import dataclasses
import io
import math
import pathlib
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from biam_tf.metrics import evaluate_scores
from biam_tf.metrics.stored_scores import IN_MEMORY
from biam_tf.vocabulary import Vocabulary
from training.config import RunConfig
from training.data.dataset import TaggingDataset
from training.data.features import storage
from training.dry_run.estimates import Costs, Room, Sizes
from training.dry_run.findings import Findings, format_findings
from training.dry_run.sample import Sample, Stopwatch, workload
from training.loop.closed_form import require_epochs
from training.loop.devices import computing_in, make_strategy
from training.loop.objective import prepare_head
from training.loop.trainer import train
from training.machine import (
    ProcessorTime,
    available_memory,
    free_disk,
    peak_gpu_memory,
    peak_memory,
    same_disk,
    total_memory,
)
from training.pipeline.examples import open_dataset
from training.pipeline.models import build_models, check_training_labels, class_vocabulary
from training.pipeline.run_folder import RunFolder
from training.scoring.final_evaluation import evaluate_run
from training.scoring.scorer import make_scorer, score_examples
from training.scoring.validation import check_selectable

EPOCHS = 3  # of the trial run: the first compiles
METRICS_ELEMENTS = 20_000_000  # the most scores that the metrics are timed on


def dry_run(config: RunConfig) -> bool:
    """Makes a trial run on a sample in a temporary folder, and prints what the whole one takes.

    Nothing is written into the run's folder or its feature store. Data sets that draw their
    pictures draw them, as the run would.

    Args:
        config: the run's settings.

    Returns:
        Whether memory and disk suffice.

    Raises:
        UserError: anything that the run would refuse.
    """
    started, memory_free = time.perf_counter(), available_memory()
    processors = ProcessorTime.now()
    folder = RunFolder(pathlib.Path(config.output))
    folder.check_free_for(config)
    require_epochs(config, "a dry run")
    strategy = make_strategy(config)
    dataset = open_dataset(config)
    vocabulary = class_vocabulary(config, dataset)
    if "val" in dataset.splits:
        check_selectable(config, dataset)
    with computing_in(config.training.precision), tempfile.TemporaryDirectory() as directory:
        models = build_models(config, strategy, vocabulary)
        check_training_labels(config, dataset, models)
        setup = time.perf_counter() - started
        sample = Sample(config, folder, dataset, models, pathlib.Path(directory))
        findings = _measure(sample, strategy, vocabulary, setup, memory_free)
    others = ProcessorTime.now().share_of_others(processors)
    findings = dataclasses.replace(findings, others_share=others)
    print("\n" + format_findings(findings), flush=True)
    return not findings.shortages


def _measure(
    sample: Sample,
    strategy: tf.distribute.Strategy,
    vocabulary: Vocabulary,
    setup: float,
    memory_free: int,
) -> Findings:
    """Trains on the sample, evaluates, and returns what was measured.

    Args:
        sample: the photos.
        strategy: the devices.
        vocabulary: of the run.
        setup: seconds until the sample was chosen.
        memory_free: bytes that were free in the beginning.
    """
    dataset, models = sample.dataset, sample.models
    work = workload(sample)
    trial = _Trial(sample, vocabulary)
    trial.train(strategy)
    trial.evaluate()
    validation_metrics, _ = _time_metrics(dataset, "val", vocabulary)
    test_metrics, score_bytes = _time_metrics(dataset, sample.final, vocabulary)
    return Findings(
        output=sample.config.output,
        classes=(len(dataset.seen), len(dataset.unseen)),
        parameters=models.scored.count_params(),
        trained_parameters=sum(math.prod(v.shape) for v in models.trained.trainable_variables),
        work=work,
        costs=trial.costs(setup, validation_metrics, test_metrics),
        sizes=trial.sizes(score_bytes),
        room=_room(sample, memory_free),
    )


class _Trial:
    """A short run on the sample, and its times.

    Args:
        sample: the photos.
        vocabulary: of the run.
    """

    def __init__(self, sample: Sample, vocabulary: Vocabulary):
        self._sample, self._vocabulary = sample, vocabulary
        self._folder = RunFolder(sample.directory / "run")
        training = dataclasses.replace(sample.config.training, epochs=EPOCHS, patience=None)
        self._config = dataclasses.replace(
            sample.config, training=training, output=str(self._folder.path)
        )
        self._scorer = make_scorer(sample.models.scored)
        self._scored_split = "val" if "val" in sample.small.splits else sample.final
        self._stopwatch = Stopwatch()
        self._scorings: list[float] = []  # seconds
        self._steps = StepTimes(0.0, 0.0, 0.0)
        self._finish = 0.0

    def train(self, strategy: tf.distribute.Strategy) -> None:
        """Trains some epochs, and scores the validation photos (or the test photos) twice."""
        sample, models = self._sample, self._sample.models
        self._folder.claim(self._config)
        self._vocabulary.save(self._folder.vocabulary)
        self._folder.write_backbone_identity(self._config.backbone, models.backbone)
        seen = sample.dataset.seen
        prepare_head(models.head, self._config.head, sample.train.labels.columns(seen))
        print(f"{EPOCHS} short epochs on {len(sample.sources['train'])} photos ...", flush=True)
        started = time.perf_counter()
        with _without_output():
            train(
                self._config,
                self._folder,
                strategy,
                models.target(self._folder),
                sample.sources["train"],
                sample.small.split("train").labels.columns(seen),
                self._score if "val" in sample.small.splits else None,
                observers=[self._stopwatch],
            )
        while len(self._scorings) < 2:
            self._score()
        self._steps = step_times(started, self._stopwatch.events)

    def _score(self) -> dict[str, Any]:
        """Scores the photos and returns their metrics."""
        started = time.perf_counter()
        vocabulary, split = self._vocabulary, self._sample.small.split(self._scored_split)
        source = self._sample.sources[self._scored_split]
        batches = source.evaluation_batches(self._config.training.batch_size)
        scores = score_examples(self._scorer, batches, vocabulary.embeddings, len(split))
        self._scorings.append(time.perf_counter() - started)
        metrics = evaluate_scores(scores, split.labels, vocabulary.names, vocabulary.groups)
        self._stopwatch.record("validated")
        return metrics

    @property
    def _score_photo(self) -> float:
        return self._scorings[-1] / len(self._sample.sources[self._scored_split])

    def evaluate(self) -> None:
        """Evaluates the trained models, as a run does in the end."""
        sample = self._sample
        print("evaluation ...", flush=True)
        started = time.perf_counter()
        with _without_output():
            evaluate_run(self._config, self._folder, sample.small, self._vocabulary, sample.source)
        scored = sum(len(sample.sources[name]) for name in sample.scored)
        self._finish = time.perf_counter() - started - self._score_photo * scored

    def costs(self, setup: float, validation_metrics: float, test_metrics: float) -> Costs:
        """Returns the measured times; the arguments are fields of `Costs`."""
        sample = self._sample
        return Costs(
            setup=setup,
            check_photo=sample.check_photo,
            first_extraction=sample.first_extraction,
            extract_photo=sample.extract_photo,
            read_photo=sample.read_photo,
            first_step=self._steps.first,
            step=self._steps.later,
            first_score=max(0.0, self._scorings[0] - self._scorings[-1]),
            score_photo=self._score_photo,
            validation_metrics=validation_metrics,
            test_metrics=test_metrics,
            epoch_end=self._steps.epoch_end,
            finish=max(0.0, self._finish),
        )

    def sizes(self, score_rows: int) -> Sizes:
        """Returns the measured sizes; the argument is a field of `Sizes`."""
        sample, checkpoints = self._sample, self._folder.checkpoints
        return Sizes(
            dry_run_peak=peak_memory(),
            sample=sample.held_bytes,
            photo=sample.photo_bytes,
            score_rows=score_rows,
            store_photo=math.ceil(sample.store_photo),
            checkpoint=max(_bytes_below(folder) for folder in checkpoints.iterdir()),
            run_folder=_bytes_below(self._folder.path) - _bytes_below(checkpoints),
        )


@dataclasses.dataclass(frozen=True)
class StepTimes:
    """Seconds of the parts of a training.

    Attributes:
        first: the first step.
        later: a later step.
        epoch_end: what ends an epoch: models and a checkpoint are written.
    """

    first: float
    later: float
    epoch_end: float


def step_times(started: float, events: Sequence[tuple[str, float]]) -> StepTimes:
    """Returns how long the parts of a training took.

    Args:
        started: when the training was called.
        events: `(what, time)` in order: "step" after each step, "validated" after a
            validation, "epoch" when the models of an epoch are written and before its
            checkpoint is.
    """
    steps: list[float] = []
    ends: list[float] = []
    first_of_epoch: list[float] = []
    before = ("start", started)
    for what, at in events:
        elapsed = at - before[1]
        if what == "step" and before[0] == "step":
            steps.append(elapsed)
        elif what == "step" and before[0] == "epoch":
            first_of_epoch.append(elapsed)
        elif what == "epoch":
            ends.append(elapsed)
        before = (what, at)
    # With one step per epoch there is no step after a step.
    step = float(np.median(steps or first_of_epoch))
    checkpoint = max(0.0, float(np.median(first_of_epoch)) - step)
    return StepTimes(events[0][1] - started, step, float(np.median(ends)) + checkpoint)


def _time_metrics(dataset: TaggingDataset, split: str, vocabulary: Vocabulary) -> tuple[float, int]:
    """Returns the seconds of a split's metrics, and the bytes of scores beyond those used here."""
    if split not in dataset.splits:
        return 0.0, 0
    labels = dataset.split(split).labels
    rows = min(len(labels), max(1, METRICS_ELEMENTS // labels.shape[1]))
    scores = np.random.default_rng(0).normal(size=(rows, labels.shape[1])).astype(np.float32)
    started = time.perf_counter()
    evaluate_scores(scores, labels[:rows], vocabulary.names, vocabulary.groups)
    seconds = (time.perf_counter() - started) * len(labels) / rows
    size = labels.size * scores.itemsize
    return seconds, size - scores.nbytes if size <= IN_MEMORY else 0


def _room(sample: Sample, memory_free: int) -> Room:
    is_local = storage.is_local(sample.store)
    return Room(
        memory=total_memory(),
        memory_free=memory_free,
        store_disk=free_disk(sample.store) if is_local else None,
        run_disk=free_disk(sample.folder.path),
        one_disk=is_local and same_disk(sample.store, sample.folder.path),
        gpus=peak_gpu_memory(),
    )


def _bytes_below(folder: pathlib.Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@contextlib.contextmanager
def _without_output() -> Iterator[None]:
    """Hides the lines and progress bars of the trial, which would look like the run's."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
