"""A whole run: data, features, models, training, figures, pictures."""

import contextlib
import dataclasses
import json
import pathlib
import time

import keras
import tensorflow as tf

from biam_tf.backbones import build_backbone
from biam_tf.baselines.known_classes import AlikeClasses
from biam_tf.contact_sheet import make_contact_sheet
from biam_tf.errors import UserError
from biam_tf.files import write_text, writing_to
from biam_tf.models import bind_vocabulary, build_tagger, scores_alone
from biam_tf.models.system import HeadInputs
from biam_tf.models.systems import SYSTEMS
from biam_tf.progress import progress_of_total
from biam_tf.vocabulary import Vocabulary
from training.config import RunConfig
from training.data.data_manifest import describe_data
from training.data.dataset import TaggingDataset
from training.data.folder.reader import ANNOTATIONS
from training.data.input.broken_photos import BROKEN_PHOTOS, to_csv
from training.data.input.sampling import make_sampler
from training.data.registry import DATA_SOURCES, load_dataset
from training.loop.closed_form import fit_head
from training.loop.cluster import read_tf_config
from training.loop.devices import computing_in, make_strategy
from training.loop.objective import Objective, make_objective, prepare_head, training_model
from training.loop.profiling import StepProfiler, check_profile
from training.loop.tensorboard import TensorBoardWriter, write_projector
from training.loop.trainer import Trainee, train
from training.loop.workers import Workers
from training.pipeline.examples import final_split, open_examples, scored_splits, trainable_photos
from training.pipeline.run_folder import RunFolder
from training.scoring.evaluation import (
    ATTRIBUTES_FILE,
    explain_photos,
    format_figures,
    sheet_contents,
)
from training.scoring.final_evaluation import MakeSource, evaluate_run
from training.scoring.scorer import make_scorer, score_examples

PHOTOS_ON_TENSORBOARD = 4
MISSING_PHOTOS = "missing_photos.txt"


def run(config: RunConfig, profiled_steps: int | None = None) -> dict | None:
    """Trains and evaluates what `config` describes, or what is left of it to do.

    Args:
        config: the settings; the run's folder is `config.output`.
        profiled_steps: training steps to profile, at least 1; None: none.

    Returns:
        The metrics on the test split (without one, on the validation split), as written to
        `metrics.json`; None in a worker that is not the chief.

    Raises:
        UserError: a setting, the data or the run's folder cannot be used as it is.
        WorkerLost: another worker of the run is gone.
    """
    started = time.perf_counter()
    folder = RunFolder(pathlib.Path(config.output))
    if config.strategy != "multi_worker" or read_tf_config().is_chief:
        folder.check_free_for(config)
    if folder.metrics.exists():
        if profiled_steps is not None:
            raise UserError(
                f"--profile {profiled_steps}: {folder.path} is complete and has no step left; "
                "choose another folder with --set output=PATH"
            )
        metrics = json.loads(folder.metrics.read_text())
        print(f"{folder.path} is complete already:\n\n{format_figures(metrics)}")
        return metrics

    strategy = make_strategy(config)
    workers = Workers(strategy)
    with workers.loss_of_one_ends_all():
        metrics = _train_and_evaluate(config, folder, strategy, workers, started, profiled_steps)
        # The others stay until all is written: a scheduler takes their end for that of the job.
        workers.wait_for_chief()
    return metrics


def _train_and_evaluate(config, folder, strategy, workers, started, profiled_steps) -> dict | None:
    dataset = open_dataset(config)
    vocabulary = class_vocabulary(config, dataset)
    with computing_in(config.training.precision):
        dataset, make_source = _train(
            config, folder, strategy, workers, dataset, vocabulary, profiled_steps
        )
    if not workers.is_chief:
        return None

    metrics = evaluate_run(config, folder, dataset, vocabulary, make_source)
    print(f"\n{format_figures(metrics)}\n\n{time.perf_counter() - started:.0f} s in all\n")
    print(_what_next(config, folder, dataset, metrics["split"]))
    return metrics


def class_vocabulary(config: RunConfig, dataset: TaggingDataset) -> Vocabulary:
    """Returns the embeddings of a data set's classes, from where the configuration says.

    Raises:
        UserError: no file is named and the data set brings none, or a class is not in it.
    """
    path = config.vocabulary.word_vectors
    if path is None:
        path = dataset.directory / ATTRIBUTES_FILE
        if not path.exists():
            raise UserError(
                "vocabulary.word_vectors: not set, and the data set has no "
                f"{path.name}; give a file of word vectors, for example GloVe's, with "
                "--set vocabulary.word_vectors=glove.6B.300d.txt"
            )
    return Vocabulary.from_file(path, dataset.names, dataset.groups)


