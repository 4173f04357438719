"""The photos of an index that a query of classes holds for, best first."""

import dataclasses
import json
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from biam_tf.class_calibration import ClassCalibration
from biam_tf.files import replacing
from biam_tf.spreadsheets import SpreadsheetWriter
from serving.indexing.class_query import ClassQuery
from serving.indexing.photo_index import PhotoIndex


@dataclasses.dataclass(frozen=True, eq=False)
class Ranking:
    """Photos by a query, best first.

    Attributes:
        rows: (n,) rows of the photos in the index.
        values: (n,) what they are ranked by: of one class its score; of several, the log-odds above
            their thresholds, joined as the query says, or scores standardized over the photos if
            the model has no thresholds.
        scores: (n, C) scores of the query's classes.
        decided: number of photos for which the query holds by the model's thresholds: the first
            ones; None: it has no thresholds.
    """

    rows: np.ndarray
    values: np.ndarray
    scores: np.ndarray
    decided: int | None

    def first(self, count: int) -> "Ranking":
        """Returns the first `count` photos."""
        return dataclasses.replace(
            self,
            rows=self.rows[:count],
            values=self.values[:count],
            scores=self.scores[:count],
        )


def search_photos(index: PhotoIndex, query: ClassQuery, class_embeddings: np.ndarray) -> Ranking:
    """Returns all photos ranked by a query; those of damaged shards are left out.

    Args:
        index: the index.
        query: the query.
        class_embeddings: (C, d_a), of `query.names`.
    """
    scores = index.scores(class_embeddings)
    return rank(scores, query, index.calibration(query.names, class_embeddings))


def rank(scores: np.ndarray, query: ClassQuery, calibration: ClassCalibration | None) -> Ranking:
    """Returns photos ranked by a query.

    Args:
        scores: (N, C) of the query's classes; photos with NaN are left out.
        query: the query.
        calibration: of the classes; None: there are no thresholds.
    """
    whole = np.flatnonzero(np.isfinite(scores).all(axis=1))
    own = scores[whole].astype(np.float64)
    holds = np.zeros(len(own), bool)
    if calibration is not None and np.isnan(calibration.slopes * calibration.cuts).any():
        calibration = None  # of a class whose scores have no known meaning, nothing is decided
    if calibration is not None:
        values = query.value(calibration.slopes * (own - calibration.cuts))
        holds = query.holds(calibration.decide(scores[whole]))
    elif query.is_single or not len(own):
        values = query.value(own)
    else:
        deviation = own.std(axis=0)
        values = query.value((own - own.mean(axis=0)) / np.where(deviation > 0, deviation, 1))
    order = np.lexsort((whole, -values, ~holds))
    shown = own[:, 0] if query.is_single else values
    return Ranking(
        rows=whole[order],
        values=shown[order],
        scores=scores[whole][order],
        decided=None if calibration is None else int(holds.sum()),
    )


def ranking_rows(
    index: PhotoIndex, names: Sequence[str], ranking: Ranking
) -> Iterator[dict[str, Any]]:
    """Yields the photos of a ranking, best first, with the scores of the query's classes.

    Args:
        index: the index.
        names: of the query's classes.
        ranking: the photos.
    """
    for place, row in enumerate(ranking.rows):
        present = None if ranking.decided is None else place < ranking.decided
        scores = dict(zip(names, (float(f"{s:.6g}") for s in ranking.scores[place]), strict=True))
        value = float(f"{ranking.values[place]:.6g}")
        yield {"photo": index.photos[row], "present": present, "rank by": value, "scores": scores}


def write_ranking(path: pathlib.Path, names: Sequence[str], rows: Iterable[dict[str, Any]]) -> None:
    """Writes rows of `ranking_rows` into a file that ends with `.csv` or `.json`.

    Raises:
        UserError: the file can't be written.
    """
    with replacing(path) as partial:
        with open(partial, "w", encoding="utf-8", newline="", errors="backslashreplace") as file:
            if path.suffix.lower() == ".json":
                json.dump(list(rows), file, indent=1, ensure_ascii=False)
                return
            writer = SpreadsheetWriter(file)
            writer.writerow(["photo", "present", "rank by", *(f"score: {name}" for name in names)])
            for row in rows:
                present = "" if row["present"] is None else row["present"]
                writer.writerow([row["photo"], present, row["rank by"], *row["scores"].values()])
