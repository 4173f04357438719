"""The scores of all labels that are known, read in blocks.

What is fitted to a validation split needs these alone. Open Images' has 41,620 photos and 7,186
seen classes, 2.4 GB of scores as float64, but about ten known labels per photo, which are kept.
NUS-WIDE's has 30 million known labels: they are never all in memory, each pass reads them again.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from biam_tf.metrics.slices import in_threads, tiles
from biam_tf.metrics.stored_scores import Scores
from biam_tf.sparse_labels import Labels

Result = TypeVar("Result")

# Labels that are read once and kept, in about 30 bytes each.
MOST_KEPT = 8_000_000


@dataclasses.dataclass(frozen=True, eq=False)
class Entries:
    """Some labels that are known, photo by photo.

    Attributes:
        photos: (M,) positions of the photos.
        classes: (M,) positions among the classes that are looked at.
        scores: (M,) float64.
        present: (M,) bool.
        weights: (M,) float64; None: all count alike.
    """

    photos: np.ndarray
    classes: np.ndarray
    scores: np.ndarray
    present: np.ndarray
    weights: np.ndarray | None = None

    def kept(self, mask: np.ndarray) -> "Entries":
        """Returns some of the labels, by a mask (M,)."""
        if mask.all():
            return self
        weights = None if self.weights is None else self.weights[mask]
        photos, classes, scores = self.photos[mask], self.classes[mask], self.scores[mask]
        return Entries(photos, classes, scores, self.present[mask], weights)

    def scored(self, scores: np.ndarray) -> "Entries":
        """Returns the labels with other scores (M,)."""
        return dataclasses.replace(self, scores=scores)


# Changes a block: selects labels, or replaces scores.
Change = Callable[[Entries], Entries]


class LabeledScores:
    """The scores of all known labels of some classes.

    Args:
        scores: (N, C) floating scores.
        labels: (N, C) of +1, -1, 0; those that are 0 are left out.
        columns: the classes that are looked at, ascending.
        changes: applied to each block.
    """

    def __init__(
        self,
        scores: Scores,
        labels: Labels,
        columns: np.ndarray,
        changes: Sequence[Change] = (),
        kept: Sequence[Entries] | None = None,
    ):
        self._scores, self._labels, self._columns = scores, labels, columns
        self._changes, self._kept = tuple(changes), kept

    @classmethod
    def of_arrays(
        cls, scores: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None
    ) -> "LabeledScores":
        """Returns scores (N, C) or (M,) with their labels and weights of the same shape."""
        table = scores.reshape(-1, scores.shape[-1] if scores.ndim == 2 else 1)
        changes: list[Change] = []
        if weights is not None:
            table_of_weights = weights.reshape(table.shape)
            changes.append(
                lambda own: dataclasses.replace(
                    own, weights=table_of_weights[own.photos, own.classes]
                )
            )
        return cls(table, labels.reshape(table.shape), np.arange(table.shape[1]), changes)

    def changed(self, change: Change) -> "LabeledScores":
        """Returns these labels with a further change."""
        changes = (*self._changes, change)
        return LabeledScores(self._scores, self._labels, self._columns, changes, self._kept)

    def kept_if_few(self, count: int) -> "LabeledScores":
        """Returns these labels, kept in memory if `count`, their number, is at most `MOST_KEPT`."""
        if count > MOST_KEPT:
            return self
        kept = self.each(lambda own: own)
        return LabeledScores(self._scores, self._labels, self._columns, (), kept)

    def of_photos(self, mask: np.ndarray) -> "LabeledScores":
        """Returns the labels of some photos, by a mask (N,)."""
        return self.changed(lambda own: own.kept(mask[own.photos]))

    def each(self, function: Callable[[Entries], Result]) -> list[Result]:
        """Returns the results of a function for all blocks, in their order; runs in threads."""
        kept = self._kept
        if kept is None:
            return in_threads(lambda rows: function(self._read(rows)), tiles(self._scores))
        blocks = (slice(place, place + 1) for place in range(len(kept)))
        return in_threads(lambda block: function(self._changed(kept[block.start])), blocks)

    def joined(self) -> Entries:
        """Returns all labels at once."""
        parts = self.each(lambda own: own) or [self._read(slice(0, 0))]
        if len(parts) == 1:
            return parts[0]
        names = [field.name for field in dataclasses.fields(Entries)]
        columns = {name: [getattr(part, name) for part in parts] for name in names}
        if columns["weights"][0] is None:
            del columns["weights"]
        return Entries(**{name: np.concatenate(own) for name, own in columns.items()})

    def _read(self, rows: slice) -> Entries:
        whole = len(self._columns) == self._labels.shape[1]
        labels = self._labels[rows] if whole else self._labels[rows][:, self._columns]
        photos, classes = np.nonzero(labels)
        scores = self._scores[rows][photos, self._columns[classes]].astype(np.float64)
        present = labels[photos, classes] > 0
        return self._changed(Entries(photos + rows.start, classes, scores, present))

    def _changed(self, entries: Entries) -> Entries:
        for change in self._changes:
            entries = change(entries)
        return entries