def open_dataset(config: RunConfig) -> TaggingDataset:
    """Returns the data set of a configuration and says what is in it.

    Raises:
        UserError: as `load_dataset` does; or it has unseen classes and the system of the
            configuration cannot score them.
    """
    with progress_of_total(*DATA_SOURCES[config.data.name].work) as working:
        dataset = load_dataset(config.data, progress=working)
    counts = ", ".join(f"{len(split)} {name}" for name, split in dataset.splits.items())
    print(
        f"{dataset.directory}: {counts} photos; {len(dataset.seen)} seen and "
        f"{len(dataset.unseen)} unseen classes",
        flush=True,
    )
    for remark in dataset.about.remarks:
        print(f"  {remark}", flush=True)
    if dataset.about.partial:
        print(f"PARTIAL DATA: {dataset.about.partial}", flush=True)
    if len(dataset.unseen) and not SYSTEMS[config.head.system].open_vocabulary:
        raise UserError(
            f"head.system: {config.head.system} scores the classes that it is trained on and no "
            f"others, but {len(dataset.unseen)} classes of {dataset.directory} are unseen; set "
            "data.all_seen: true, with which they count as seen, or another head.system"
        )
    return dataset


@dataclasses.dataclass(frozen=True)
class Models:
    """What a run trains and scores with; the weights are shared.

    Attributes:
        backbone: photos to features.
        head: features and class embeddings to scores.
        trained: inputs of the training batches to scores over the seen classes, or to what the
            objective takes by name.
        objective: what training makes small.
        scored: the same inputs and any class embeddings to scores.
    """

    backbone: keras.Model
    head: keras.Model
    trained: keras.Model
    objective: Objective
    scored: keras.Model

    def trainee(self, folder: RunFolder) -> Trainee:
        """Returns what is trained, and which of it is kept where in a run's folder."""
        saved = {folder.model: self.head}
        if not self.backbone.trainable:  # features come in
            return Trainee(self.trained, self.objective, saved)
        saved |= {folder.backbone: self.backbone}
        return Trainee(self.trained, self.objective, saved, self.backbone)


def build_models(
    config: RunConfig, strategy: tf.distribute.Strategy, vocabulary: Vocabulary
) -> Models:
    """Builds backbone and head for a configuration, with the weights that its seed gives.

    Raises:
        UserError: the backbone's weights cannot be had, or the head does not fit its regions.
    """
    keras.utils.set_random_seed(config.training.seed)
    with strategy.scope():
        backbone = build_backbone(
            config.backbone.name,
            config.backbone.image_size,
            config.backbone.weights,
            trainable=config.backbone.trainable,
        )
        seen = vocabulary.subset(group="seen")
        head = _build_head(config, backbone, seen)
        bound = bind_vocabulary(training_model(head, config.head), seen.embeddings)
        objective = make_objective(head, config.head, config.training.loss)
        if not config.backbone.trainable:
            return Models(backbone, head, bound, objective, scores_alone(head))
        tagger = build_tagger(backbone, scores_alone(head))
        return Models(backbone, head, build_tagger(backbone, bound), objective, tagger)


def _train(
    config, folder, strategy, workers, dataset, vocabulary, profiled_steps
) -> tuple[TaggingDataset, MakeSource]:
    """Trains to the end; returns the data set without broken photos, and sources of its photos."""
    models = build_models(config, strategy, vocabulary)
    examples = open_examples(config, folder.path, dataset, models.backbone)
    dataset = examples.dataset
    train_split = trainable_photos(dataset, config.data.max_labels)
    labels = train_split.labels[:, dataset.seen]
    sampler = make_sampler(config.data, labels, config.training.seed, config.training.epochs)
    train_source = examples.source(train_split.images, sampler)
    evaluated = scored_splits(dataset) if workers.is_chief else []
    sources = {name: examples.source(dataset.split(name).images) for name in evaluated}
    validate = None
    if "val" in dataset.splits:
        validate = _validation(config, dataset, vocabulary, models.scored, sources.get("val"))
    elif config.training.patience is not None:
        raise UserError(
            f"training.patience: {config.training.patience}: there is no photo of split val to "
            "tell a better epoch by; set training.patience: null"
        )
    else:
        print("no photo of split val: the last epoch is kept, not the best", flush=True)
    _check_profile(config, profiled_steps, len(train_source))
    # Only now, with everything known to fit, is the folder taken.
    if workers.is_chief:
        folder.claim(config)
        with writing_to(folder.vocabulary):
            vocabulary.save(folder.vocabulary)
        folder.write_backbone_identity(config.backbone, models.backbone)
        hashed = config.data.hash_photos
        folder.write_data_manifest(
            describe_data(config.data.name, dataset, vocabulary, examples.broken, hashed)
        )
        if config.backbone.trainable and config.data.max_broken_share:
            write_text(folder.path / BROKEN_PHOTOS, to_csv(examples.broken))
        if dataset.about.missing:
            write_text(folder.path / MISSING_PHOTOS, "\n".join(dataset.about.missing) + "\n")
    if SYSTEMS[config.head.system].fit is not None:
        seen_embeddings = vocabulary.subset(group="seen").embeddings
        fit_head(config, folder, models.head, train_source, labels, seen_embeddings, validate)
        return dataset, _reusing(sources, examples)
    prepare_head(models.head, config.head, labels)
    observers = []
    if config.training.tensorboard and workers.is_chief:
        observers.append(_tensorboard(folder, dataset, vocabulary, models))
    trainee = models.trainee(folder)
    profiling = contextlib.nullcontext()
    if profiled_steps is not None and workers.is_chief:
        profiling = StepProfiler(folder, profiled_steps)
        observers.append(profiling)
    with profiling:
        train(config, folder, strategy, trainee, train_source, labels, validate, observers)
    return dataset, _reusing(sources, examples)


