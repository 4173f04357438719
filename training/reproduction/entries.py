"""The rows of a table: tuned on validation photos with equal budgets, trained, and cached."""

import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence

import keras
import numpy as np

from biam_tf.errors import UserError
from biam_tf.files import replacing, write_json
from biam_tf.metrics.figures_by_part import of_one_convention
from biam_tf.metrics.slices import row_blocks
from biam_tf.runs import TrainedRun, load_run
from biam_tf.vocabulary import Vocabulary
from training.config import OptimizerConfig, RunConfig, VocabularyConfig, load_config
from training.data.dataset import Split, TaggingDataset
from training.data.registry import load_dataset
from training.experiments.trials import best_validation, of_one_kind, validation_classes
from training.pipeline.examples import final_split, open_examples
from training.pipeline.run_folder import RunFolder, flat_settings
from training.pipeline.whole_run import run
from training.scoring.evaluation import evaluation_vocabulary, score_split
from training.scoring.final_evaluation import MakeSource


@dataclasses.dataclass(frozen=True)
class Entry:
    """A row of a table: what is trained for it.

    Attributes:
        title: in the table.
        settings: its `key=value` overrides.
        candidates: further overrides, of which the best on validation photos are chosen; empty:
            there is nothing to choose.
    """

    title: str
    settings: tuple[str, ...] = ()
    candidates: tuple[tuple[str, ...], ...] = ()


@dataclasses.dataclass(frozen=True)
class Study:
    """What all rows have in common.

    Attributes:
        config: YAML file; None: the quickstart's settings.
        settings: `key=value` overrides.
        output: folder of the runs and of all other files.
        seeds: number of trainings per row.
        budget: number of candidates tried per row, with one seed.
    """

    config: str | None
    settings: tuple[str, ...]
    output: pathlib.Path
    seeds: int
    budget: int

    @functools.cached_property
    def first_seed(self) -> int:
        """The configured seed; the other seeds are the next ones."""
        return load_config(self.config, self.settings).training.seed

    def config_of(self, settings: Sequence[str], seed: int) -> RunConfig:
        """Returns the configuration of a run, whose folder is named by its settings.

        Raises:
            UserError: a setting cannot be used.
        """
        own = (
            f"training.seed={seed}",
            "training.report=false",
            "training.tensorboard=false",
            "thresholds.held_out_folds=0",  # further trainings, for probabilities alone
        )
        config = load_config(self.config, [*self.settings, *settings, *own])
        name = f"{config.head.system}-{_fingerprint(config)}-seed{seed}"
        return dataclasses.replace(config, output=str(self.output / "runs" / name))


@dataclasses.dataclass(frozen=True)
class TrainedEntry:
    """A row with its runs.

    Attributes:
        entry: the row.
        chosen: overrides of the candidate that was chosen.
        tried: validation figures (per cent) of the candidates, by their overrides.
        folders: of the runs, one per seed.
        metrics: of the runs, the contents of `metrics.json`.
        error: why there are no runs; None: there are.
    """

    entry: Entry
    chosen: tuple[str, ...] = ()
    tried: Mapping[tuple[str, ...], float] = dataclasses.field(default_factory=dict)
    folders: tuple[pathlib.Path, ...] = ()
    metrics: tuple[Mapping, ...] = ()
    error: str | None = None


def train_entries(entries: Mapping[str, Entry], study: Study) -> dict[str, TrainedEntry]:
    """Trains what is missing of the rows; a row that cannot be made has an error.

    Raises:
        UserError: no row can be made.
    """
    trained: dict[str, TrainedEntry] = {}
    for number, (key, entry) in enumerate(entries.items(), start=1):
        print(f"=== {number}/{len(entries)} {entry.title}", flush=True)
        try:
            trained[key] = _train_entry(entry, study)
        except UserError as error:
            print(f"failed: {error}", flush=True)
            trained[key] = TrainedEntry(entry, error=str(error))
    if all(row.error for row in trained.values()):
        raise UserError(f"no row of the table could be made: {next(iter(trained.values())).error}")
    return _of_one_convention(trained)


def _of_one_convention(trained: Mapping[str, TrainedEntry]) -> dict[str, TrainedEntry]:
    """The rows with one kind of mAP: runs of an early version have another one."""
    metrics = iter(of_one_convention([own for row in trained.values() for own in row.metrics]))
    return {
        key: dataclasses.replace(row, metrics=tuple(next(metrics) for _ in row.metrics))
        for key, row in trained.items()
    }


def _train_entry(entry: Entry, study: Study) -> TrainedEntry:
    candidates = entry.candidates[: study.budget] or ((),)
    tried: dict[tuple[str, ...], float] = {}
    if len(candidates) > 1:
        folders = []
        for candidate in candidates:
            config = study.config_of([*entry.settings, *candidate], study.first_seed)
            _train(config, f"trying {' '.join(candidate) or 'the configured settings'}")
            folders.append(RunFolder(pathlib.Path(config.output)))
        tried = dict(zip(candidates, _validation_figures(folders), strict=True))
    chosen = max(tried, key=lambda candidate: tried[candidate]) if tried else candidates[0]
    runs, metrics = [], []
    for seed in range(study.first_seed, study.first_seed + study.seeds):
        config = study.config_of([*entry.settings, *chosen], seed)
        metrics.append(_train(config, f"seed {seed}"))
        runs.append(pathlib.Path(config.output))
    return TrainedEntry(entry, chosen, tried, tuple(runs), tuple(metrics))


