"""The figures of each class in a report, and which classes are the best and the worst."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from biam_tf.metrics import average_precision, labels_of_classes
from biam_tf.metrics.decisions import Decisions, counts_of_classes
from biam_tf.metrics.stored_scores import Scores
from biam_tf.sparse_labels import Labels
from biam_tf.thresholds import Thresholds
from training.data.dataset import Split

LISTED_CLASSES = 8
# Classes with fewer photos are listed as best or worst only if there are too few others.
ENOUGH_PHOTOS = 5


@dataclasses.dataclass(frozen=True)
class ClassFigures:
    """A class whose average precision is defined.

    Attributes:
        name: of the class.
        group: "seen" or "unseen".
        ap: its average precision, 0 to 1.
        photos: photos of the evaluated split that show it.
        training: training photos that show it; None: not known.
        precision: share of its tags that are right, 0 to 1; None: it is given to no photo, or there
            are no thresholds.
        recall: share of its photos that have the tag; None: no thresholds.
    """

    name: str
    group: str
    ap: float
    photos: int
    training: int | None
    precision: float | None
    recall: float | None


def class_figures(
    scores: Scores,
    labels: Labels,
    names: Sequence[str],
    groups: Sequence[str],
    thresholds: Thresholds | None,
    training: Split | None,
) -> list[ClassFigures]:
    """Returns the figures of the classes that have an average precision, best first.

    Args:
        scores: (N, C) of the evaluated photos.
        labels: (N, C) of +1, -1, 0.
        names: of the classes.
        groups: of the classes.
        thresholds: of the same classes in the same order; None: there are none.
        training: the training photos, labeled with the same classes; None: not known.
    """
    aps, (labeled, positives) = average_precision(scores, labels), labels_of_classes(labels)
    trained = None if training is None else training.labels.count(1, axis=0)
    given = right = None
    if thresholds is not None:
        given, right = counts_of_classes(Decisions(scores, thresholds.cuts), labels)
    found = []
    for c in np.argsort(-aps, kind="stable").tolist():
        if not 0 < positives[c] < labeled[c]:
            continue
        precision = recall = None
        if given is not None and right is not None:
            recall = float(right[c] / positives[c])
            precision = float(right[c] / given[c]) if given[c] else None
        shown = None if trained is None else int(trained[c])
        figures = float(aps[c]), int(positives[c]), shown, precision, recall
        found.append(ClassFigures(names[c], groups[c], *figures))
    return found


def with_enough_photos(classes: Sequence[ClassFigures]) -> tuple[list[ClassFigures], int]:
    """Returns the classes to name as best or worst, and the fewest photos of them.

    The AP of a class with few photos is mostly chance; where nearly all have few, all are taken.
    """
    fewest = 1
    if sum(own.photos >= ENOUGH_PHOTOS for own in classes) >= 4 * LISTED_CLASSES:
        fewest = ENOUGH_PHOTOS
    return [own for own in classes if own.photos >= fewest], fewest


def best_and_worst(classes: Sequence[ClassFigures]) -> list[dict[str, Any]]:
    """Returns lists of the best and the worst classes of each group, with their titles.

    Args:
        classes: best first.
    """
    lists: list[dict[str, Any]] = []
    for group in ("unseen", "seen"):
        own = [entry for entry in classes if entry.group == group]
        count = min(LISTED_CLASSES, len(own) // 2)
        if count:
            lists.append({"title": f"Best {group} classes", "classes": own[:count]})
            lists.append({"title": f"Worst {group} classes", "classes": own[-count:][::-1]})
    return lists
