"""Standard classification as papers on image annotation count it: five words a photo.

Precision and recall of every class, each photo given its five best classes, averaged over the
classes, and N+, the classes with a recall above 0: since Duygulu et al. (ECCV 2002), whose Corel5k
it is, the figures of that literature.
"""

import statistics
from collections.abc import Mapping

import numpy as np

from biam_tf.metrics.rank_positions import best_columns
from training.experiments.trials import markdown_table, mean_and_spread
from training.reproduction.experiments import TrainedEntry, open_run, scores_of_run

WORDS = 5
HEADER = ("Method", f"precision@{WORDS}", f"recall@{WORDS}", "F1", "N+", "of")


def annotation_figures(scores: np.ndarray, labels: np.ndarray, words: int = WORDS) -> dict:
    """Returns mean precision and recall over classes, their F1, and N+.

    Classes that no photo shows are left out; a class that is given to no photo has a precision of
    0, as in that literature.

    Args:
        scores: (N, C).
        labels: (N, C), +1 present, else absent.
        words: classes that a photo is given, at most C.

    Returns:
        `precision`, `recall`, `f1`, fractions 0-1, `n_plus` and `classes`, counts.
    """
    given = np.zeros(labels.shape, bool)
    np.put_along_axis(given, best_columns(np.asarray(scores), words), True, axis=1)
    present = labels > 0
    shown = present.any(axis=0)
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
    """Returns these figures of a table's runs as Markdown, mean ± spread over the seeds."""
    labels = None
    rows = []
    for row in trained.values():
        if row.error:
            continue
        if labels is None:
            labels = open_run(row.folders[0]).split.labels
        figures = [annotation_figures(scores_of_run(folder), labels) for folder in row.folders]
        cells = [
            mean_and_spread([100 * own[name] for own in figures])
            for name in ("precision", "recall", "f1")
        ]
        n_plus = statistics.mean(own["n_plus"] for own in figures)
        rows.append([row.entry.title, *cells, f"{n_plus:.0f}", str(figures[0]["classes"])])
    return f"Five words a photo, averaged over classes:\n\n{markdown_table(list(HEADER), rows)}\n"
