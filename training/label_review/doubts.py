"""Which labels are probably wrong: a ranking of the labels that out-of-fold scores contradict.

Within a fold, scores are calibrated to the probability that a photo carries the label
(`biam_tf.metrics.calibration`). A label of a photo is doubted more, the smaller its own probability
is: of a class that is labeled, that of the class; of one that is not, one minus it. This is the
order of cleanlab's scores of single labels ("self-confidence"). Unknown labels cannot be wrong.

How many labels are wrong and how many are missing is not known, and their probabilities do not
compare: most labels are of absent classes and near 0. So the most doubted of each kind alternate.
"""

import dataclasses
from collections.abc import Iterable

import numpy as np

from biam_tf.metrics.calibration import fit_classes, sigmoid
from biam_tf.sparse_labels import Labels
from training.data.folder.corrections import ABSENT, PRESENT
from training.label_review.folds import FoldScores


@dataclasses.dataclass(frozen=True)
class Doubt:
    """A label that the model doubts.

    Attributes:
        row: the photo's position in the split.
        column: the class's position among the reviewed classes.
        label: "present" or "absent", as it is given.
        probability: that the photo shows the class, by a model that has not seen the photo.
    """

    row: int
    column: int
    label: str
    probability: float


def rank_doubts(folds: Iterable[FoldScores], labels: Labels, most: int) -> list[Doubt]:
    """Returns the labels that are most probably wrong, the most doubted first.

    Args:
        folds: scores of the photos by models that have not seen them.
        labels: (N, S) of all photos, +1, -1 or 0.
        most: the number of labels.
    """
    found: dict[str, list[Doubt]] = {PRESENT: [], ABSENT: []}
    for fold in folds:
        own = labels[fold.rows]
        if not (own > 0).any():
            continue  # nothing to calibrate to
        scores = fold.scores.astype(np.float64)
        probabilities = sigmoid(fit_classes(scores, own).logits(scores))
        for label, sign in ((PRESENT, 1), (ABSENT, -1)):
            rows, columns = np.nonzero(own == sign)
            values = probabilities[rows, columns]
            best = np.argsort(sign * values, kind="stable")[:most]
            found[label] += [
                Doubt(int(fold.rows[rows[i]]), int(columns[i]), label, float(values[i]))
                for i in best
            ]
    wrong = sorted(found[PRESENT], key=lambda own: own.probability)
    missing = sorted(found[ABSENT], key=lambda own: -own.probability)
    pairs = max(len(wrong), len(missing))
    alternating = [
        own for i in range(pairs) for kind in (wrong, missing) for own in kind[i : i + 1]
    ]
    return alternating[:most]
