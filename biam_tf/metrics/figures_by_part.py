"""All figures of a test set, for unseen classes ("zsl"), all classes ("gzsl") and seen classes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from biam_tf.metrics.precision_and_f1 import (
    CLASS_CONVENTIONS,
    IMAGE_CONVENTIONS,
    check_choice,
    checked,
    expected_average_precision,
    f1_of_best,
    mean_over_classes,
)
from biam_tf.metrics.ranking import rank_classes, right_among_best
from biam_tf.metrics.stored_scores import Scores
from biam_tf.sparse_labels import Labels


def columns_of_parts(groups: Sequence[str]) -> dict[str, np.ndarray]:
    """Returns the columns of the classes that compete in each part of an evaluation.

    Args:
        groups: "seen" or "unseen" for each class.

    Returns:
        "zsl": the unseen classes, "gzsl": all, "seen": the seen ones; any may be empty.
    """
    group_of = np.asarray(groups, dtype=object)
    return {
        "zsl": np.flatnonzero(group_of == "unseen"),
        "gzsl": np.arange(len(group_of)),
        "seen": np.flatnonzero(group_of == "seen"),
    }


def evaluate_scores(
    scores: Scores | ArrayLike,
    labels: Labels | ArrayLike,
    names: Sequence[str],
    groups: Sequence[str],
    ks: Sequence[int] = (3, 5),
    images_without_positives: str = "left_out",
    classes_without_positives: str = "zero",
) -> dict:
    """Returns all figures of a test set, in the form of a run's metrics.json.

    Three parts: "zsl" ranks the unseen classes alone, "seen" the seen classes alone, "gzsl" all of
    them together. A part without classes is null; the others are::

        {"mAP", "weighted_mAP", "chance_mAP",
         "F1@3": {"f1", "precision", "recall"}, "F1@5": {...},
         "classes", "classes_counted", "classes_without_positives", "classes_without_negatives",
         "images_without_positives",
         "per_class": {name: AP, null where it is undefined},
         "other_convention": {"mAP", "classes_counted", "F1@3", "F1@5"}}

    The average precision of a class is undefined without a positive, and without a negative (where
    it would be 1 whatever the scores are). A class without a negative never counts;
    "classes_counted" is the number of classes that mAP is the mean over. A mean over no defined
    average precision is null, and so is F1@K without a positive, or with fewer than K classes in
    the part. "chance_mAP" is the expected mAP of a random order of the images.
    "other_convention" has the same figures with the other choice of both conventions (see
    `precision_and_f1`); weighted mAP is the same in both.

    Args:
        scores: (N, C) floating scores.
        labels: (N, C) of +1, -1, 0.
        names: the C class names, all different.
        groups: "seen" or "unseen" for each class.
        ks: the Ks of F1@K.
        images_without_positives: "left_out" of F1 (the default: most photos show no class of a
            small unseen set, and only those that do can be tagged correctly) or "counted".
        classes_without_positives: "zero" or "left_out" of the plain mAP.

    Returns:
        `{"zsl", "gzsl", "seen", "images": N, "convention"}`, fractions 0-1, ready for JSON.

    Raises:
        ValueError: for names or groups that do not match, and as `average_precision` does.
    """
    check_choice("images_without_positives", images_without_positives, IMAGE_CONVENTIONS)
    check_choice("classes_without_positives", classes_without_positives, CLASS_CONVENTIONS)
    scores, labels = checked(scores, labels)
    if not len(names) == len(set(names)) == len(groups) == labels.shape[1]:
        raise ValueError(
            f"{len(names)} names ({len(set(names))} different) and {len(groups)} groups for "
            f"{labels.shape[1]} columns of scores; each class needs its own name and one group"
        )
    for group in groups:
        check_choice("group of a class", group, ("seen", "unseen"))

    ranked = rank_classes(scores, labels)
    aps, positives = ranked.average_precisions(without_positives=0.0), ranked.positives
    negatives = ranked.labeled - positives
    is_defined = (positives > 0) & (negatives > 0)
    lacks_negatives = (positives > 0) & (negatives == 0)
    chance = expected_average_precision(ranked.labeled, positives, len(labels))
    parts = {part: own for part, own in columns_of_parts(groups).items() if len(own)}
    best_of_parts = right_among_best(scores, labels, max(ks, default=1), list(parts.values()))
    best = dict(zip(parts, best_of_parts, strict=True))
    other_images = _other(images_without_positives, IMAGE_CONVENTIONS)
    other_classes = _other(classes_without_positives, CLASS_CONVENTIONS)

    def figures(part: str) -> dict | None:
        if part not in parts:
            return None
        columns = parts[part]

        with_negatives = columns[~lacks_negatives[columns]]
        defined = int(is_defined[columns].sum())
        counted = {"left_out": defined, "zero": len(with_negatives) if defined else 0}

        def mean(
            values: np.ndarray, weighted: bool = False, convention: str = classes_without_positives
        ) -> float | None:
            if not defined:
                return None
            own = with_negatives
            return mean_over_classes(values[own], positives[own], weighted, convention)

        def f1s(convention: str) -> dict:
            return {
                f"F1@{k}": f1_of_best(best[part], k, convention)._asdict()
                if k <= len(columns) and positives[columns].any()
                else None
                for k in ks
            }

        return {
            "mAP": mean(aps),
            "weighted_mAP": mean(aps, weighted=True),
            "chance_mAP": mean(chance),
            **f1s(images_without_positives),
            "classes": len(columns),
            "classes_counted": counted[classes_without_positives],
            "classes_without_positives": int((positives[columns] == 0).sum()),
            "classes_without_negatives": int(lacks_negatives[columns].sum()),
            "images_without_positives": int((best[part].positives == 0).sum()),
            "per_class": {
                names[c]: float(aps[c]) if is_defined[c] else None for c in columns.tolist()
            },
            "other_convention": {
                "mAP": mean(aps, convention=other_classes),
                "classes_counted": counted[other_classes],
                **f1s(other_images),
            },
        }

    return {
        "zsl": figures("zsl"),
        "gzsl": figures("gzsl"),
        "seen": figures("seen"),
        "images": len(labels),
        "convention": {
            "images_without_positives": images_without_positives,
            "classes_without_positives": classes_without_positives,
        },
    }


def format_table(metrics: dict) -> str:
    """Returns the figures of `evaluate_scores` as plain text in per cent, one row per part.

    A figure that is undefined is "-". The column "classes" has the number of classes that count in
    mAP, and of all, where these differ. The key "headline", if present, names the mean of average
    precisions that comes first.
    """
    metrics = _with_undefined(metrics)
    parts = {"ZSL": metrics["zsl"], "GZSL": metrics["gzsl"], "seen": metrics["seen"]}
    f1s = [key for part in parts.values() if part for key in part if key.startswith("F1@")]
    means = sorted(["mAP", "weighted_mAP"], key=lambda mean: mean != metrics.get("headline", "mAP"))
    figures = [*means, *dict.fromkeys(f1s), "chance_mAP"]

    def cell(part: dict, figure: str) -> str:
        value = part[figure]["f1"] if isinstance(part[figure], dict) else part[figure]
        return "-" if value is None else f"{100 * value:.1f}"

    rows = [["per cent", "classes", *(figure.replace("_", " ") for figure in figures)]]
    for name, part in parts.items():
        cells = [cell(part, figure) for figure in figures] if part else ["-"] * len(figures)
        rows.append([name, format_count(*counted_classes(metrics, name.lower())), *cells])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    )


def counted_classes(metrics: Mapping[str, Any], part: str) -> tuple[int, int]:
    """Returns the number of classes that count in a part's mAP, and of all its classes.

    Args:
        metrics: of `evaluate_scores`; those of early versions lack the first number, which is then
            taken from their convention.
        part: "zsl", "gzsl" or "seen".
    """
    own = metrics[part]
    if not own:
        return 0, 0
    classes = own.get("classes", len(own.get("per_class", ())))
    without = own.get("classes_without_positives", 0)
    if without == classes:
        return 0, classes
    counted = classes if class_convention(metrics) == "zero" else classes - without
    return own.get("classes_counted", counted), classes


def class_convention(metrics: Mapping[str, Any]) -> str:
    """Returns what a class without a positive counts in metrics' mAP: "zero" or "left_out"."""
    return (metrics.get("convention") or {}).get("classes_without_positives", "zero")