def _check_profile(config: RunConfig, steps: int | None, photos: int) -> None:
    """Raises the UserError for more steps to profile than a run on `photos` photos makes."""
    if steps is not None and SYSTEMS[config.head.system].fit is not None:
        raise UserError(
            f"--profile {steps}: head.system {config.head.system} is solved at once, without steps"
        )
    settings = config.training
    check_profile(steps, settings.epochs * (photos // settings.batch_size))


def _reusing(sources, examples) -> MakeSource:
    made = {source.images: source for source in sources.values()}
    return lambda images: made[images] if images in made else examples.source(images)


def _tensorboard(folder, dataset, vocabulary, models) -> TensorBoardWriter:
    """Writes how training goes for TensorBoard, with some photos' response maps."""
    split = dataset.split("val" if "val" in dataset.splits else final_split(dataset))

    def draw():
        explained = explain_photos(
            models.backbone, models.head, dataset, split, vocabulary, PHOTOS_ON_TENSORBOARD
        )
        return make_contact_sheet(**sheet_contents(explained, split, vocabulary))

    write_projector(folder.tensorboard, vocabulary)
    return TensorBoardWriter(folder.tensorboard, draw)


def _build_head(config, backbone, seen: Vocabulary) -> keras.Model:
    try:
        inputs = HeadInputs.of_shapes(
            backbone.output["region_features"].shape[1:],
            backbone.output["scene_feature"].shape[-1],
            seen.embedding_size,
            seen.embeddings,
        )
        return inputs.model(SYSTEMS[config.head.system].build(inputs, config.head.settings))
    except AlikeClasses as error:
        one, other = (seen.names[row] for row in error.rows)
        raise UserError(
            f"head.system: {config.head.system} knows a class by its embedding, and those of "
            f"{one!r} and {other!r} are the same; take one of the classes out, or other "
            "vocabulary.word_vectors"
        ) from error
    except ValueError as error:  # settings that do not fit this backbone's regions
        raise UserError(f"head: {error}") from error


def check_selectable(config: RunConfig, dataset: TaggingDataset) -> None:
    """Raises the UserError for a validation split that cannot tell which epoch is best."""
    part = config.training.select_on.split("_", 1)[0]
    shown = {"seen": dataset.seen, "zsl": dataset.unseen, "gzsl": slice(None)}[part]
    if not (dataset.split("val").labels[:, shown] > 0).any():
        raise UserError(
            f"training.select_on: {config.training.select_on}: no validation photo shows such a "
            "class; choose seen_mAP or seen_weighted_mAP"
        )


def _validation(config, dataset, vocabulary, model, source):
    """Returns a function that evaluates the model, as it then is, on the validation split."""
    from biam_tf.metrics import evaluate_scores

    labels = dataset.split("val").labels
    scorer = make_scorer(model)
    batch_size = config.training.batch_size

    def validate() -> dict:
        batches = source.evaluation_batches(batch_size)
        scores = score_examples(scorer, batches, vocabulary.embeddings, len(labels))
        ks = dataset.about.ks
        return evaluate_scores(scores, labels, vocabulary.names, vocabulary.groups, ks)

    check_selectable(config, dataset)
    return validate


def _what_next(config: RunConfig, folder: RunFolder, dataset: TaggingDataset, split: str) -> str:
    new_classes = ", classes it never heard of included"
    evaluating = [
        "  evaluate on any folder of photos"
        f"{new_classes * SYSTEMS[config.head.system].open_vocabulary}:",
        f"    python -m training.evaluate {folder.path} --data MY_PHOTOS --split {split} "
        "--output evaluation.json",
    ]
    if (dataset.directory / ANNOTATIONS).exists():
        evaluating[1] = evaluating[1].replace("MY_PHOTOS", str(dataset.directory))
    pictures = f"Look at {folder.report_page} and {folder.contact_sheet}"
    return "\n".join(
        [
            *([pictures] if config.training.report else []),
            f"Every class: {folder.metrics}",
            "",
            "Next:",
            *evaluating,
            "  train on your own photos:",
            "    python -m training.run --config configs/recommended.yaml "
            "--set data.directory=MY_PHOTOS \\",
            "        --set vocabulary.word_vectors=glove.6B.300d.txt --set output=runs/my-photos",
        ]
    )
