"""A whole run, in its order: data, models, examples, training, evaluation, report."""

import contextlib
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from PIL import Image

from biam_tf.command_line import command_to_paste
from biam_tf.contact_sheet import make_contact_sheet
from biam_tf.embeddings.twins import twins_of
from biam_tf.errors import UserError
from biam_tf.files import write_text, writing_to
from biam_tf.models.system import System
from biam_tf.models.systems import SYSTEMS
from biam_tf.photos import Orientation
from biam_tf.vocabulary import Vocabulary
from training.config import RunConfig, load_config
from training.data.data_manifest import describe_data
from training.data.dataset import TaggingDataset
from training.data.input.broken_photos import BROKEN_PHOTOS, to_csv
from training.data.registry import load_dataset
from training.loop.closed_form import fit_head, save_as_built
from training.loop.devices import computing_in, make_strategy, with_chosen_precision
from training.loop.objective import prepare_head
from training.loop.profiling import StepProfiler, check_profile
from training.loop.step_results import Observer
from training.loop.tensorboard import TensorBoardWriter, write_projector
from training.loop.trainer import train
from training.loop.workers import Workers, read_tf_config
from training.pipeline.examples import (
    Examples,
    Source,
    final_split,
    missing_places,
    open_dataset,
    open_examples,
    scored_splits,
)
from training.pipeline.held_out import train_folds
from training.pipeline.models import (
    Models,
    build_models,
    check_training_labels,
    class_vocabulary,
    with_settings,
)
from training.pipeline.run_folder import RunFolder
from training.scoring.class_groups import print_warnings
from training.scoring.evaluation import format_figures
from training.scoring.explained_photos import explain_photos, sheet_contents
from training.scoring.final_evaluation import MakeSource, evaluate_run
from training.scoring.validation import Validate, make_validation

PHOTOS_ON_TENSORBOARD = 4
MISSING_PHOTOS = "missing_photos.txt"


def run(
    config: RunConfig, profiled_steps: int | None = None, next_commands: bool = False
) -> dict[str, Any] | None:
    """Trains and evaluates a configuration; a run that was stopped is resumed.

    Args:
        config: the settings; the run's folder is `config.output`.
        profiled_steps: training steps to profile, at least 1; None: none.
        next_commands: whether commands that one may want next are printed.

    Returns:
        The metrics on the test split (without one, on the validation split), as written to
        `metrics.json`; None in a worker that is not the chief.

    Raises:
        UserError: a setting, the data or the run's folder cannot be used as it is.
        WorkerLost: another worker of the run is gone.
    """
    folder = RunFolder(pathlib.Path(config.output))
    if config.training.precision == "auto":
        stored = load_config(folder.config) if folder.config.exists() else None
        config = with_chosen_precision(config, stored)
    metrics = _run_or_read(config, folder, profiled_steps)
    if metrics is not None and next_commands:
        print(f"\n{_next_commands(config, folder, metrics['split'])}")
    return metrics


def _run_or_read(
    config: RunConfig, folder: RunFolder, profiled_steps: int | None
) -> dict[str, Any] | None:
    started = time.perf_counter()
    # Of several processes, the chief alone looks after the folder.
    is_chief = config.strategy != "multi_worker" or read_tf_config().is_chief
    if is_chief:
        folder.check_free_for(config)
    if folder.metrics.exists():
        return _read_complete_run(config, folder, profiled_steps)
    with folder.training_here() if is_chief else contextlib.nullcontext():
        if is_chief:  # another process may have written it in the meantime
            folder.check_free_for(config)
        if folder.metrics.exists():
            return _read_complete_run(config, folder, profiled_steps)
        return _run(config, folder, profiled_steps, started)


def _run(
    config: RunConfig, folder: RunFolder, profiled_steps: int | None, started: float
) -> dict[str, Any] | None:
    workers = Workers(make_strategy(config))
    metrics = None
    with workers.loss_of_one_ends_all():
        dataset = open_dataset(config)
        vocabulary = class_vocabulary(config, dataset)
        if workers.is_chief:
            print_warnings(twins_of(vocabulary))
            folder.check_same_data(config, dataset, vocabulary)
        dataset, make_source = _train(config, folder, workers, dataset, vocabulary, profiled_steps)
        train_folds(config, folder, workers, dataset, vocabulary)
        if workers.is_chief:
            metrics = evaluate_run(config, folder, dataset, vocabulary, make_source)
            print(f"\n{format_figures(metrics)}\n\n{time.perf_counter() - started:.0f} s in all\n")
            print(_where_to_look(config, folder))
        # The others stay until all is written: a scheduler takes their end for that of the job.
        workers.wait_for_chief()
    return metrics


