"""A whole run: data, features, models, training, figures, pictures."""

import dataclasses
import json
import pathlib
import time

import keras
import numpy as np

from biam_tf.backbones import build_backbone
from biam_tf.contact_sheet import make_contact_sheet
from biam_tf.errors import UserError
from biam_tf.models import bind_vocabulary, build_head, build_tagger
from biam_tf.progress import progress
from biam_tf.vocabulary import Vocabulary
from training.config import RunConfig
from training.data.dataset import TaggingDataset
from training.data.feature_extraction import ensure_features
from training.data.registry import load_dataset
from training.data.sources import FeatureSource, PhotoSource
from training.devices import make_strategy
from training.evaluation import (
    ATTRIBUTES_FILE,
    explain_photos,
    format_figures,
    sheet_contents,
)
from training.final_evaluation import MakeSource, evaluate_run, final_split
from training.run_folder import RunFolder
from training.scoring import make_scorer, score_examples
from training.tensorboard import TensorBoardWriter, write_projector
from training.trainer import Trainee, train

PHOTOS_ON_TENSORBOARD = 4


def run(config: RunConfig) -> dict:
    """Trains and evaluates what `config` describes, or what is left of it to do.

    Args:
        config: the settings; the run's folder is `config.output`.

    Returns:
        The metrics on the test split (without one, on the validation split), as written to
        `metrics.json`.

    Raises:
        UserError: a setting, the data or the run's folder cannot be used as it is.
    """
    started = time.perf_counter()
    folder = RunFolder(pathlib.Path(config.output))
    folder.check_free_for(config)
    if folder.metrics.exists():
        metrics = json.loads(folder.metrics.read_text())
        print(f"{folder.path} is complete already:\n\n{format_figures(metrics)}")
        return metrics

    strategy = make_strategy(config)
    dataset = open_dataset(config)
    vocabulary = class_vocabulary(config, dataset)
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(config.training.precision)
    try:
        make_source = _train(config, folder, strategy, dataset, vocabulary)
    finally:
        keras.config.set_dtype_policy(policy)

    metrics = evaluate_run(config, folder, dataset, vocabulary, make_source)
    print(f"\n{format_figures(metrics)}\n\n{time.perf_counter() - started:.0f} s in all\n")
    print(_what_next(folder, dataset, metrics["split"]))
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
    """Returns the run's data set, drawn where need be, and says what is in it."""
    bars = []

    def drawing(done: int, total: int) -> None:
        if not bars:
            bars.append(progress(total, "drawing pictures", "picture"))
        bars[0].update(done - bars[0].n)

    dataset = load_dataset(config.data, progress=drawing)
    for bar in bars:
        bar.close()
    counts = ", ".join(f"{len(split)} {name}" for name, split in dataset.splits.items())
    print(
        f"{dataset.directory}: {counts} photos; {len(dataset.seen)} seen and "
        f"{len(dataset.unseen)} unseen classes",
        flush=True,
    )
    return dataset


def _train(config, folder, strategy, dataset, vocabulary) -> MakeSource:
    """Trains to the end; returns what makes sources of photos, for evaluation."""
    keras.utils.set_random_seed(config.training.seed)
    with strategy.scope():
        backbone = build_backbone(
            config.backbone.name,
            config.backbone.image_size,
            config.backbone.weights,
            trainable=config.backbone.trainable,
        )
        head = _build_head(config, backbone, vocabulary)
        model = bind_vocabulary(head, vocabulary.subset(group="seen").embeddings)
        saved = {folder.model: head}
        scored = head
        if config.backbone.trainable:
            model = build_tagger(backbone, model)
            scored = build_tagger(backbone, head)
            saved[folder.backbone] = backbone

    train_split = _labeled_by_seen(dataset)
    make_source = source_maker(config, folder.path, dataset, backbone)
    train_source = make_source(train_split.images)
    sources = {name: make_source(dataset.split(name).images) for name in _evaluated(dataset)}
    validate = None
    if "val" in dataset.splits:
        validate = _validation(config, dataset, vocabulary, scored, sources["val"])
    else:
        print("no photo of split val: the last epoch is kept, not the best", flush=True)
    labels = train_split.labels[:, dataset.seen]
    # Only now, with everything known to fit, is the folder taken.
    folder.claim(config)
    vocabulary.save(folder.vocabulary)
    folder.write_backbone_identity(config.backbone, backbone)
    observers = _observers(config, folder, dataset, vocabulary, backbone, head)
    trainee = Trainee(model, saved)
    train(config, folder, strategy, trainee, train_source, labels, validate, observers)
    made = {source.images: source for source in sources.values()}
    return lambda images: made[images] if images in made else make_source(images)


