"""Micro, macro and sample F1 of decisions at a threshold.

Labels are +1 present, -1 absent, 0 unknown; unknown ones are ignored. Conventions are those of
`biam_tf.metrics.evaluate_scores`: a class without a positive counts as 0 in the mean over classes
or is left out of it, a class without a negative is left out, and so is an image without a positive
of the mean over images. Without any positive, or any negative, all figures are undefined.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from biam_tf.metrics.figures_by_part import columns_of_parts
from biam_tf.metrics.precision_and_f1 import CLASS_CONVENTIONS, check_choice
from biam_tf.metrics.slices import in_threads, row_blocks
from biam_tf.metrics.stored_scores import Scores, as_scores
from biam_tf.sparse_labels import Labels, as_labels


def definitions(classes_without_positives: str = "zero") -> dict[str, str]:
    """Returns what the three figures are, in words."""
    counts = {"zero": "counts as 0, as it does in mAP", "left_out": "is left out, as in mAP"}
    return {
        "micro": "precision, recall and F1 of all decisions of all classes together",
        "macro": "mean over classes of their precision, recall and F1; a class without a positive "
        + counts[classes_without_positives],
        "sample": "mean over images of their precision, recall and F1; images without a positive "
        "are left out",
    }


DEFINITIONS = definitions()

# F1, precision and recall, each None where there is nothing to measure.
Figures = dict[str, float | None]


class Decisions:
    """Which classes are tags of each image, (N, C) bool; rows are computed when they are read.

    Attributes:
        scores: (N, C) floating scores.
        cuts: (C,) a class is a tag if its score is at least this.
    """

    def __init__(self, scores: Scores | ArrayLike, cuts: ArrayLike) -> None:
        self.scores: Scores = as_scores(scores)
        self.cuts = np.asarray(cuts)

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C)."""
        return self.scores.shape

    def __getitem__(self, rows: slice) -> np.ndarray:
        return self.scores[rows] >= self.cuts

    def tags_per_image(self) -> float:
        """Returns the mean number of tags per image."""
        given = in_threads(lambda rows: int(np.count_nonzero(self[rows])), row_blocks(self.scores))
        return sum(given) / len(self.scores)


def decision_f1(
    decisions: Decisions | ArrayLike,
    labels: Labels | ArrayLike,
    classes_without_positives: str = "zero",
) -> dict[str, Figures]:
    """Returns micro, macro and sample F1.

    A precision without tags, a recall without positives and an F1 without either are 0.

    Args:
        decisions: (N, C) bool or `Decisions`, the tags.
        labels: (N, C) of +1, -1, 0.
        classes_without_positives: "zero" or "left_out" of the mean over classes.

    Returns:
        `{"micro": {"f1", "precision", "recall"}, "macro": {...}, "sample": {...}}`, fractions
        0-1; None without any positive or without any negative label. Macro and sample F1 are
        means of F1, not the F1 of mean precision and recall.

    Raises:
        ValueError: for shapes that do not match.
    """
    labels = as_labels(labels)
    columns = np.arange(*labels.shape[1:])
    return _f1_of_parts(decisions, labels, [columns], classes_without_positives)[0]


def f1_at_threshold(
    decisions: Decisions | ArrayLike,
    labels: Labels | ArrayLike,
    groups: Sequence[str],
    classes_without_positives: str = "zero",
) -> dict[str, dict[str, Figures] | None]:
    """Returns `decision_f1` of the unseen classes ("zsl"), all ("gzsl") and the seen ones ("seen").

    A part without classes is None. The decision on a class does not depend on the other classes,
    so the parts are slices of the same decisions.
    """
    parts = columns_of_parts(groups)
    columns = {part: own for part, own in parts.items() if len(own)}
    labels = as_labels(labels)
    found = _f1_of_parts(decisions, labels, list(columns.values()), classes_without_positives)
    return dict.fromkeys(parts) | dict(zip(columns, found, strict=True))


def counts_of_classes(
    decisions: Decisions | ArrayLike, labels: Labels | ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
    """Returns how often each class is a tag of an image with a label for it, and how often rightly.

    Args:
        decisions: (N, C) bool or `Decisions`, the tags.
        labels: (N, C) of +1, -1, 0.

    Returns:
        (C,) int, images that have the tag and a label of +1 or -1, and (C,) those with +1.
    """
    labels = as_labels(labels)
    decisions = decisions if isinstance(decisions, Decisions) else np.asarray(decisions, bool)

    def count(rows: slice) -> np.ndarray:
        given = decisions[rows]
        kinds = given & (labels[rows] != 0), given & (labels[rows] > 0)
        return np.stack([np.count_nonzero(kind, axis=0) for kind in kinds])

    read = decisions.scores if isinstance(decisions, Decisions) else decisions
    given, right = sum(in_threads(count, row_blocks(read)), np.zeros((2, labels.shape[1]), int))
    return given, right


def _f1_of_parts(
    decisions: Decisions | ArrayLike,
    labels: Labels,
    parts: Sequence[np.ndarray],
    classes_without_positives: str,
) -> list[dict[str, Figures]]:
    """`decision_f1` of several sets of columns, in one pass over the decisions."""
    check_choice("classes_without_positives", classes_without_positives, CLASS_CONVENTIONS)
    decisions = decisions if isinstance(decisions, Decisions) else np.asarray(decisions, bool)
    if len(decisions.shape) != 2 or decisions.shape != labels.shape:
        raise ValueError(
            f"decisions {decisions.shape} and labels {labels.shape} do not match: both must be "
            "(images, classes)"
        )

    def count(rows: slice) -> tuple[np.ndarray, list[np.ndarray]]:
        given, present = decisions[rows], labels[rows] > 0
        kinds = given & present, given & (labels[rows] != 0), present, labels[rows] < 0
        return (
            np.stack([np.count_nonzero(x, axis=0) for x in kinds]),
            [np.stack([np.count_nonzero(x[:, own], axis=1) for x in kinds]) for own in parts],
        )

    read = decisions.scores if isinstance(decisions, Decisions) else decisions
    blocks = in_threads(count, row_blocks(read)) or [count(slice(0, 0))]
    # Right, given, present and absent: (4, C).
    by_class = np.sum([of_classes for of_classes, _ in blocks], axis=0)
    result = []
    for part, columns in enumerate(parts):
        own = by_class[:, columns]
        _, _, present, absent = own
        if not present.any() or not absent.any():
            nothing: Figures = {"f1": None, "precision": None, "recall": None}
            result.append({kind: dict(nothing) for kind in DEFINITIONS})
            continue
        counts = absent > 0
        if classes_without_positives == "left_out":
            counts &= present > 0
        else:
            counts |= present == 0
        by_image = np.concatenate([of_images[part] for _, of_images in blocks], axis=1)
        result.append(
            {
                "micro": _means(own.sum(axis=1, keepdims=True)),
                "macro": _means(own[:, counts]),
                "sample": _means(by_image[:, by_image[2] > 0]),
            }
        )
    return result


def _means(counts: np.ndarray) -> Figures:
    right, given, present, _ = counts.astype(np.float64)

    def mean_ratio(numerator: np.ndarray, denominator: np.ndarray) -> float | None:
        ratio = np.divide(
            numerator, denominator, out=np.zeros(len(numerator)), where=denominator > 0
        )
        return float(ratio.mean()) if len(ratio) else None

    return {
        "f1": mean_ratio(2 * right, given + present),
        "precision": mean_ratio(right, given),
        "recall": mean_ratio(right, present),
    }
