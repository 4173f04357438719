"""F1 of tags that were given or not: micro, macro and sample F1 of decisions at a threshold.

Labels are +1 present, -1 absent, 0 unknown; what is unknown counts neither for nor against.
Conventions are those of `biam_tf.metrics.evaluate_scores`: a class without a positive counts as
0 in the mean over classes, an image without a positive is left out of the mean over images.
"""

from collections.abc import Sequence

import numpy as np

DEFINITIONS = {
    "micro": "precision, recall and F1 of all decisions of all classes together",
    "macro": "mean over classes of their precision, recall and F1; a class without a positive "
    "counts as 0, as it does in mAP",
    "sample": "mean over images of their precision, recall and F1; images without a positive "
    "are left out",
}


def decision_f1(decisions, labels) -> dict[str, dict[str, float]]:
    """Micro, macro and sample F1.

    A precision without a tag given, a recall without a positive and an F1 without either are 0.

    Args:
        decisions: (N, C) bool, the tags that are given.
        labels: (N, C) of +1, -1, 0.

    Returns:
        `{"micro": {"f1", "precision", "recall"}, "macro": {...}, "sample": {...}}`, fractions
        0-1. Macro and sample F1 are means of F1, not the F1 of mean precision and recall.

    Raises:
        ValueError: for shapes that don't fit.
    """
    decisions, labels = np.asarray(decisions, bool), np.asarray(labels)
    if decisions.ndim != 2 or decisions.shape != labels.shape:
        raise ValueError(
            f"decisions {decisions.shape} and labels {labels.shape} don't fit: both must be "
            "(images, classes)"
        )
    present = labels > 0
    right, given = decisions & present, decisions & (labels != 0)
    by_class = [x.sum(axis=0) for x in (right, given, present)]
    by_image = [x.sum(axis=1)[present.any(axis=1)] for x in (right, given, present)]
    return {
        "micro": _means([np.array([x.sum()]) for x in by_class]),
        "macro": _means(by_class),
        "sample": _means(by_image),
    }


def f1_at_threshold(decisions, labels, groups: Sequence[str]) -> dict:
    """`decision_f1` of the unseen classes ("zsl"), all ("gzsl") and the seen ones ("seen").

    A part without classes is null; the decision on a class does not depend on the others, so
    the parts are slices of the same decisions.
    """
    groups = np.asarray(groups, dtype=object)
    decisions, labels = np.asarray(decisions), np.asarray(labels)
    parts = {"zsl": groups == "unseen", "gzsl": np.ones(len(groups), bool)}
    parts["seen"] = groups == "seen"
    return {
        name: decision_f1(decisions[:, own], labels[:, own]) if own.any() else None
        for name, own in parts.items()
    }


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
