"""Standard classification with the figures of image annotation papers: five words per photo.

Every photo is annotated with its five best classes. The figures are precision and recall of each
class, averaged over the classes, and N+, the number of classes with a recall above 0, as defined by
Duygulu et al. (ECCV 2002), the authors of Corel5k.
"""

import statistics
from collections.abc import Mapping

import numpy as np

from biam_tf.metrics.ranking import best_columns
from training.reproduction.entries import TrainedEntry, open_run, scores_of_run
from training.tables.table import Table, mean_and_spread

WORDS = 5
HEADER = ("Method", f"precision@{WORDS}", f"recall@{WORDS}", "F1", "N+", "of")


def annotation_figures(scores: np.ndarray, labels: np.ndarray, words: int = WORDS) -> dict:
    """Returns mean precision and recall over classes, their F1, and N+.

    Classes that no photo shows are left out; a class that no photo is annotated with has a
    precision of 0, as in that literature.

    Args:
        scores: (N, C).
        labels: (N, C), +1 present, else absent.
        words: number of classes per photo, at most C.

    Returns:
        `precision`, `recall` and `f1`, fractions 0-1, NaN if no photo shows a class; `n_plus` and
        `classes`, counts.
    """
    given = np.zeros(labels.shape, bool)
    np.put_along_axis(given, best_columns(np.asarray(scores), words), True, axis=1)
    present = labels > 0
    shown = present.any(axis=0)
    if not shown.any():
        undefined = dict.fromkeys(("precision", "recall", "f1"), float("nan"))
        return {**undefined, "n_plus": 0, "classes": 0}
    right = (given & present).sum(axis=0)[shown]
    precision = float((right / np.maximum(given.sum(axis=0)[shown], 1)).mean())
    recall = float((right / present.sum(axis=0)[shown]).mean())
    both = precision + recall
    return {
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / both if both else 0.0,
        "n_plus": int((right > 0).sum()),
        "classes": int(shown.sum()),
    }


def format_annotation(trained: Mapping[str, TrainedEntry]) -> str:
    """Returns these figures for a table's runs as Markdown, mean ± spread over the seeds."""
    labels = None
    rows = []
    for row in trained.values():
        if row.error:
            continue
        if labels is None:
            labels = np.asarray(open_run(row.folders[0]).split.labels)
        figures = [annotation_figures(scores_of_run(folder), labels) for folder in row.folders]
        cells = [
            mean_and_spread([100 * own[name] for own in figures])
            for name in ("precision", "recall", "f1")
        ]
        n_plus = statistics.mean(own["n_plus"] for own in figures)
        rows.append([row.entry.title, *cells, f"{n_plus:.0f}", str(figures[0]["classes"])])
    text = Table("", HEADER, rows).markdown()
    return f"Five words per photo, averaged over classes:\n\n{text}\n"