def _train(
    config: RunConfig,
    folder: RunFolder,
    workers: Workers,
    dataset: TaggingDataset,
    vocabulary: Vocabulary,
    profiled_steps: int | None,
) -> tuple[TaggingDataset, MakeSource]:
    """Builds and trains the models; the best ones are saved in the run's folder.

    Models and training examples are local: their memory is free when the run is evaluated.

    Returns:
        The data set without photos that cannot be read, and a function from photos to examples.
    """
    with computing_in(config.training.precision):
        # The head is built before features are extracted, so that a setting that does not fit is
        # reported at once.
        models = build_models(config, workers.strategy, vocabulary)
        check_training_labels(config, dataset, models)
        if workers.is_chief:
            folder.check_same_backbone(config.backbone, models.backbone)
        examples = open_examples(config, folder.path, dataset, models.backbone)
        dataset = examples.dataset
        sources = examples.for_scoring(scored_splits(dataset) if workers.is_chief else [])
        validate = make_validation(config, dataset, vocabulary, models.scored, sources.get("val"))
        system = SYSTEMS[config.head.system]
        training = examples.for_training(config.training.epochs) if system.trained else None
        _check_profile(config, profiled_steps, len(training.source) if training else 0)
        # Nothing is written before everything is known to fit.
        if workers.is_chief:
            _write_inputs(config, folder, examples, vocabulary, models.backbone)
        if training is None:

            def others(settings: Any) -> tuple[keras.Model, Validate | None]:
                other = with_settings(config, models, vocabulary, settings)
                scored, val = other.scored, sources.get("val")
                return other.head, make_validation(
                    config, dataset, vocabulary, scored, val, prints=False
                )

            save_as_built(config, folder, models.head, validate, others)
            return dataset, _reusing(sources, examples)
        data = (training.source, training.labels)
        if system.fit is not None:
            seen = vocabulary.subset(group="seen").embeddings
            fit_head(config, folder, models.head, *data, seen, validate)
        else:
            prepare_head(models.head, config.head, training.labels)
            target = models.target(folder)
            with contextlib.ExitStack() as stack:
                observers: list[Observer] = []
                if workers.is_chief and config.training.tensorboard:
                    orientation = config.backbone.orientation
                    observers.append(_tensorboard(folder, dataset, vocabulary, models, orientation))
                if workers.is_chief and profiled_steps is not None:
                    observers.append(stack.enter_context(StepProfiler(folder, profiled_steps)))
                train(config, folder, workers.strategy, target, *data, validate, observers)
    return dataset, _reusing(sources, examples)


def _read_complete_run(
    config: RunConfig, folder: RunFolder, profiled_steps: int | None
) -> dict[str, Any]:
    """Prints the figures of a complete run, after comparing its data with those of today."""
    if profiled_steps is not None:
        raise UserError(
            f"--profile {profiled_steps}: {folder.path} is complete and has no step left; "
            "choose another folder with --set output=PATH"
        )
    missing = missing_places(config)
    if not missing:
        dataset = load_dataset(config.data)
        folder.check_same_data(config, dataset, class_vocabulary(config, dataset))
    metrics = folder.read_metrics()
    print(f"{folder.path} is complete already:\n\n{format_figures(metrics)}\n")
    print(_where_to_look(config, folder))
    if missing:
        print(f"not compared with its data: {', '.join(missing)} not found", flush=True)
    return metrics