def _observers(config, folder, dataset, vocabulary, backbone, head) -> list[TensorBoardWriter]:
    """Who is told how training goes: TensorBoard, with some photos' response maps."""
    if not config.training.tensorboard:
        return []
    split = dataset.split("val" if "val" in dataset.splits else final_split(dataset))

    def draw():
        explained = explain_photos(
            backbone, head, dataset, split, vocabulary, PHOTOS_ON_TENSORBOARD
        )
        return make_contact_sheet(**sheet_contents(explained, split, vocabulary))

    write_projector(folder.tensorboard, vocabulary)
    return [TensorBoardWriter(folder.tensorboard, draw)]


def _build_head(config, backbone, vocabulary) -> keras.Model:
    try:
        return build_head(
            backbone.output["region_features"].shape[1:],
            backbone.output["scene_feature"].shape[-1],
            vocabulary.embedding_size,
            **config.head.keywords(),
        )
    except ValueError as error:  # settings that do not fit this backbone's regions
        raise UserError(f"head: {error}") from error


def _labeled_by_seen(dataset: TaggingDataset):
    """The training photos that show a seen class; the others have nothing to rank."""
    split = dataset.split("train")
    kept = np.flatnonzero((split.labels[:, dataset.seen] > 0).any(axis=1))
    if len(kept) < len(split):
        print(f"{len(split) - len(kept)} training photos show no seen class: left out", flush=True)
    if not len(kept):
        raise UserError(f"{dataset.directory}: no training photo shows a seen class")
    return dataclasses.replace(
        split, images=tuple(split.images[i] for i in kept), labels=split.labels[kept]
    )


def source_maker(
    config: RunConfig, run: pathlib.Path, dataset: TaggingDataset, backbone: keras.Model
) -> MakeSource:
    """Returns a function of image names to examples: photos, or their stored features.

    Args:
        config: settings of the run.
        run: its folder; features are stored beside it unless the settings say where.
        dataset: holds the photos.
        backbone: gives the features, unless it is trained.
    """
    if config.backbone.trainable:
        size = backbone.input_shape[1]
        return lambda images: PhotoSource(
            dataset.directory, images, size, config.data.cache, progress=progress
        )
    location = (
        run.parent
        / "features"
        / (f"{dataset.fingerprint}-{config.backbone.name}-{backbone.input_shape[1]}")
    )
    store = ensure_features(config, dataset, backbone, location)
    return lambda images: FeatureSource(store, images, config.data.cache)


def _validation(config, dataset, vocabulary, model, source):
    """Returns a function that evaluates the model, as it then is, on the validation split."""
    from biam_tf.metrics import evaluate_scores

    labels = dataset.split("val").labels
    scorer = make_scorer(model)
    batch_size = config.training.batch_size

    def validate() -> dict:
        batches = source.evaluation_batches(batch_size)
        scores = score_examples(scorer, batches, vocabulary.embeddings)
        return evaluate_scores(scores, labels, vocabulary.names, vocabulary.groups)

    part = config.training.select_on.removesuffix("_mAP")
    shown = {"seen": dataset.seen, "zsl": dataset.unseen, "gzsl": slice(None)}[part]
    if not (labels[:, shown] > 0).any():
        raise UserError(
            f"training.select_on: {config.training.select_on}: no validation photo shows such a "
            "class; choose seen_mAP"
        )
    return validate


def _evaluated(dataset: TaggingDataset) -> list[str]:
    """Names of the splits whose examples are scored during or after training."""
    return sorted({final_split(dataset), *({"val"} & dataset.splits.keys())})


def _what_next(folder: RunFolder, dataset: TaggingDataset, split: str) -> str:
    return "\n".join(
        [
            f"Look at {folder.report_page} and {folder.contact_sheet}",
            f"Every class: {folder.metrics}",
            "",
            "Next:",
            "  evaluate on any folder of photos, classes it never heard of included:",
            f"    python -m training.evaluate {folder.path} --data {dataset.directory} "
            f"--split {split} --output evaluation.json",
            "  train on your own photos:",
            "    python -m training.run --config configs/corel5k.yaml "
            "--set data.directory=MY_PHOTOS \\",
            "        --set vocabulary.word_vectors=glove.6B.300d.txt --set output=runs/my-photos",
        ]
    )