def _train(config: RunConfig, label: str) -> Mapping:
    folder = RunFolder(pathlib.Path(config.output))
    if folder.metrics.exists():
        print(f"--- {label}: done in {folder.path}", flush=True)
        return json.loads(folder.metrics.read_text(encoding="utf-8"))
    print(f"--- {label}: {folder.path}", flush=True)
    try:
        metrics = run(config)
    finally:
        keras.backend.clear_session()
    assert metrics is not None, "only further workers get no metrics"
    return metrics


def _validation_figures(folders: Sequence[RunFolder]) -> list[float]:
    """Mean of ZSL and GZSL mAP on validation photos, per cent; the mAP if all classes are seen.

    Raises:
        UserError: there are no validation photos, or no mAP is defined on them.
    """
    found = of_one_kind(
        [best_validation(folder) for folder in folders],
        [validation_classes(folder) for folder in folders],
    )
    if not all(found):
        raise UserError(
            "settings are chosen on validation photos, but the data set has no split val, or no "
            "mAP is defined on it; with --budget 1 every system is trained as configured"
        )
    figures = []
    for own in found:
        parts: list[str] = [part for part in ("zsl", "gzsl") if part in own] or ["seen"]
        figures.append(float(np.mean([own[part] for part in parts])))
    return figures


@dataclasses.dataclass(frozen=True, eq=False)
class OpenedRun:
    """A trained run with the photos it was evaluated on.

    Attributes:
        run: the run.
        dataset: its data set, without photos that cannot be read.
        split: the one it was evaluated on.
        vocabulary: the data set's classes.
        source: makes the examples of some photos.
    """

    run: TrainedRun
    dataset: TaggingDataset
    split: Split
    vocabulary: Vocabulary
    source: MakeSource


def open_run(folder: pathlib.Path) -> OpenedRun:
    """Reads a run of a table and opens its data set."""
    config, run = load_config(RunFolder(folder).config), load_run(folder)
    examples = open_examples(config, folder, load_dataset(config.data), run.backbone)
    dataset = examples.dataset
    split = dataset.split(final_split(dataset))
    return OpenedRun(run, dataset, split, evaluation_vocabulary(run, dataset), examples.source)


def scores_of_run(folder: pathlib.Path) -> np.ndarray:
    """Returns a run's scores (N, C), float32, on its final split; they are computed once."""
    kept = folder / "scores.npy"
    if not kept.exists():
        opened = open_run(folder)
        source = opened.source(opened.split.images)
        scores = score_split(opened.run, source, opened.vocabulary)
        with replacing(kept) as partial:
            array = np.lib.format.open_memmap(partial, "w+", scores.dtype, shape=scores.shape)
            for rows in row_blocks(scores):
                array[rows] = scores[rows]
            array.flush()
        keras.backend.clear_session()
    return np.load(kept)


# Settings of single data sets, at their defaults, that the names of all early runs depend on.
_IN_EARLY_NAMES = {
    "data.pictures": 3000,
    "data.seed": 0,
    "data.configuration": "zero_shot",
    "data.unlabelled": "keep",
    "data.unseen_classes": "most_frequent",
    "data.machine_confidence": None,
    "data.builder": None,
    "data.label_feature": None,
    "data.absent_feature": None,
    "data.zero_shot_split": None,
}


def _fingerprint(config: RunConfig) -> str:
    settings = _IN_EARLY_NAMES | {
        key: value
        for key, value in flat_settings(config).items()
        # Thresholds are fitted after the training, whose figures do not depend on them.
        if key != "training.seed" and not key.startswith(("head.", "thresholds."))
    }
    if config.training.jit == "auto":  # as in all early runs
        del settings["training.jit"]
    optimizer = config.training.optimizer
    for name in ("momentum", "nesterov"):
        if getattr(optimizer, name) == getattr(OptimizerConfig, name):
            del settings[f"training.optimizer.{name}"]
    if optimizer.decay_vectors or not optimizer.weight_decay:  # as in all early runs
        del settings["training.optimizer.decay_vectors"]
    if config.backbone.orientation == "ignore":  # as in all early runs
        del settings["backbone.orientation"]
    if config.backbone.regions is None:
        del settings["backbone.regions"]
    if config.vocabulary.templates == VocabularyConfig.templates:
        del settings["vocabulary.templates"]
    head = config.head.settings
    plain = {field.name: field.default for field in dataclasses.fields(head)}
    own = {k: v for k, v in dataclasses.asdict(head).items() if v != plain[k]}
    settings |= {"head.system": config.head.system, "head": own}
    text = json.dumps(settings, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def write_record(path: pathlib.Path, trained: Mapping[str, TrainedEntry]) -> None:
    """Writes a table's runs and the settings that were tried and chosen, as JSON."""
    rows = {
        key: {
            "title": row.entry.title,
            "settings": row.entry.settings,
            "tried": [{"settings": s, "validation": v} for s, v in row.tried.items()],
            "chosen": row.chosen,
            "runs": [str(folder) for folder in row.folders],
            "error": row.error,
        }
        for key, row in trained.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, rows)
