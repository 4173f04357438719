"""Figures of a trained run on labeled photos, and the sheet of pictures beside them."""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from biam_tf.contact_sheet import draw_contact_sheet
from biam_tf.errors import UserError
from biam_tf.files import writing_to
from biam_tf.metrics import evaluate_scores, format_table, labels_of_classes
from biam_tf.metrics.bootstrap import bootstrap_intervals, number_of_resamples
from biam_tf.metrics.decisions import DEFINITIONS, Decisions, f1_at_threshold
from biam_tf.metrics.stacking import SeenUnseenCurve, harmonic_mean, seen_unseen_curve
from biam_tf.metrics.stored_scores import Scores
from biam_tf.models import build_tagger
from biam_tf.models.head import response_map_layer, scores_alone, with_response_maps
from biam_tf.photos import decode_photo
from biam_tf.progress import progress
from biam_tf.runs import TrainedRun
from biam_tf.thresholds import Thresholds
from biam_tf.vocabulary import Vocabulary, require_embedding_size
from training.data.dataset import About, Split, TaggingDataset
from training.data.input.sources import FeatureSource, PhotoSource
from training.scoring.scorer import make_scorer, score_examples

ATTRIBUTES_FILE = "class_attributes.csv"
EVALUATION_BATCH = 32
PHOTOS_ON_SHEET = 12
LEVEL = 0.95
TAGS_PER_PHOTO = 3


def score_split(
    run: TrainedRun,
    source: FeatureSource | PhotoSource,
    vocabulary: Vocabulary,
    label: str = "scoring",
) -> Scores:
    """Returns the scores (N, C), float32, of all examples of `source` for a vocabulary.

    More than a gigabyte of them lies in a temporary file (`biam_tf.metrics.stored_scores`).

    Args:
        run: the trained run; its backbone is used where `source` gives photos.
        source: stored features or photos.
        vocabulary: any classes, in the run's embedding space.
        label: what the progress line calls it.
    """
    model = scores_alone(run.head)
    if isinstance(source, PhotoSource):
        model = build_tagger(run.backbone, model)
    with progress(len(source), label, "photo") as bar:
        return score_examples(
            make_scorer(model),
            source.evaluation_batches(EVALUATION_BATCH),
            vocabulary.embeddings,
            len(source),
            bar.update,
        )


def evaluate_split(
    run: TrainedRun,
    source: FeatureSource | PhotoSource,
    labels: np.ndarray,
    vocabulary: Vocabulary,
    label: str = "scoring",
    seed: int = 0,
    about: About | None = None,
) -> tuple[dict, Scores]:
    """Returns all figures of a split, ready for JSON, and the scores (N, C) behind them.

    The figures are those of `evaluate_scores` and, beside them,

    - "headline": which mean of average precisions papers on the data set report;
    - "partial": what of the data set was not there, null where everything was;
    - "bootstrap": 95 % intervals, `[low, high]`, of mAP and F1@3 of each part;
    - "at_threshold": micro, macro and sample F1 of each part at the run's thresholds, null
      without any;
    - "calibrated_stacking": `stacking_figures`, null where not both groups have a label.
    """
    about = about or About()
    scores = score_split(run, source, vocabulary, label)
    metrics = evaluate_scores(scores, labels, vocabulary.names, vocabulary.groups, about.ks)
    metrics["headline"], metrics["partial"] = about.headline, about.partial
    intervals = bootstrap_intervals(
        scores, labels, vocabulary.groups, TAGS_PER_PHOTO, seed, level=LEVEL
    )
    metrics["bootstrap"] = {
        "resamples": number_of_resamples(labels),
        "seed": seed,
        "level": LEVEL,
        **{
            part: {figure: [own.low, own.high] for figure, own in figures.items()}
            for part, figures in intervals.items()
        },
    }
    metrics["at_threshold"] = None
    if run.thresholds is not None:
        thresholds = run.thresholds.for_names(vocabulary.names)
        decisions = Decisions(scores, thresholds.cuts)
        metrics["at_threshold"] = {
            **f1_at_threshold(decisions, labels, vocabulary.groups),
            "tags_per_image": decisions.tags_per_image(),
            "definitions": DEFINITIONS,
        }
    curve = stacking_curve(scores, labels, vocabulary.groups)
    metrics["calibrated_stacking"] = curve and stacking_figures(curve, run.thresholds)
    return metrics, scores


def stacking_curve(scores, labels, groups: Sequence[str]) -> SeenUnseenCurve | None:
    """The curve of `biam_tf.metrics.stacking`, or None where a group has no label."""
    _, positives = labels_of_classes(labels)
    groups = np.asarray(groups, dtype=object)
    both = all(positives[groups == group].any() for group in ("seen", "unseen"))
    return (
        seen_unseen_curve(scores, labels, groups, TAGS_PER_PHOTO)
        if both and len(groups) >= TAGS_PER_PHOTO
        else None
    )


def stacking_figures(curve: SeenUnseenCurve, thresholds: Thresholds | None) -> dict:
    """The area under a curve, and its recalls without a constant and with validation's best."""

    def at(constant: float) -> dict:
        seen, unseen = curve.at(constant)
        both = float(harmonic_mean(seen, unseen))
        return {"seen_recall": seen, "unseen_recall": unseen, "harmonic_mean": both}

    best = None if thresholds is None else thresholds.stacking
    return {
        "k": curve.k,
        "area": curve.area,
        "without_constant": at(0.0),
        "best_constant_on_validation": best and best["constant"],
        "with_best_constant": best and at(best["constant"]),
    }