def format_count(counted: int, classes: int) -> str:
    """Returns "149 of 205", or "205" if all of them count."""
    return str(classes) if counted == classes else f"{counted} of {classes}"


def notes_on_classes(metrics: Mapping[str, Any]) -> list[str]:
    """Returns a sentence on each part of which not all classes have an average precision."""
    notes = []
    for part, title in (("zsl", "ZSL"), ("gzsl", "GZSL"), ("seen", "seen")):
        own = metrics[part]
        if own is None:
            continue
        counted, classes = counted_classes(metrics, part)
        positive, negative = (
            own.get(f"classes_without_{x}", 0) for x in ("positives", "negatives")
        )
        if positive == classes:
            notes.append(f"{title}: no photo shows one of these classes; nothing can be measured")
        elif not counted:
            notes.append(
                f"{title}: no class has photos that show it and photos known not to show it, so "
                "that no average precision is defined"
            )
        elif positive or negative:
            zero = " and count as 0, as in the published protocol"
            lacking = []
            if positive:
                is_zero = counted > classes - positive - negative
                lacking.append(f"{positive} have no photo that shows them{zero * is_zero}")
            if negative:
                lacking.append(f"{negative} have no photo known not to show them")
            notes.append(
                f"{title}: {counted} of {classes} classes count in mAP; " + "; ".join(lacking)
            )
    return notes


