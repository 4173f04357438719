"""F1 of tags that were given or not: micro, macro and sample F1 of decisions at a threshold.

Labels are +1 present, -1 absent, 0 unknown; what is unknown counts neither for nor against.
Conventions are those of `biam_tf.metrics.evaluate_scores`: a class without a positive counts as
0 in the mean over classes, an image without a positive is left out of the mean over images.
"""

from collections.abc import Sequence

import numpy as np

from biam_tf.metrics.slices import NUMBERS, in_threads, row_blocks
from biam_tf.metrics.stored_scores import Scores, as_scores

DEFINITIONS = {
    "micro": "precision, recall and F1 of all decisions of all classes together",
    "macro": "mean over classes of their precision, recall and F1; a class without a positive "
    "counts as 0, as it does in mAP",
    "sample": "mean over images of their precision, recall and F1; images without a positive "
    "are left out",
}


class Decisions:
    """Which tags are given, (N, C) bool; rows are decided when they are read.

    Attributes:
        scores: (N, C) floating.
        cuts: (C,) a class is a tag where its score is at least this.
    """

    def __init__(self, scores, cuts):
        self.scores: Scores = as_scores(scores)
        self.cuts = np.asarray(cuts)

    @property
    def shape(self) -> tuple[int, int]:
        """(N, C)."""
        return self.scores.shape

    def __getitem__(self, rows: slice) -> np.ndarray:
        return self.scores[rows] >= self.cuts

    def tags_per_image(self) -> float:
        """Returns the mean number of tags of an image."""
        given = in_threads(
            lambda rows: int(np.count_nonzero(self[rows])), row_blocks(self.scores, NUMBERS)
        )
        return sum(given) / len(self.scores)


def decision_f1(decisions, labels) -> dict[str, dict[str, float]]:
    """Micro, macro and sample F1.

    A precision without a tag given, a recall without a positive and an F1 without either are 0.

    Args:
        decisions: (N, C) bool or `Decisions`, the tags that are given.
        labels: (N, C) of +1, -1, 0.

    Returns:
        `{"micro": {"f1", "precision", "recall"}, "macro": {...}, "sample": {...}}`, fractions
        0-1. Macro and sample F1 are means of F1, not the F1 of mean precision and recall.

    Raises:
        ValueError: for shapes that don't fit.
    """
    labels = np.asarray(labels)
    return _f1_of_parts(decisions, labels, [np.arange(*labels.shape[1:])])[0]


def f1_at_threshold(decisions, labels, groups: Sequence[str]) -> dict:
    """`decision_f1` of the unseen classes ("zsl"), all ("gzsl") and the seen ones ("seen").

    A part without classes is null; the decision on a class does not depend on the others, so
    the parts are slices of the same decisions.
    """
    groups = np.asarray(groups, dtype=object)
    parts = {"zsl": groups == "unseen", "gzsl": np.ones(len(groups), bool)}
    parts["seen"] = groups == "seen"
    columns = {part: np.flatnonzero(own) for part, own in parts.items() if own.any()}
    found = _f1_of_parts(decisions, np.asarray(labels), list(columns.values()))
    return dict.fromkeys(parts) | dict(zip(columns, found, strict=True))


def _f1_of_parts(decisions, labels: np.ndarray, parts: Sequence[np.ndarray]) -> list[dict]:
    """`decision_f1` of some choices of columns, in one pass over the decisions."""
    decisions = decisions if isinstance(decisions, Decisions) else np.asarray(decisions, bool)
    if len(decisions.shape) != 2 or decisions.shape != labels.shape:
        raise ValueError(
            f"decisions {decisions.shape} and labels {labels.shape} don't fit: both must be "
            "(images, classes)"
        )

    def count(rows: slice) -> tuple[np.ndarray, list[np.ndarray]]:
        given, present = decisions[rows], labels[rows] > 0
        kinds = given & present, given & (labels[rows] != 0), present
        return (
            np.stack([np.count_nonzero(x, axis=0) for x in kinds]),
            [np.stack([np.count_nonzero(x[:, own], axis=1) for x in kinds]) for own in parts],
        )

    read = decisions.scores if isinstance(decisions, Decisions) else decisions
    blocks = in_threads(count, row_blocks(read, NUMBERS)) or [count(slice(0, 0))]
    by_class = sum(of_classes for of_classes, _ in blocks)  # right, given and present: (3, C)
    result = []
    for part, columns in enumerate(parts):
        own = by_class[:, columns]
        by_image = np.concatenate([of_images[part] for _, of_images in blocks], axis=1)
        result.append(
            {
                "micro": _means(own.sum(axis=1, keepdims=True)),
                "macro": _means(own),
                "sample": _means(by_image[:, by_image[2] > 0]),
            }
        )
    return result


def _means(counts) -> dict[str, float]:
    right, given, present = (x.astype(np.float64) for x in counts)

    def mean_ratio(numerator: np.ndarray, denominator: np.ndarray) -> float:
        ratio = np.divide(
            numerator, denominator, out=np.zeros(len(numerator)), where=denominator > 0
        )
        return float(ratio.mean()) if len(ratio) else 0.0

    return {
        "f1": mean_ratio(2 * right, given + present),
        "precision": mean_ratio(right, given),
        "recall": mean_ratio(right, present),
    }
