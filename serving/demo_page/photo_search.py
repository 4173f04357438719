"""The best photos of an index for words, or for a region of one of them."""

import concurrent.futures
import dataclasses
import functools
import pathlib

import numpy as np
from PIL import Image

from biam_tf.errors import UserError
from serving.demo_page.evidence import deciding_regions, draw_evidence, outline_regions
from serving.demo_page.photo_files import read_picture
from serving.indexing.photo_index import PhotoIndex

SMALL, LARGE = 320, 720


@dataclasses.dataclass(frozen=True, eq=False)
class Query:
    """What is looked for.

    Attributes:
        said: in words.
        class_embeddings: (C, d_a), one row a class.
    """

    said: str
    class_embeddings: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Found:
    """Photos that were found, best first.

    Attributes:
        index: what was searched.
        query: what was looked for.
        rows: of the photos in the index.
        scores: of the photos, mean over the classes.
    """

    index: PhotoIndex
    query: Query
    rows: np.ndarray
    scores: np.ndarray

    def path(self, place: int) -> pathlib.Path:
        """Returns the file of the photo in a place of the ranking."""
        index = self.index
        return pathlib.Path(index.manifest.photo_folder) / index.photos[self.rows[place]]

    def response_map(self, place: int) -> np.ndarray:
        """Returns (h, w): the mean of the classes' response maps of the photo in a place."""
        row = int(self.rows[place])
        return self.index.response_maps(row, self.query.class_embeddings).mean(axis=-1)


def search(index: PhotoIndex, query: Query, count: int) -> Found:
    """Returns the `count` photos with the best scores; of several classes, the best mean.

    Scores of different classes lie in different ranges, so each is standardized over the photos
    first: a photo with a little of everything is then before one with much of a single class.
    """
    scores = index.scores(query.class_embeddings)
    ranking = scores[:, 0]
    if scores.shape[1] > 1:
        deviation = scores.std(axis=0)
        ranking = ((scores - scores.mean(axis=0)) / np.where(deviation > 0, deviation, 1)).mean(1)
    count = min(count, len(index))
    best = np.argpartition(-ranking, count - 1)[:count] if count else np.arange(0)
    best = best[np.lexsort((best, -ranking[best]))]
    return Found(index, query, best, scores.mean(axis=1)[best])


def region_query(found: Found, place: int, region: int) -> Query:
    """Returns the query for more photos like a region of one that was found.

    Args:
        found: the photos.
        place: of the photo in the ranking.
        region: of the photo, counted by rows.
    """
    regions = found.index.region_embeddings(int(found.rows[place]))
    embedding = regions.reshape(-1, regions.shape[-1])[region]
    norm = np.linalg.norm(embedding)
    if not norm:
        raise UserError("The model saw nothing in this region; choose another.")
    row, column = divmod(region, regions.shape[1])
    said = f"like row {row + 1}, column {column + 1} of {found.path(place).name}"
    return Query(said, embedding[None] / norm)


def draw_large(found: Found, place: int) -> Image.Image:
    """Draws a photo that was found under its response map.

    Raises:
        UserError: the photo is gone or can't be decoded any more.
    """
    path = found.path(place)
    picture = _picture(path, LARGE, _changed(path))
    return draw_evidence(picture, found.response_map(place), found.index.manifest.pooled)


def _draw_small(found: Found, place: int) -> Image.Image:
    """As it is, but for the outline of the deciding regions: small, heat would hide it."""
    path = found.path(place)
    picture = _picture(path, SMALL, _changed(path)).copy()
    regions = deciding_regions(found.response_map(place), found.index.manifest.pooled)
    outline_regions(picture, regions, width=5)  # it is shown at a third of its size
    return picture


def draw_all(found: Found) -> tuple[Found, list[Image.Image], list[str]]:
    """Draws every photo that was found, small.

    Returns:
        the photos that are still there, their pictures, and what is wrong with the others.
    """

    def draw(place: int) -> Image.Image | UserError:
        try:
            return _draw_small(found, place)
        except UserError as error:
            return error

    # Decoding lets other threads run.
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        drawn = list(pool.map(draw, range(len(found.rows))))
    there = np.array([not isinstance(each, UserError) for each in drawn], bool)
    kept = dataclasses.replace(found, rows=found.rows[there], scores=found.scores[there])
    return (
        kept,
        [each for each in drawn if not isinstance(each, UserError)],
        [str(each) for each in drawn if isinstance(each, UserError)],
    )


def forget_pictures() -> None:
    """Forgets the photos that were read, so that the next drawing reads them again."""
    _picture.cache_clear()


def _changed(path: pathlib.Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError as error:
        raise UserError(f"{path.name}: {error.strerror}; index the folder again") from error


@functools.lru_cache(maxsize=256)
def _picture(path: pathlib.Path, side: int, changed_ns: int) -> Image.Image:
    return read_picture(path, side)
