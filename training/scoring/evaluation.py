"""Scores and metrics of a trained run on labeled photos."""

import pathlib
from collections.abc import Sequence

import numpy as np

from biam_tf.backbones.joint_space import joint_space
from biam_tf.embeddings.names import look_up
from biam_tf.embeddings.sources import DEFAULT_TEMPLATE, encodes_sentences, vocabulary_of
from biam_tf.embeddings.spaces import require_joint_space
from biam_tf.errors import UserError
from biam_tf.metrics import evaluate_scores, format_table, labels_of_classes
from biam_tf.metrics.bootstrap import bootstrap_intervals, number_of_resamples
from biam_tf.metrics.decisions import Decisions, definitions, f1_at_threshold
from biam_tf.metrics.figures_by_part import notes_on_classes
from biam_tf.metrics.reliability import reliability_lines, reliability_of_shown
from biam_tf.metrics.stacking import SeenUnseenCurve, harmonic_mean, seen_unseen_curve
from biam_tf.metrics.stored_scores import Scores
from biam_tf.models import build_tagger
from biam_tf.models.head import scores_alone
from biam_tf.models.systems import find_system
from biam_tf.progress import progress
from biam_tf.runs import TrainedRun
from biam_tf.sparse_labels import Labels
from biam_tf.thresholds import Thresholds
from biam_tf.vocabulary import Vocabulary, require_embedding_size
from training.data.dataset import About, TaggingDataset
from training.data.input.sources import FeatureSource, PhotoSource
from training.scoring.scorer import Scorer, make_scorer, score_examples

ATTRIBUTES_FILE = "class_attributes.csv"
EVALUATION_BATCH = 32
LEVEL = 0.95
TAGS_PER_PHOTO = 3


def score_split(
    run: TrainedRun,
    source: FeatureSource | PhotoSource,
    vocabulary: Vocabulary,
    label: str = "scoring",
) -> Scores:
    """Returns the scores (N, C), float32, of all examples of `source` for a vocabulary.

    More than a gigabyte of them is kept in a temporary file (`biam_tf.metrics.stored_scores`).

    Args:
        run: the trained run; its backbone is used if `source` yields photos.
        source: stored features or photos.
        vocabulary: any classes, in the run's embedding space.
        label: beginning of the progress line. Defaults to `"scoring"`.
    """
    scorer = _scorer_of(run, isinstance(source, PhotoSource))
    with progress(len(source), label, "photo") as bar:
        return score_examples(
            scorer,
            source.evaluation_batches(EVALUATION_BATCH),
            vocabulary.embeddings,
            len(source),
            bar.update,
        )


def _scorer_of(run: TrainedRun, of_photos: bool) -> Scorer:
    """Returns the compiled function that scores photos or stored features, made once for a run."""
    # It keeps its models, so that no other model gets their numbers.
    key = (id(run.head), id(run.backbone) if of_photos else None)
    if key not in run.scorers:
        model = scores_alone(run.head)
        run.scorers[key] = make_scorer(build_tagger(run.backbone, model) if of_photos else model)
    return run.scorers[key]


