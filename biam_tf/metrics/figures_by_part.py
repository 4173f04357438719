"""All figures of a test set, for unseen classes ("zsl"), all classes ("gzsl") and seen classes."""

from collections.abc import Sequence

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
    labels: ArrayLike,
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
         "classes", "classes_without_positives", "images_without_positives",
         "per_class": {name: AP, null without a positive},
         "other_convention": {"mAP", "F1@3", "F1@5"}}

    F1@K is null if a part has fewer than K classes. "chance_mAP" is the expected mAP of a random
    order of the images. "other_convention" has the same figures with the other choice of both
    conventions (see `precision_and_f1`); weighted mAP is the same in both.

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

        def mean(
            values: np.ndarray, weighted: bool = False, convention: str = classes_without_positives
        ) -> float | None:
            result = mean_over_classes(values[columns], positives[columns], weighted, convention)
            return None if np.isnan(result) else result

        def f1s(convention: str) -> dict:
            return {
                f"F1@{k}": f1_of_best(best[part], k, convention)._asdict()
                if k <= len(columns)
                else None
                for k in ks
            }

        return {
            "mAP": mean(aps),
            "weighted_mAP": mean(aps, weighted=True),
            "chance_mAP": mean(chance),
            **f1s(images_without_positives),
            "classes": len(columns),
            "classes_without_positives": int((positives[columns] == 0).sum()),
            "images_without_positives": int((best[part].positives == 0).sum()),
            "per_class": {
                names[c]: float(aps[c]) if positives[c] else None for c in columns.tolist()
            },
            "other_convention": {"mAP": mean(aps, convention=other_classes), **f1s(other_images)},
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

    The key "headline", if present, names the mean of average precisions that comes first.
    """
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
        rows.append([name, str(part["classes"] if part else 0), *cells])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    )


def _other(value: str, choices: Sequence[str]) -> str:
    return choices[1 - choices.index(value)]
