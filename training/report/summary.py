"""The first screen of a report: how good, which classes work, what to do next, in plain words."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from biam_tf.command_line import command_to_paste
from biam_tf.metrics.figures_by_part import counted_classes, format_count
from biam_tf.models.systems import SYSTEMS
from biam_tf.runs import TrainedRun
from training.data.dataset import About
from training.report.classes import ClassFigures

GOOD, WEAK = 0.75, 0.5
NAMED = 6
# Classes with fewer training photos are hard to learn for any system.
FEW_TRAINING_PHOTOS = 10
# Points of mAP by which validation and test may differ before it is explained on the first screen.
NOTABLE_POINTS = 3.0
# The last epoch's gain from which more epochs are suggested, points of the validation figure.
STILL_RISING_POINTS = 0.5
MEANINGS = {
    "ZSL": "zero-shot learning: only unseen classes are ranked, which the model knows by their "
    "names' embeddings alone.",
    "GZSL": "generalized zero-shot learning: seen and unseen classes ranked together, as in use.",
    "mAP": "mean average precision: photos are ranked by a class's score; 100 if all that show it "
    "come first, by chance the share of photos that show it. The mean over the classes.",
}


@dataclasses.dataclass(frozen=True)
class Step:
    """Something to do next.

    Attributes:
        text: what and why.
        command: a command line to paste; empty: none.
    """

    text: str
    command: str = ""


@dataclasses.dataclass(frozen=True)
class Bands:
    """Classes by how well they are found.

    Attributes:
        good: number of classes with an average precision of at least `GOOD`.
        weak: number of classes below `WEAK`.
        classes: number of all.
        best: the names to show, best first.
        worst: the names to show, worst first.
    """

    good: int
    weak: int
    classes: int
    best: tuple[ClassFigures, ...]
    worst: tuple[ClassFigures, ...]


def in_words(metrics: Mapping[str, Any], part: str) -> str:
    """Returns how many tags of a part are right, and how many are found, as a sentence.

    With thresholds, tags are the classes that reach theirs; else, each photo's best ones.

    Args:
        metrics: of `evaluate_split`.
        part: "zsl", "gzsl" or "seen".
    """
    at = metrics["at_threshold"]
    if at:
        figures, tags = at[part]["micro"], "tags it gives"
    else:
        key = min(key for key in metrics[part] if key.startswith("F1@"))
        figures, tags = metrics[part][key], f"tags among each photo's {key[3:]} best"
    if not figures or figures["precision"] is None:
        return "Nothing can be measured: no photo shows these classes, or every one does."
    precision, recall = (100 * figures[kind] for kind in ("precision", "recall"))
    if not precision:
        return f"None of the {tags} is right."
    return (
        f"Of 100 {tags}, {precision:.0f} are right. Of 100 it should give, "
        f"{'it gives' if at else 'these are'} {recall:.0f}."
    )


def bands(classes: Sequence[ClassFigures]) -> Bands:
    """Returns which classes work and which do not; `classes` are ordered, best first."""
    good = [own for own in classes if own.ap >= GOOD]
    weak = [own for own in classes if own.ap < WEAK]
    # Where all are good, or all are weak, the best and the worst are named all the same.
    half = max(1, min(NAMED, len(classes) // 2))
    best = good or list(classes[:half])
    worst = weak or list(classes[-half:])
    return Bands(
        len(good), len(weak), len(classes), tuple(best[:NAMED]), tuple(worst[::-1][:NAMED])
    )


def next_steps(
    run: TrainedRun,
    metrics: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    shown: Bands,
    of_training: bool,
) -> list[Step]:
    """Returns what to do next, most useful first.

    Args:
        run: the trained run.
        metrics: of `evaluate_split`.
        records: of the run's log; empty: none.
        shown: its classes.
        of_training: whether the photos are the run's own.
    """
    folder = run.folder.path
    steps = []
    if of_training:
        steps += [*_more_photos(shown), *_more_epochs(run, records)]
        if run.thresholds is None:
            steps.append(
                Step("Label photos for split val: thresholds and probabilities are fitted to them.")
            )
        if SYSTEMS[run.system].trained:
            steps.append(
                Step(
                    "Look for wrong and missing labels among the training photos:",
                    command_to_paste("training.review", folder),
                )
            )
    model = pathlib.Path("models") / folder.resolve().name
    return [
        *steps,
        Step(
            "Tag a folder of photos:",
            command_to_paste("serving.predict", "MY_PHOTOS", "--model", folder),
        ),
        Step(
            "Try it in the browser:",
            f"{command_to_paste('serving.export', folder, model)}\n"
            f"{command_to_paste('serving.demo', model)}",
        ),
    ]


def _more_photos(shown: Bands) -> list[Step]:
    few = [
        own
        for own in shown.worst
        if own.group == "seen"
        and own.ap < GOOD
        and own.training is not None
        and own.training < FEW_TRAINING_PHOTOS
    ]
    if not few:
        return []
    names = ", ".join(f"{own.name} ({own.training})" for own in few)
    return [Step(f"Add training photos of weak classes that have few of them: {names}.")]


def _more_epochs(run: TrainedRun, records: Sequence[Mapping[str, Any]]) -> list[Step]:
    part = run.settings["training"]["select_on"].partition("_")[0]
    values = [record.get("validation", {}).get(part) for record in records[-2:]]
    if len(values) < 2 or None in values or records[-1]["best_epoch"] != records[-1]["epoch"]:
        return []
    gain = 100 * (values[1] - values[0])
    if gain < STILL_RISING_POINTS:
        return []
    folder, epochs = run.folder.path, 2 * run.settings["training"]["epochs"]
    return [
        Step(
            f"Train longer: the last epoch was the best, by {gain:.1f} points.",
            command_to_paste(
                "training.run",
                *("--config", run.folder.config, "--set", f"training.epochs={epochs}"),
                *("--set", f"output={folder}-{epochs}-epochs"),
            ),
        )
    ]


@dataclasses.dataclass(frozen=True)
class ValidationRow:
    """A part's mAP on validation photos, of the epoch that was kept, and on the others.

    Attributes:
        title: of the part.
        validation: mAP, 0 to 1.
        validation_classes: such as "149 of 205".
        test: mAP, 0 to 1.
        test_classes: likewise.
        is_alike: whether they differ by less than `NOTABLE_POINTS`.
    """

    title: str
    validation: float
    validation_classes: str
    test: float
    test_classes: str
    is_alike: bool


def against_validation(
    records: Sequence[Mapping[str, Any]],
    metrics: Mapping[str, Any],
    about: About,
    titles: Mapping[str, str],
) -> tuple[list[ValidationRow], list[str]]:
    """Returns the figures of validation beside those of the evaluation, and why they differ.

    Args:
        records: of the run's log.
        metrics: of `evaluate_split`, on other photos than those of the validation.
        about: the data set.
        titles: of the parts, in their order.
    """
    if not records or metrics["split"] == "val":
        return [], []
    best = records[records[-1]["best_epoch"] - 1]
    validation, counts = best.get("validation", {}), best.get("validation_classes", {})
    rows, counts_differ = [], []
    for part, title in titles.items():
        if part not in validation or metrics[part] is None or metrics[part]["mAP"] is None:
            continue
        own, other = counts.get(part), counted_classes(metrics, part)
        test = metrics[part]["mAP"]
        is_alike = abs(100 * (validation[part] - test)) < NOTABLE_POINTS
        if own and own[0] != other[0]:
            counts_differ.append(part)
        classes = format_count(*own) if own else "not known"
        rows.append(
            ValidationRow(title, validation[part], classes, test, format_count(*other), is_alike)
        )
    if not rows:
        return [], []
    reasons = []
    if "zsl" not in validation and metrics["zsl"] is not None and "gzsl" in validation:
        reasons.append(
            "No validation photo shows an unseen class: the validation figure of all classes is "
            "that of seen ones, which are easier."
        )
    elif counts_differ:
        reasons.append(
            "The means are over other classes: a class counts only where a photo shows it."
        )
    if not about.unseen_in_training:
        reasons.append(
            f"Photos of split {metrics['split']} show unseen classes as well, which resemble seen "
            "ones and are taken for them; validation photos do not."
        )
    reasons.append(
        "The epoch that is kept is the best one on the validation photos, which makes their figure "
        "slightly too good; and few photos make a figure uncertain (the intervals above)."
    )
    return rows, reasons