def evaluate_split(
    run: TrainedRun,
    source: FeatureSource | PhotoSource,
    labels: Labels,
    vocabulary: Vocabulary,
    label: str = "scoring",
    seed: int = 0,
    about: About | None = None,
) -> tuple[dict, Scores]:
    """Returns all metrics of a split, ready for JSON, and the scores (N, C) they are made from.

    The metrics are those of `evaluate_scores` and

    - "headline": which mean of average precisions papers on the data set report;
    - "partial": which part of the data set was missing, null if nothing was;
    - "bootstrap": 95 % intervals, `[low, high]`, of mAP and F1@3 of each part in which they are
      defined;
    - "at_threshold": micro, macro and sample F1 of each part at the run's thresholds, null
      without thresholds;
    - "reliability": `reliability_of_shown`, what the probabilities of the tags shown state and the
      share that is right, null without thresholds;
    - "calibrated_stacking": `stacking_figures`, null if a group of classes has no label.

    Args:
        run: the trained run.
        source: the examples of the split.
        labels: (N, C) of the same examples, +1, -1 or 0.
        vocabulary: the C classes.
        label: beginning of the progress line. Defaults to `"scoring"`.
        seed: of the bootstrap. Defaults to `0`.
        about: facts about the data set; None: nothing to report.
    """
    about = about or About()
    scores = score_split(run, source, vocabulary, label)
    convention = about.classes_without_positives
    metrics = evaluate_scores(
        scores,
        labels,
        vocabulary.names,
        vocabulary.groups,
        about.ks,
        classes_without_positives=convention,
    )
    metrics["headline"], metrics["partial"] = about.headline, about.partial
    intervals = bootstrap_intervals(
        scores,
        labels,
        vocabulary.groups,
        TAGS_PER_PHOTO,
        seed,
        level=LEVEL,
        classes_without_positives=convention,
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
    metrics["at_threshold"] = metrics["reliability"] = None
    if run.thresholds is not None:
        thresholds = run.thresholds.for_names(vocabulary.names)
        decisions = Decisions(scores, thresholds.cuts)
        metrics["at_threshold"] = {
            **f1_at_threshold(decisions, labels, vocabulary.groups, convention),
            "tags_per_image": decisions.tags_per_image(),
            "definitions": definitions(convention),
        }
        metrics["reliability"] = reliability_of_shown(
            scores,
            labels,
            vocabulary.groups,
            thresholds.slopes,
            thresholds.offsets,
            thresholds.cuts,
        )
    curve = stacking_curve(scores, labels, vocabulary.groups)
    metrics["calibrated_stacking"] = curve and stacking_figures(curve, run.thresholds)
    return metrics, scores


def stacking_curve(scores: Scores, labels: Labels, groups: Sequence[str]) -> SeenUnseenCurve | None:
    """Returns the curve of `biam_tf.metrics.stacking`, or None if a group has no label."""
    _, positives = labels_of_classes(labels)
    group_of_class = np.asarray(groups, dtype=object)
    both = all(positives[group_of_class == group].any() for group in ("seen", "unseen"))
    if not both or len(groups) < TAGS_PER_PHOTO:
        return None
    return seen_unseen_curve(scores, labels, groups, TAGS_PER_PHOTO)


def stacking_figures(curve: SeenUnseenCurve, thresholds: Thresholds | None) -> dict:
    """Returns the area under a curve, and its recalls without and with the calibration constant.

    The constant is the best one on the validation split, which the thresholds contain.
    """

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
    """Returns the metrics of `evaluate_split` as plain text, tables in per cent.

    Metrics of early runs, which had no thresholds, are shown without them.
    """
    text = "\n".join([format_table(metrics), *notes_on_classes(metrics)])
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
                values = (part[kind]["f1"] for kind in kinds)
                cells = ("-" if v is None else f"{100 * v:.1f}" for v in values)
                cells = (cell.rjust(9) for cell in cells)
                rows.append(name.ljust(14) + "  ".join(cells))
        rows.append(f"{at['tags_per_image']:.1f} tags a photo")
        text += "\n\n" + "\n".join(rows)
    if metrics.get("reliability"):
        text += "\n\n" + "\n".join(reliability_lines(metrics["reliability"]))
    stacking = metrics.get("calibrated_stacking")
    if stacking:
        k, best = stacking["k"], stacking["best_constant_on_validation"]
        text += f"\n\nrecall@{k} of all classes' joint ranking, seen and unseen labels: "
        text += _recalls(stacking["without_constant"])
        if best is not None:
            text += f"; with {best:.2f} subtracted from seen scores: "
            text += _recalls(stacking["with_best_constant"])
        text += f"; area under the curve {stacking['area']:.3f}"
    return text


def _recalls(recalls: dict) -> str:
    return f"{100 * recalls['seen_recall']:.1f} and {100 * recalls['unseen_recall']:.1f}"


def evaluation_vocabulary(
    run: TrainedRun, dataset: TaggingDataset, word_vectors: str | None = None
) -> Vocabulary:
    """Returns embeddings of a data set's classes in the run's embedding space.

    Args:
        run: the trained run.
        dataset: its classes need not be the run's.
        word_vectors: a file for all of the classes; `None` takes the run's own classes from the
            run, and the others from the file that the run was trained with.

    Raises:
        UserError: a class has no embedding, or embeddings of another length than the run's; or
            the run scores only its own classes, and there are others.
    """
    if not run.open_vocabulary:
        return _own_classes(run, dataset, word_vectors)
    if word_vectors is not None:
        if find_system(run.system).uses_joint_space:
            where, backbone = "--word-vectors", run.settings["backbone"]["name"]
            require_joint_space(joint_space(run.backbone), word_vectors, backbone, where)
        vocabulary = vocabulary_of(word_vectors, dataset.names, dataset.groups, _templates(run))
        require_embedding_size(vocabulary, run.vocabulary.embedding_size, word_vectors)
        return vocabulary
    own, known = run.vocabulary, {}
    for name in dataset.names:
        if (row := look_up(name, None, own.index).row) is not None:
            known[name] = own.embeddings[row]
    new = [name for name in dataset.names if name not in known]
    if new:
        path = run.word_vectors or dataset.directory / ATTRIBUTES_FILE
        if not encodes_sentences(str(path)) and not pathlib.Path(path).exists():
            reason = (
                f"its word vectors are not at {path} any more"
                if run.word_vectors
                else f"there are no embeddings for them: {path} does not exist"
            )
            more = ", ..." if len(new) > 1 else ""
            raise UserError(
                f"{len(new)} classes of {dataset.directory} are new to this run ({new[0]!r}{more}) "
                f"and {reason}; name a file of word vectors with --word-vectors"
            )
        vocabulary = vocabulary_of(str(path), new, ["unseen"] * len(new), _templates(run))
        require_embedding_size(vocabulary, run.vocabulary.embedding_size, str(path))
        known |= dict(zip(new, vocabulary.embeddings, strict=True))
    embeddings = np.stack([known[name] for name in dataset.names])
    return Vocabulary(dataset.names, embeddings, dataset.groups)


def _templates(run: TrainedRun) -> tuple[str, ...]:
    """Returns the texts that the run's encoder reads."""
    return tuple(run.settings["vocabulary"].get("templates") or (DEFAULT_TEMPLATE,))


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
