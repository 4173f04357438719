"""Whether probabilities come true, among the tags that are shown.

Nearly all labels of a photo are of absent classes with small probabilities, and a mean over all
labels tells how these do. What a person sees is the tags: here those of a probability of at least
one half, and those whose score reaches the threshold.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from biam_tf.metrics.calibration import sigmoid
from biam_tf.metrics.slices import row_blocks
from biam_tf.metrics.stored_scores import Scores, as_scores
from biam_tf.sparse_labels import Labels

# The share right of n tags has a standard error of up to 0.5 / sqrt(n): of 100 tags 5 points.
FEWEST_TAGS = 100
# Bins of the diagram begin here; the last ends at 1.
EDGES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.99)


def reliability_of_shown(
    scores: Scores | ArrayLike,
    labels: Labels,
    groups: Sequence[str],
    slopes: np.ndarray,
    offsets: np.ndarray,
    cuts: np.ndarray,
) -> dict[str, dict | None]:
    """Returns stated and true shares among the tags shown, ready for JSON.

    Args:
        scores: (N, C).
        labels: (N, C) of +1, -1, 0; unknown ones are left out.
        groups: "seen" or "unseen" for each class.
        slopes: (C,) of the calibration; NaN: the class has none.
        offsets: (C,) likewise.
        cuts: (C,) a class is a tag if its score is at least this.

    Returns:
        For "seen" and "unseen", null without such classes:

        - "at_half": tags of a probability of at least 0.5;
        - "at_threshold": tags whose score reaches the threshold;
        - "bins": the tags of "at_half", split at `EDGES`, each with "from" and "to".

        Each has "tags", "stated" (mean probability, null where a class has none), "right" (share
        of the tags that are present) and "uncalibrated_tags", those without a probability. Both
        shares are null without a tag. "fewest_tags" is the number below which they say little.
    """
    scores = as_scores(scores)
    group_of_class = np.asarray(groups, dtype=object)
    result: dict = {"fewest_tags": FEWEST_TAGS}
    for group in ("seen", "unseen"):
        columns = np.flatnonzero(group_of_class == group)
        result[group] = None
        if not len(columns):
            continue
        at_threshold, bins = np.zeros(4), np.zeros((len(EDGES), 4))
        for rows in row_blocks(scores):
            own = scores[rows][:, columns].astype(np.float64)
            truth = labels[rows][:, columns]
            probabilities = sigmoid(slopes[columns] * own + offsets[columns])
            given = (own >= cuts[columns]) & (truth != 0)
            at_threshold += _sums(probabilities[given], truth[given])
            shown = (probabilities >= EDGES[0]) & (truth != 0)
            values, present = probabilities[shown], truth[shown]
            bin_of = np.searchsorted(EDGES, values, side="right") - 1
            for i in range(len(EDGES)):
                bins[i] += _sums(values[bin_of == i], present[bin_of == i])
        result[group] = {
            "at_half": _shares(bins.sum(axis=0)),
            "at_threshold": _shares(at_threshold),
            "bins": [
                {"from": low, "to": high, **_shares(own)}
                for low, high, own in zip(EDGES, (*EDGES[1:], 1.0), bins, strict=True)
            ],
        }
    return result


def _sums(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the numbers of tags, of right ones and of uncalibrated ones, and what they state."""
    known = ~np.isnan(probabilities)
    return np.array(
        [len(labels), (labels > 0).sum(), (~known).sum(), probabilities[known].sum()], np.float64
    )


def _shares(sums: np.ndarray) -> dict:
    tags, right, uncalibrated, stated = sums
    return {
        "tags": int(tags),
        "stated": float(stated / tags) if tags and not uncalibrated else None,
        "right": float(right / tags) if tags else None,
        "uncalibrated_tags": int(uncalibrated),
    }


def reliability_lines(reliability: dict) -> list[str]:
    """Returns the figures of `reliability_of_shown` as lines of text, in per cent.

    Of few tags, the count stands in place of a share.
    """
    fewest = reliability["fewest_tags"]
    lines = ["tags shown           tags   stated    right"]
    for group in ("seen", "unseen"):
        own = reliability[group]
        if own is None:
            continue
        for key, what in (("at_half", "50-100 %"), ("at_threshold", "at threshold")):
            figures = own[key]
            lines.append(f"{group:7s}{what:13s}{figures['tags']:5d}{_cells(figures, fewest)}")
    return lines


def _cells(figures: dict, fewest: int) -> str:
    if figures["tags"] < fewest:
        return f"   too few for a share: {fewest} are needed to tell it to 10 points"
    stated = "-" if figures["stated"] is None else f"{100 * figures['stated']:.1f}"
    return f"{stated:>9s}{100 * figures['right']:9.1f}"
