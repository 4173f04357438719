"""A whole run: data, features, models, training, figures, pictures."""

import dataclasses
import json
import pathlib
import time

import keras
import numpy as np

from biam_tf.backbones import build_backbone
from biam_tf.errors import UserError
from biam_tf.metrics import format_table
from biam_tf.models import bind_vocabulary, build_head, build_tagger
from biam_tf.progress import progress
from biam_tf.runs import load_run
from biam_tf.vocabulary import Vocabulary
from training.config import RunConfig
from training.data.broken_photos import BROKEN_PHOTOS, to_csv, without_photos
from training.data.dataset import TaggingDataset
from training.data.feature_extraction import ensure_features
from training.data.photo_check import broken_photos
from training.data.registry import load_dataset
from training.data.sampling import make_sampler
from training.data.sources import FeatureSource, PhotoSource
from training.devices import make_strategy
from training.evaluation import ATTRIBUTES_FILE, draw_sheet, evaluate_split
from training.run_folder import RunFolder, write_json, write_text
from training.scoring import make_scorer, score_examples
from training.trainer import Trainee, train


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
        print(f"{folder.path} is complete already:\n\n{format_table(metrics)}")
        return metrics

    strategy = make_strategy(config)
    dataset = _load_dataset(config)
    vocabulary = class_vocabulary(config, dataset)
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(config.training.precision)
    try:
        dataset, sources = _train(config, folder, strategy, dataset, vocabulary)
    finally:
        keras.config.set_dtype_policy(policy)

    trained = load_run(folder.path)
    split = _final_split(dataset)
    labels = dataset.split(split).labels
    metrics, _ = evaluate_split(
        trained, sources[split], labels, vocabulary, f"evaluating on {split}"
    )
    metrics["split"] = split
    sheet = folder.report / "contact_sheet.png"
    draw_sheet(trained, sheet, dataset, dataset.split(split), vocabulary, _sheet_title(config))
    write_json(folder.metrics, metrics)
    print(f"\n{format_table(metrics)}\n\n{time.perf_counter() - started:.0f} s in all\n")
    print(_what_next(folder, dataset, split, sheet))
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


def _load_dataset(config: RunConfig) -> TaggingDataset:
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


def _train(config, folder, strategy, dataset, vocabulary) -> tuple[TaggingDataset, dict]:
    """Trains to the end; returns the data set without broken photos, and its splits' sources."""
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

    dataset, broken, make_source = _examples(config, folder, dataset, backbone)
    train_split = _labeled_by_seen(dataset, config.data.max_labels)
    labels = train_split.labels[:, dataset.seen]
    sampler = make_sampler(config.data, labels, config.training.seed, config.training.epochs)
    train_source = make_source(train_split.images, sampler)
    sources = {name: make_source(dataset.split(name).images) for name in _evaluated(dataset)}
    validate = None
    if "val" in dataset.splits:
        validate = _validation(config, dataset, vocabulary, scored, sources["val"])
    else:
        print("no photo of split val: the last epoch is kept, not the best", flush=True)
    # Only now, with everything known to fit, is the folder taken.
    folder.claim(config)
    vocabulary.save(folder.vocabulary)
    folder.write_backbone_identity(config.backbone, backbone)
    if config.backbone.trainable and config.data.max_broken_share:
        write_text(folder.path / BROKEN_PHOTOS, to_csv(broken))
    train(config, folder, strategy, Trainee(model, saved), train_source, labels, validate)
    return dataset, sources


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


def _labeled_by_seen(dataset: TaggingDataset, max_labels: int | None):
    """The training photos that show a seen class, the others having nothing to rank; nor too many.

    Args:
        dataset: its training photos.
        max_labels: photos with more seen labels are left out as well.
    """
    split = dataset.split("train")
    shown = (split.labels[:, dataset.seen] > 0).sum(axis=1)
    if not shown.any():
        raise UserError(f"{dataset.directory}: no training photo shows a seen class")
    if not shown.all():
        print(f"{(shown == 0).sum()} training photos show no seen class: left out", flush=True)
    kept = shown > 0
    if max_labels is not None:
        kept &= shown <= max_labels
        crowded = (shown > max_labels).sum()
        print(f"{crowded} training photos have more than {max_labels} labels: left out", flush=True)
        if not kept.any():
            raise UserError(
                f"data.max_labels: {max_labels}, but no training photo has so few seen labels; "
                f"the fewest are {shown[shown > 0].min()}"
            )
    kept = np.flatnonzero(kept)
    return dataclasses.replace(
        split, images=tuple(split.images[i] for i in kept), labels=split.labels[kept]
    )


def _examples(config, folder, dataset, backbone):
    """Finds the examples of a run: photos, or their stored features.

    Returns:
        The data set without the photos that cannot be read, these, and a function of image names
        to a source. With a sampler that is a source of training examples.
    """
    size = backbone.input_shape[1]
    if config.backbone.trainable:
        broken = broken_photos(
            dataset, size, config.data.max_broken_share, folder.path / BROKEN_PHOTOS
        )

        def make_source(images, sampler=None):
            varied = {} if sampler is None else {"augmentation": config.data.augmentation}
            return PhotoSource(
                dataset.directory,
                images,
                size,
                config.data.cache,
                progress=progress,
                sampler=sampler,
                **varied,
            )

    else:
        name = f"{dataset.fingerprint}-{config.backbone.name}-{size}"
        location = folder.path.parent / "features" / name
        store = ensure_features(config, dataset, backbone, location)
        broken = store.broken

        def make_source(images, sampler=None):
            return FeatureSource(store, images, config.data.cache, sampler=sampler)

    return without_photos(dataset, {photo.image for photo in broken}), broken, make_source


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


def _final_split(dataset: TaggingDataset) -> str:
    return "test" if "test" in dataset.splits else "val" if "val" in dataset.splits else "train"


def _evaluated(dataset: TaggingDataset) -> list[str]:
    """Names of the splits whose examples are scored during or after training."""
    return sorted({_final_split(dataset), *({"val"} & dataset.splits.keys())})


def _sheet_title(config: RunConfig) -> str:
    return f"{config.output}: top tags and where they were seen"


def _what_next(folder: RunFolder, dataset: TaggingDataset, split: str, sheet) -> str:
    return "\n".join(
        [
            f"Look at {sheet}",
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
