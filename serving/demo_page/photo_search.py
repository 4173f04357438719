"""The best photos of an index for classes, or for a region of one of them, and their pictures."""

import concurrent.futures
import dataclasses
import functools
import pathlib

import numpy as np
from PIL import Image

from biam_tf.errors import UserError
from biam_tf.files import is_inside
from biam_tf.photos import Orientation
from serving.demo_page.evidence import deciding_regions, draw_evidence, outline_regions
from serving.demo_page.photo_files import read_picture
from serving.indexing.photo_index import PhotoIndex
from serving.rpc.version_folders import photo_orientation

SMALL, LARGE = 320, 720


@dataclasses.dataclass(frozen=True, eq=False)
class Query:
    """What to search for.

    Attributes:
        text: the query in words.
        class_embeddings: (C, d_a), one row per class.
        names: of the classes; None: it is no class, but a region of a photo.
    """

    text: str
    class_embeddings: np.ndarray
    names: tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Found:
    """The photos found by a query, best first.

    Attributes:
        index: the index that was searched.
        query: the query.
        rows: rows of the photos in the index.
        scores: scores of the photos, averaged over the classes.
        class_scores: (photos, C) of each class.
        within: only photos in this folder are shown, wherever links lead; None for no limit.
    """

    index: PhotoIndex
    query: Query
    rows: np.ndarray
    scores: np.ndarray
    class_scores: np.ndarray
    within: pathlib.Path | None = None

    @property
    def orientation(self) -> Orientation:
        """Whether the index's model turns photos upright as EXIF data say."""
        return photo_orientation(pathlib.Path(self.index.manifest.model))

    def caption(self, rank: int) -> str:
        """Returns the score of the photo at a rank, and what it says of the classes.

        One class has its probability and a tick if it reaches its threshold; of several, those
        that do are named. Without thresholds, and for a region, the score stands alone.
        """
        score, names = f"{self.scores[rank]:.2f}", self.query.names
        its = None
        if names is not None:
            its = self.index.calibration(names, self.query.class_embeddings)
        if its is None or names is None:
            return score
        own = self.class_scores[rank]
        present, probability = its.decide(own), its.probabilities(own)[0]
        if len(names) > 1:
            found = ", ".join(
                name for name, is_there in zip(names, present, strict=True) if is_there
            )
            return f"{score} · ✓ {found}" if found else score
        if not np.isnan(probability):
            score += f" · {100 * probability:.0f} %"
        return score + " ✓" * bool(present[0])

    def path(self, rank: int) -> pathlib.Path:
        """Returns the file of the photo at a rank, counted from 0.

        Raises:
            UserError: it is a link out of the folder `within`.
        """
        index = self.index
        path = pathlib.Path(index.manifest.photo_folder) / index.photos[self.rows[rank]]
        if self.within is not None and not is_inside(path, self.within):
            raise UserError(f"{path.name}: a link that leads out of {self.within}")
        return path

    def response_map(self, rank: int) -> np.ndarray:
        """Returns the response map (h, w) of the photo at a rank, averaged over the classes."""
        row = int(self.rows[rank])
        return self.index.response_maps(row, self.query.class_embeddings).mean(axis=-1)


def search(
    index: PhotoIndex, query: Query, count: int, within: pathlib.Path | None = None
) -> Found:
    """Returns the `count` photos with the best scores.

    The scores of different classes have different ranges. With several classes they are therefore
    standardized over the photos before they are averaged: photos that show a little of each class
    then rank before those that show much of a single one.

    `within` is that of `Found`.
    """
    scores = index.scores(query.class_embeddings)
    ranking = scores[:, 0]
    if scores.shape[1] > 1:
        deviation = scores.std(axis=0)
        ranking = ((scores - scores.mean(axis=0)) / np.where(deviation > 0, deviation, 1)).mean(1)
    count = min(count, len(index))
    best = np.argpartition(-ranking, count - 1)[:count] if count else np.arange(0)
    best = best[np.lexsort((best, -ranking[best]))]
    return Found(index, query, best, scores.mean(axis=1)[best], scores[best], within)


def region_query(found: Found, rank: int, region: int) -> Query:
    """Returns the query for photos with regions similar to one that was found.

    Args:
        found: the photos.
        rank: rank of the photo.
        region: index of the region in row-major order.

    Raises:
        UserError: the embedding of the region is zero.
    """
    regions = found.index.region_embeddings(int(found.rows[rank]))
    embedding = regions.reshape(-1, regions.shape[-1])[region]
    norm = np.linalg.norm(embedding)
    if not norm:
        raise UserError("The embedding of this region is zero; choose another region.")
    row, column = divmod(region, regions.shape[1])
    text = f"like row {row + 1}, column {column + 1} of {found.path(rank).name}"
    return Query(text, embedding[None] / norm)


def draw_large(found: Found, rank: int) -> Image.Image:
    """Draws a photo that was found under its response map.

    Raises:
        UserError: the photo is missing or can't be decoded.
    """
    path = found.path(rank)
    picture = _picture(path, LARGE, _modification_time(path), found.orientation)
    return draw_evidence(picture, found.response_map(rank), found.index.manifest.pooled)


def draw_all(found: Found) -> tuple[Found, list[Image.Image], list[str]]:
    """Draws every photo that was found, small.

    Returns:
        the photos that could be read, their pictures, and the errors of the others.
    """

    def draw(rank: int) -> Image.Image | UserError:
        try:
            return _draw_small(found, rank)
        except UserError as error:
            return error

    # Decoding lets other threads run.
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        drawn = list(pool.map(draw, range(len(found.rows))))
    readable = np.array([not isinstance(each, UserError) for each in drawn], bool)
    kept = dataclasses.replace(
        found,
        rows=found.rows[readable],
        scores=found.scores[readable],
        class_scores=found.class_scores[readable],
    )
    return (
        kept,
        [each for each in drawn if not isinstance(each, UserError)],
        [str(each) for each in drawn if isinstance(each, UserError)],
    )


def forget_pictures() -> None:
    """Clears the cache of pictures, so that the next drawing reads the photos again."""
    _picture.cache_clear()


def _draw_small(found: Found, rank: int) -> Image.Image:
    """The photo with its deciding regions outlined; a heat map would hide so small a picture."""
    path = found.path(rank)
    picture = _picture(path, SMALL, _modification_time(path), found.orientation).copy()
    regions = deciding_regions(found.response_map(rank), found.index.manifest.pooled)
    outline_regions(picture, regions, width=5)  # it is shown at a third of its size
    return picture


def _modification_time(path: pathlib.Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError as error:
        raise UserError(f"{path.name}: {error.strerror}; index the folder again") from error


@functools.lru_cache(maxsize=256)
def _picture(
    path: pathlib.Path, side: int, modified_ns: int, orientation: Orientation
) -> Image.Image:
    return read_picture(path, side, orientation)
