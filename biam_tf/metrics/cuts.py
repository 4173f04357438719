"""Cuts: an entry is a tag if its score is at least the cut."""

import dataclasses

import numpy as np
from numpy.typing import ArrayLike

from biam_tf.metrics.labeled_scores import Entries, LabeledScores


@dataclasses.dataclass(frozen=True, eq=False)
class TagCounts:
    """How often C classes are tags of photos with a label for them.

    Attributes:
        given: (C,) tags of a class that is present or absent.
        right: (C,) those of which it is present.
        present: (C,) labels of which it is.
    """

    given: np.ndarray
    right: np.ndarray
    present: np.ndarray

    @property
    def f1(self) -> np.ndarray:
        """(C,); 0 without tags and positives."""
        total = self.given + self.present
        return np.divide(2.0 * self.right, total, out=np.zeros(len(total)), where=total > 0)

    @property
    def precision(self) -> np.ndarray:
        """(C,); 0 without tags."""
        given = self.given
        return np.divide(self.right, given, out=np.zeros(len(given)), where=given > 0)


@dataclasses.dataclass(frozen=True)
class Target:
    """What a cut aims at.

    Attributes:
        precision: the share of tags that shall be right, with as many tags as this allows; None:
            the best F1.
    """

    precision: float | None = None

    def cut(self, scores: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None) -> float:
        """Returns the best cut for this target.

        It lies halfway between two neighboring scores, or is the lowest score if all are tags. For
        a precision that no cut reaches, it is a little above the highest score. NaN without a
        positive.

        Args:
            scores: any shape, floating.
            labels: the same shape, of +1, -1, 0 (left out).
            weights: the same shape, of the labels; None: all count alike.
        """
        scores, labels = np.asarray(scores).ravel(), np.asarray(labels).ravel()
        if weights is None:
            return self.cut_of(LabeledScores.of_arrays(scores, labels))
        scores = scores.astype(np.float64)
        labeled = np.flatnonzero(labels)
        order = labeled[np.argsort(-scores[labeled], kind="stable")]
        ranked, ordered = scores[order], np.asarray(weights, np.float64).ravel()[order]
        hits, tags = np.cumsum(ordered * (labels[order] > 0)), np.cumsum(ordered)
        if not len(hits) or not hits[-1]:
            return np.nan
        ends = np.append(ranked[:-1] != ranked[1:], True)  # no cut separates equal scores
        if self.precision is None:
            last = int(np.argmax(np.where(ends, 2 * hits / (tags + hits[-1]), -1.0)))
        else:
            # The tolerance is for rounding: 4 of 5 are 0.8.
            reached = np.flatnonzero(ends & (hits >= self.precision * tags - 1e-9))
            if not len(reached):
                return float(np.nextafter(ranked[0], np.inf))
            last = int(reached[-1])
        following = ranked[min(last + 1, len(ranked) - 1)]
        return float((ranked[last] + following) / 2)

    def cut_of(self, labeled: LabeledScores) -> float:
        """Returns `cut` of labels that are read in blocks; only positive ones are sorted.

        Two passes: the first finds the positives, the second how many labels are above each.
        """
        found = labeled.each(lambda own: own.scores[own.present])
        positives, counts = np.unique(np.concatenate([np.zeros(0), *found]), return_counts=True)
        if not len(positives):
            return np.nan

        def above(own: Entries) -> tuple[np.ndarray, float]:
            """The number of negatives that reach each positive, and the highest of all scores."""
            places = np.searchsorted(positives, own.scores[~own.present], side="right")
            reached = np.bincount(places, minlength=len(positives) + 1)[::-1].cumsum()[::-1][1:]
            return reached, own.scores.max(initial=-np.inf)

        reached, highest = zip(*labeled.each(above), strict=True)
        hits = counts[::-1].cumsum()[::-1]
        tags = hits + np.sum(reached, axis=0)
        if self.precision is None:
            # Below a positive, more tags without a further hit are worse. Of equals, the highest.
            best = len(hits) - 1 - int(np.argmax((2 * hits / (tags + hits[0]))[::-1]))
            return _halfway_down(labeled, positives[best])
        # The tolerance is for rounding: 4 of 5 are 0.8.
        is_reached = np.flatnonzero(hits >= self.precision * tags - 1e-9)
        if not len(is_reached):
            return float(np.nextafter(max(highest), np.inf))
        best = int(is_reached[0])
        more = _most_tags(int(hits[best]), int(tags[best]), self.precision) - int(tags[best])
        following = positives[best - 1] if best else -np.inf
        return _halfway_down(labeled, _lowest_of(labeled, following, positives[best], more))

    def __str__(self) -> str:
        return "f1" if self.precision is None else f"precision {self.precision:g}"

    def is_better(self, one: "TagCounts", other: "TagCounts") -> np.ndarray:
        """Returns for each class whether tags `one` serve the target better than tags `other`.

        Better is the higher F1; for a precision, more right tags among tags that reach it, or the
        higher precision if only one of the two reaches it or neither does.

        Args:
            one: counts of C classes.
            other: of the same classes and photos.
        """
        if self.precision is None:
            return one.f1 > other.f1
        reached = [own.precision >= self.precision for own in (one, other)]
        both = reached[0] & reached[1]
        return np.where(both, one.right > other.right, one.precision > other.precision)


F1 = Target()


def parse_target(text: str) -> Target:
    """Returns the target that a text names: `f1`, or `precision P` with P between 0 and 1.

    Raises:
        ValueError: it names none.
    """
    words = text.split()
    if words == ["f1"]:
        return F1
    if len(words) == 2 and words[0] == "precision":
        try:
            precision = float(words[1])
        except ValueError:
            precision = np.nan
        if 0 < precision < 1:
            return Target(precision)
    raise ValueError(
        f"expected f1, or precision with a share above 0 and below 1, such as "
        f"'precision 0.8'; got {text!r}"
    )


def best_cut(scores: ArrayLike, labels: ArrayLike) -> float:
    """Returns the cut with the best F1: tags are the entries whose score is at least the cut.

    It lies halfway between two neighboring scores (or is the lowest score, if all are tags); of
    equally good cuts it is the highest. NaN without a positive.

    Args:
        scores: any shape, floating.
        labels: the same shape, of +1, -1, 0 (left out).
    """
    return F1.cut(scores, labels)


def _halfway_down(labeled: LabeledScores, score: float) -> float:
    """The middle of a score and the next lower one; the score itself, if there is none."""
    lower = max(labeled.each(lambda own: own.scores[own.scores < score].max(initial=-np.inf)))
    return float(score if lower == -np.inf else (score + lower) / 2)


def _most_tags(hits: int, tags: int, precision: float) -> int:
    """The largest number of tags, at least `tags`, of which so many hits are the precision."""
    most = max(tags, int(hits / precision) + 2)
    while most > tags and not hits >= precision * most - 1e-9:
        most -= 1
    return most


def _lowest_of(labeled: LabeledScores, low: float, high: float, more: int) -> float:
    """The lowest cut with at most `more` tags between two scores; `high`, if there is none."""

    def best(own: Entries) -> np.ndarray:
        between = own.scores[(own.scores > low) & (own.scores < high)]
        kept = min(len(between), more + 1)
        return (
            np.partition(between, len(between) - kept)[len(between) - kept :] if kept else between
        )

    found = np.sort(np.concatenate(labeled.each(best)))[::-1]
    if len(found) > more:  # no cut separates equal scores
        found = found[:more][found[:more] > found[more]]
    return float(found[-1]) if len(found) else high
