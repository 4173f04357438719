"""Figures of a trained run on labeled photos, and the sheet of pictures beside them."""

import pathlib
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from biam_tf.contact_sheet import draw_contact_sheet
from biam_tf.errors import UserError
from biam_tf.metrics import evaluate_scores
from biam_tf.models import build_tagger
from biam_tf.models.head import with_response_maps
from biam_tf.photos import decode_photo
from biam_tf.progress import progress
from biam_tf.runs import TrainedRun
from biam_tf.vocabulary import Vocabulary, require_embedding_size
from training.data.dataset import Split, TaggingDataset
from training.data.sources import FeatureSource, PhotoSource
from training.scoring import make_scorer, score_examples

ATTRIBUTES_FILE = "class_attributes.csv"
EVALUATION_BATCH = 32
PHOTOS_ON_SHEET = 12


def score_split(
    run: TrainedRun,
    source: FeatureSource | PhotoSource,
    vocabulary: Vocabulary,
    label: str = "scoring",
) -> np.ndarray:
    """Returns the scores (N, C), float32, of all examples of `source` for a vocabulary.

    Args:
        run: the trained run; its backbone is used where `source` gives photos.
        source: stored features or photos.
        vocabulary: any classes, in the run's embedding space.
        label: what the progress line calls it.
    """
    model = run.head
    if isinstance(source, PhotoSource):
        model = build_tagger(run.backbone, run.head)
    with progress(len(source), label, "photo") as bar:
        return score_examples(
            make_scorer(model),
            source.evaluation_batches(EVALUATION_BATCH),
            vocabulary.embeddings,
            bar.update,
        )


def evaluate_split(
    run: TrainedRun,
    source: FeatureSource | PhotoSource,
    labels: np.ndarray,
    vocabulary: Vocabulary,
    label: str = "scoring",
) -> tuple[dict, np.ndarray]:
    """Returns the metrics of `evaluate_scores` and the scores (N, C) behind them."""
    scores = score_split(run, source, vocabulary, label)
    return evaluate_scores(scores, labels, vocabulary.names, vocabulary.groups), scores


def evaluation_vocabulary(
    run: TrainedRun, dataset: TaggingDataset, word_vectors: str | None = None
) -> Vocabulary:
    """Returns embeddings of a data set's classes in the run's embedding space.

    Args:
        run: the trained run.
        dataset: its classes need not be the run's.
        word_vectors: a file for all of the classes; `None` takes those the run knows from the
            run, and the others from the file that the run was trained with.

    Raises:
        UserError: a class has no embedding, or the file's have another length than the run's.
    """
    if word_vectors is not None:
        vocabulary = Vocabulary.from_file(word_vectors, dataset.names, dataset.groups)
        require_embedding_size(vocabulary, run.vocabulary.embedding_size, word_vectors)
        return vocabulary
    known = dict(zip(run.vocabulary.names, run.vocabulary.embeddings, strict=True))
    new = [name for name in dataset.names if name not in known]
    if new:
        path = run.word_vectors or dataset.directory / ATTRIBUTES_FILE
        if not pathlib.Path(path).exists():
            raise UserError(
                f"{len(new)} classes of {dataset.directory} are new to this run ({new[0]!r}, ...) "
                f"and its word vectors are not at {path} any more; name the file with "
                "--word-vectors"
            )
        vocabulary = Vocabulary.from_file(path, new, ["unseen"] * len(new))
        require_embedding_size(vocabulary, run.vocabulary.embedding_size, str(path))
        known |= dict(zip(new, vocabulary.embeddings, strict=True))
    embeddings = np.stack([known[name] for name in dataset.names])
    return Vocabulary(dataset.names, embeddings, dataset.groups)


def draw_sheet(
    run: TrainedRun,
    path: pathlib.Path,
    dataset: TaggingDataset,
    split: Split,
    vocabulary: Vocabulary,
    title: str,
) -> None:
    """Draws some photos of a split with their top tags and response maps into a PNG.

    Photos are spread evenly over the split, those with an unseen class first.
    """
    chosen = _photos_to_show(split, dataset.unseen)
    photos = [
        decode_photo(tf.io.read_file(str(dataset.photo_path(split.images[i]))), run.image_size)
        for i in chosen
    ]
    has_maps = "pooled_features" not in [layer.name for layer in run.head.layers]
    head = with_response_maps(run.head) if has_maps else run.head
    scorer = make_scorer(build_tagger(run.backbone, head))
    embeddings = tf.convert_to_tensor(vocabulary.embeddings)
    outputs = scorer({"images": tf.stack(photos)}, embeddings)
    path.parent.mkdir(parents=True, exist_ok=True)
    draw_contact_sheet(
        path,
        [np.asarray(photo).round().astype(np.uint8) for photo in photos],
        vocabulary.names,
        vocabulary.groups,
        outputs["scores"].numpy(),
        labels=split.labels[chosen],
        response_maps=outputs["response_maps"].numpy() if has_maps else None,
        title=title,
    )


def _photos_to_show(split: Split, unseen: np.ndarray) -> Sequence[int]:
    with_unseen = np.flatnonzero((split.labels[:, unseen] > 0).any(axis=1))
    pool = with_unseen if len(with_unseen) >= PHOTOS_ON_SHEET else np.arange(len(split))
    spread = np.linspace(0, len(pool) - 1, min(PHOTOS_ON_SHEET, len(pool)))
    return pool[spread.round().astype(int)]