def format_figures(metrics: dict) -> str:
    """Returns the figures of `evaluate_split` as plain text, tables in per cent.

    Metrics of runs made before there were thresholds are shown as far as they go.
    """
    text = format_table(metrics)
    if metrics.get("partial"):
        text = (
            f"PARTIAL DATA, not comparable with published figures: {metrics['partial']}\n\n{text}"
        )
    at = metrics.get("at_threshold")
    if at:
        kinds = ("micro", "macro", "sample")
        rows = ["at threshold  " + "  ".join(f"{kind} F1".rjust(9) for kind in kinds)]
        for name, part in (("ZSL", at["zsl"]), ("GZSL", at["gzsl"]), ("seen", at["seen"])):
            if part:
                cells = (f"{100 * part[kind]['f1']:.1f}".rjust(9) for kind in kinds)
                rows.append(name.ljust(14) + "  ".join(cells))
        rows.append(f"{at['tags_per_image']:.1f} tags a photo")
        text += "\n\n" + "\n".join(rows)
    stacking = metrics.get("calibrated_stacking")
    if stacking:
        k, best = stacking["k"], stacking["best_constant_on_validation"]
        text += f"\n\nrecall@{k} of all classes' joint ranking, seen and unseen labels: "
        text += _recalls(stacking["without_constant"])
        if best is not None:
            text += f"; with {best:.2f} taken off seen scores: "
            text += _recalls(stacking["with_best_constant"])
        text += f"; area under the curve {stacking['area']:.3f}"
    return text


def _recalls(recalls: dict) -> str:
    return f"{100 * recalls['seen_recall']:.1f} and {100 * recalls['unseen_recall']:.1f}"


def as_trained(dataset: TaggingDataset, run: TrainedRun) -> TaggingDataset:
    """Returns the data set with a run's classes seen, if `data.all_seen` made them so there."""
    if not run.all_seen:
        return dataset
    return dataset.counting_as_seen(run.vocabulary.subset(group="seen").names)


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
        UserError: a class has no embedding, or the file's have another length than the run's;
            or the run scores no classes but its own, and there are others.
    """
    if not run.open_vocabulary:
        return _own_classes(run, dataset, word_vectors)
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


def _own_classes(run: TrainedRun, dataset: TaggingDataset, word_vectors: str | None) -> Vocabulary:
    scores = f"the head of {run.folder.path} ({run.system}) scores the classes it was trained on"
    if word_vectors is not None:
        raise UserError(f"--word-vectors {word_vectors}: {scores}, by its own embeddings of them")
    own = set(run.vocabulary.names)
    new = [name for name in dataset.names if name not in own]
    if new:
        raise UserError(
            f"{scores} and no others, but {len(new)} classes of {dataset.directory} are new to it "
            f"({new[0]!r}, ...); make them 'ignored' there, or evaluate a run of another system"
        )
    embeddings = run.vocabulary.subset(dataset.names).embeddings
    return Vocabulary(dataset.names, embeddings, dataset.groups)


@dataclasses.dataclass(frozen=True, eq=False)
class ExplainedPhotos:
    """Some photos of a split and what the model makes of them.

    Attributes:
        rows: (P,) which photos of the split.
        pixels: (P, S, S, 3) uint8, as the model takes them.
        scores: (P, C).
        response_maps: (P, h, w, C); None: the head classifies no regions.
    """

    rows: np.ndarray
    pixels: np.ndarray
    scores: np.ndarray
    response_maps: np.ndarray | None


def explain_photos(
    backbone, head, dataset: TaggingDataset, split: Split, vocabulary: Vocabulary, count: int
) -> ExplainedPhotos:
    """Scores some photos, spread evenly over a split, those with an unseen class first.

    Args:
        backbone: takes the photos.
        head: its response maps are given, where it has any.
        dataset: where the photos lie.
        split: which are chosen from.
        vocabulary: the classes.
        count: how many photos.
    """
    rows = _photos_to_show(split, dataset.unseen, count)
    size = backbone.input_shape[1]
    photos = tf.stack(
        [
            decode_photo(tf.io.read_file(str(dataset.photo_path(split.images[i]))), size)
            for i in rows
        ]
    )
    has_maps = response_map_layer(head) is not None
    tagger = build_tagger(backbone, with_response_maps(head) if has_maps else head)
    inputs = {"images": photos, "class_embeddings": tf.constant(vocabulary.embeddings)}
    # Called once, so that compiling it would take longer than running it.
    outputs = tagger([inputs[tensor.name] for tensor in tagger.inputs], training=False)
    return ExplainedPhotos(
        rows,
        photos.numpy().round().astype(np.uint8),
        (outputs["scores"] if has_maps else outputs).numpy(),
        np.asarray(outputs["response_maps"], np.float32) if has_maps else None,
    )


def draw_sheet(
    explained: ExplainedPhotos,
    path: pathlib.Path,
    split: Split,
    vocabulary: Vocabulary,
    title: str,
) -> None:
    """Draws photos of a split with their top tags and response maps into a PNG."""
    with writing_to(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_contact_sheet(path, **sheet_contents(explained, split, vocabulary), title=title)


def sheet_contents(explained: ExplainedPhotos, split: Split, vocabulary: Vocabulary) -> dict:
    """Returns the arguments of `biam_tf.contact_sheet.make_contact_sheet` for these photos."""
    return {
        "photos": list(explained.pixels),
        "names": vocabulary.names,
        "groups": vocabulary.groups,
        "scores": explained.scores,
        "labels": split.labels[explained.rows],
        "response_maps": explained.response_maps,
    }


def _photos_to_show(split: Split, unseen: np.ndarray, count: int) -> np.ndarray:
    with_unseen = np.flatnonzero((split.labels[:, unseen] > 0).any(axis=1))
    pool = with_unseen if len(with_unseen) >= count else np.arange(len(split))
    spread = np.linspace(0, len(pool) - 1, min(count, len(pool)))
    return pool[spread.round().astype(int)]