def _check_profile(config: RunConfig, steps: int | None, photos: int) -> None:
    """Raises a UserError for more steps to profile than a run on `photos` photos makes."""
    system = SYSTEMS[config.head.system]
    if steps is not None and (system.fit is not None or not system.trained):
        raise UserError(
            f"--profile {steps}: head.system {config.head.system} is {_made(system)}, without steps"
        )
    settings = config.training
    check_profile(steps, settings.epochs * (photos // settings.batch_size))


def _made(system: System) -> str:
    return "solved at once" if system.trained else "not trained"


def _write_inputs(
    config: RunConfig,
    folder: RunFolder,
    examples: Examples,
    vocabulary: Vocabulary,
    backbone: keras.Model,
) -> None:
    """Creates the run's folder and writes what the run is made from."""
    dataset = examples.dataset
    folder.claim(config)
    with writing_to(folder.vocabulary):
        vocabulary.save(folder.vocabulary)
    folder.write_backbone_identity(config.backbone, backbone)
    hashed = config.data.hash_photos
    folder.write_data_manifest(
        describe_data(
            config.data.name, dataset, vocabulary, examples.broken, hashed, examples.sha256
        )
    )
    if config.backbone.trainable and config.data.max_broken_share:
        write_text(folder.path / BROKEN_PHOTOS, to_csv(examples.broken))
    if dataset.about.missing:
        write_text(folder.path / MISSING_PHOTOS, "\n".join(dataset.about.missing) + "\n")


def _tensorboard(
    folder: RunFolder,
    dataset: TaggingDataset,
    vocabulary: Vocabulary,
    models: Models,
    orientation: Orientation,
) -> TensorBoardWriter:
    """Returns a writer of TensorBoard's files, with the response maps of some photos."""
    split = dataset.split("val" if "val" in dataset.splits else final_split(dataset))

    def draw() -> Image.Image:
        explained = explain_photos(
            models.backbone,
            models.head,
            dataset,
            split,
            vocabulary,
            PHOTOS_ON_TENSORBOARD,
            orientation,
        )
        return make_contact_sheet(**sheet_contents(explained, dataset, split, vocabulary))

    write_projector(folder.tensorboard, vocabulary)
    return TensorBoardWriter(folder.tensorboard, draw)


def _reusing(sources: Mapping[str, Source], examples: Examples) -> MakeSource:
    """Returns a function from photos to their examples, which opens no source twice."""
    opened = {source.images: source for source in sources.values()}

    def make_source(images: Sequence[str]) -> Source:
        images = tuple(images)
        return opened[images] if images in opened else examples.source(images)

    return make_source


def _note_on_indexes(config: RunConfig) -> list[str]:
    system = SYSTEMS[config.head.system]
    if system.classifier is not None:
        return []
    return [
        f"An index of photos (python -m serving.index) of head.system {config.head.system} keeps "
        "their features, and each search runs the head: it is larger and slower than other heads'"
    ]


def _where_to_look(config: RunConfig, folder: RunFolder) -> str:
    """Returns lines that name the files in which the result is seen."""
    pictures = [str(path) for path in (folder.report_page, folder.contact_sheet) if path.exists()]
    looked_at = [f"Look at {' and '.join(pictures)}"] if pictures else []
    lines = [*looked_at, f"Every class: {folder.metrics}", *_note_on_indexes(config)]
    return "\n".join(lines)


def _next_commands(config: RunConfig, folder: RunFolder, split: str) -> str:
    model = pathlib.Path("models") / folder.path.name
    new_classes = ""
    if SYSTEMS[config.head.system].open_vocabulary:
        new_classes = ", also for classes that the run was not trained on"
    lines = [
        "Next:",
        "  export the model, and try it on your photos in the browser:",
        f"    {command_to_paste('serving.export', folder.path, model)}",
        f"    {command_to_paste('serving.demo', model)}",
        "  tag a folder of photos:",
        f"    {command_to_paste('serving.predict', 'MY_PHOTOS', '--model', folder.path)}",
        f"  evaluate it on any folder of labeled photos{new_classes}:",
        "    "
        + command_to_paste(
            "training.evaluate",
            *(folder.path, "--data", config.data.directory or "MY_PHOTOS", "--split", split),
            *("--output", "evaluation.json"),
        ),
    ]
    if config.data.name == "scenes":
        lines += [
            "  train on your own photos:",
            "    "
            + command_to_paste(
                "training.run",
                *("--config", "recommended", "--set", "data.directory=MY_PHOTOS"),
                *("--set", "vocabulary.word_vectors=glove.6B.300d.txt"),
                *("--set", "output=runs/my-photos"),
            ),
        ]
    return "\n".join(lines)