def leaving_out(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Returns metrics whose mAP is the mean over the classes that have a positive.

    Metrics of early versions count the other classes as 0, and have this figure beside it. Their
    weighted mAP is the same, and their other figures stay as they are.
    """
    result = _with_undefined(metrics)
    if class_convention(metrics) == "left_out":
        return result
    for part in ("zsl", "gzsl", "seen"):
        own = result.get(part)
        if not own:
            continue
        _, classes = counted_classes(metrics, part)
        counted = classes - own.get("classes_without_positives", 0)
        other = own.get("other_convention", {})
        share = counted / classes
        chance = own.get("chance_mAP")
        result[part] = own | {
            "mAP": other.get("mAP") if counted else None,
            "classes_counted": other.get("classes_counted", counted),
            "chance_mAP": chance / share if chance is not None and share else None,
            "other_convention": other | {"mAP": own["mAP"]},
        }
    convention = metrics.get("convention") or {}
    result["convention"] = convention | {"classes_without_positives": "left_out"}
    return result


def of_one_convention(several: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns metrics that can be compared: all as they are, or all `leaving_out` classes."""
    conventions = {class_convention(metrics) for metrics in several}
    if len(conventions) <= 1:
        return [_with_undefined(metrics) for metrics in several]
    return [leaving_out(metrics) for metrics in several]


def _with_undefined(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Returns metrics with null for what is undefined, which was 0 in those of early versions."""
    result = dict(metrics)
    for part in ("zsl", "gzsl", "seen"):
        own = metrics.get(part)
        if own and "classes" in own and not counted_classes(metrics, part)[0]:
            undefined = {"mAP", "weighted_mAP", "chance_mAP", *(k for k in own if "F1@" in k)}
            result[part] = {k: None if k in undefined else value for k, value in own.items()}
    return result


def _other(value: str, choices: Sequence[str]) -> str:
    return choices[1 - choices.index(value)]
