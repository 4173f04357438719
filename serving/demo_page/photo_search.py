"""The best photos of an index for classes, or for a region of one of them, and their pictures."""

import concurrent.futures
import dataclasses
import functools
import pathlib

import numpy as np
from PIL import Image

from biam_tf.class_calibration import ClassCalibration
from biam_tf.class_sides import LinearClasses
from biam_tf.errors import UserError
from biam_tf.files import is_inside
from biam_tf.photos import Orientation
from serving.demo_page.evidence import deciding_regions, draw_evidence, outline_regions
from serving.demo_page.photo_files import read_picture
from serving.indexing.class_query import ClassQuery
from serving.indexing.photo_index import PhotoIndex
from serving.indexing.search_photos import Ranking, search_photos
from serving.rpc.version_folders import photo_orientation

SMALL, LARGE = 320, 720
_NEAREST = 4  # photos that are shown if a query holds for none


@dataclasses.dataclass(frozen=True, eq=False)
class Query:
    """What to search for.

    Attributes:
        text: the query in words.
        class_embeddings: (C, d_a), one row per class; (0, d_a) for a region.
        names: of the classes; None: it is no class, but a region of a photo.
        region_vector: (1, d), a region's vector in the index; None for classes.
        classes: how the classes are joined; None: they are averaged.
        example: row in the index and region, in row-major order, of a photo whose region it is;
            None: it is none.
    """

    text: str
    class_embeddings: np.ndarray
    names: tuple[str, ...] | None = None
    region_vector: np.ndarray | None = None
    classes: ClassQuery | None = None
    example: tuple[int, int] | None = None

    def vectors(self, index: PhotoIndex) -> np.ndarray:
        """Returns the vectors (C, d) that the photos of an index are scored with."""
        if self.region_vector is not None:
            return self.region_vector
        return index.class_vectors(self.class_embeddings)


@dataclasses.dataclass(frozen=True, eq=False)
class Found:
    """The photos found by a query, best first.

    Attributes:
        index: the index that was searched.
        query: the query.
        rows: rows of the photos in the index.
        scores: of the photos: of one class its score; of joined classes the log-odds above their
            thresholds, joined as the query says; else the average over the classes.
        class_scores: (photos, C) of each class.
        decided: number of photos for which the query holds by the model's thresholds, those that
            are not shown included; None: it has none, or the classes are not joined.
        total: number of photos that were searched.
        listed: the photos to export: all for which the query holds; where that is not known, or it
            holds for none, those that were found.
        within: only photos in this folder are shown, wherever links lead; None for no limit.
    """

    index: PhotoIndex
    query: Query
    rows: np.ndarray
    scores: np.ndarray
    class_scores: np.ndarray
    within: pathlib.Path | None = None
    decided: int | None = None
    total: int = 0
    listed: Ranking | None = None

    def given(self, rank: int) -> bool:
        """Whether the query holds for the photo at a rank, by the model's thresholds."""
        return self.decided is not None and rank < self.decided

    @property
    def orientation(self) -> Orientation:
        """Whether the index's model turns photos upright as EXIF data say."""
        return photo_orientation(pathlib.Path(self.index.manifest.model))

    def caption(self, rank: int) -> str:
        """Returns the score of the photo at a rank, and what it says of the classes.

        One class has its probability and a tick if it reaches its threshold; of several, those
        that do are named. Without thresholds, and for a region, the score stands alone.
        """
        score, said = f"{self.scores[rank]:.2f}", self._said(rank)
        return f"{score} {said}".rstrip() if said in ("", "✓") else f"{score} · {said}"

    def label(self, rank: int) -> str:
        """Returns the file name of the photo at a rank, and what `caption` says after the score."""
        said = self._said(rank)
        name = pathlib.PurePath(self.index.photos[self.rows[rank]]).name
        return f"{name} · {said}" if said else name

    def summary(self) -> str:
        """Returns in words how many photos the query holds for, and how many of them are shown."""
        shown, of = len(self.rows), f"{self.total:,} photos"
        if self.query.classes is None:
            return f"the best {shown} of {of}"
        if self.decided is None:
            return (
                f"the best {shown} of {of}; the model has no thresholds for these classes, so it "
                "can't be said which of them show it"
            )
        if not self.decided:
            return f"none of {of} shows it; the {shown} nearest are shown"
        if shown < self.decided:
            return f"the best {shown} of {self.decided:,} photos that show it, among {of}"
        return f"{self.decided:,} of {of} {'shows' if self.decided == 1 else 'show'} it"

    @functools.cached_property
    def _calibration(self) -> ClassCalibration | None:
        """That of the query's classes, for the captions of all photos."""
        if self.query.names is None:
            return None
        return self.index.calibration(self.query.names, self.query.class_embeddings)

    def _said(self, rank: int) -> str:
        names, its = self.query.names, self._calibration
        if its is None or names is None:
            return ""
        own = self.class_scores[rank]
        present, probability = its.decide(own), its.probabilities(own)[0]
        joined = self.query.classes
        if len(names) > 1 or (joined is not None and not joined.is_single):
            found = ", ".join(
                name for name, is_there in zip(names, present, strict=True) if is_there
            )
            return f"✓ {found}" if found else ""
        said = "" if np.isnan(probability) else f"{100 * probability:.0f} %"
        return (said + " ✓" * bool(present[0])).strip()

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

    def response_map(self, rank: int) -> np.ndarray | None:
        """Returns where the photo at a rank shows what is looked for, (h, w); None: nowhere.

        Of joined classes, those count that are not under a `not` and reach their thresholds in the
        photo. Each is standardized, and a region has its strongest one.
        """
        row = int(self.rows[rank])
        vectors = self.query.vectors(self.index)
        if self.query.classes is None:
            return self.index.response_maps_of_vectors(row, vectors).mean(axis=-1)
        shown = list(self.query.classes.wanted)
        if (its := self._calibration) is not None:
            reached = its.decide(self.class_scores[rank]) | np.isnan(its.cuts)
            shown = [c for c in shown if reached[c]]
        if not shown:
            return None
        maps = self.index.response_maps_of_vectors(row, vectors[shown])
        if len(shown) == 1:
            return maps[..., 0]
        deviations = maps.std(axis=(0, 1))
        return ((maps - maps.mean(axis=(0, 1))) / np.where(deviations > 0, deviations, 1)).max(-1)


def search(
    index: PhotoIndex,
    query: Query,
    count: int,
    within: pathlib.Path | None = None,
    given: bool = False,
) -> Found:
    """Returns the best photos, `count` at most.

    The scores of different classes have different ranges. With several classes that are not joined
    they are therefore standardized over the photos before they are averaged: photos that show a
    little of each class then rank before those that show much of a single one.

    Args:
        index: the index.
        query: the query.
        count: number of photos, at most.
        within: that of `Found`.
        given: whether only photos are returned for which the query holds by the model's
            thresholds, if it has any. If it holds for none, the nearest are returned.
    """
    if query.classes is not None:
        ranking = search_photos(index, query.classes, query.class_embeddings)
        if given and ranking.decided:
            count = min(count, ranking.decided)
        elif given and ranking.decided == 0:
            count = min(count, _NEAREST)
        shown = ranking.first(count)
        listed = ranking.first(ranking.decided) if ranking.decided else shown
        return Found(
            index,
            query,
            shown.rows,
            shown.values,
            shown.scores,
            within,
            decided=ranking.decided,
            total=len(ranking.rows),
            listed=listed,
        )
    scores = index.scores_of_vectors(query.vectors(index))
    whole = np.flatnonzero(np.isfinite(scores).all(axis=1))  # without those of damaged shards
    scores = scores[whole]
    ranking_scores = scores[:, 0]
    if scores.shape[1] > 1 and len(scores):
        deviation = scores.std(axis=0)
        standard = (scores - scores.mean(axis=0)) / np.where(deviation > 0, deviation, 1)
        ranking_scores = standard.mean(axis=1)
    best = np.lexsort((whole, -ranking_scores))[:count]
    means = scores.mean(axis=1)[best]
    rows = whole[best]
    listed = Ranking(rows, means, scores[best], None)
    return Found(index, query, rows, means, scores[best], within, total=len(whole), listed=listed)


def region_query(found: Found, rank: int, region: int) -> Query:
    """Returns the query for photos with regions similar to one that was found.

    Args:
        found: the photos.
        rank: rank of the photo.
        region: index of the region in row-major order.

    Raises:
        UserError: the embedding of the region is zero, or the index has none.
    """
    index, row = found.index, int(found.rows[rank])
    linear = index.manifest.class_side == LinearClasses.kind
    regions = index.region_embeddings(row) if linear else index.region_vectors(row)
    embedding = regions.reshape(-1, regions.shape[-1])[region]
    norm = np.linalg.norm(embedding)
    if not norm:
        raise UserError("The embedding of this region is zero; choose another region.")
    example = row, region
    row, column = divmod(region, regions.shape[1])
    text = f"like row {row + 1}, column {column + 1} of {found.path(rank).name}"
    direction = embedding[None] / norm
    if linear:
        return Query(text, direction, example=example)
    size = index.manifest.embedding_size
    return Query(text, np.zeros((0, size), np.float32), region_vector=direction, example=example)


def draw_large(found: Found, rank: int) -> Image.Image:
    """Draws a photo that was found, under its response map if it shows what is looked for.

    Raises:
        UserError: the photo is missing or can't be decoded.
    """
    path = found.path(rank)
    picture = _picture(path, LARGE, _modification_time(found, rank, path), found.orientation)
    response_map = found.response_map(rank)
    if response_map is None:
        return picture
    return draw_evidence(picture, response_map, found.index.manifest.pooled)


def draw_example(found: Found) -> Image.Image | None:
    """Draws the photo that a query's region is of, small, with the region outlined.

    Returns:
        the picture; None: the query is no region, or its photo is missing or was changed.
    """
    if found.query.example is None:
        return None
    row, region = found.query.example
    alone = dataclasses.replace(found, rows=np.array([row]))
    try:
        path = alone.path(0)
        modified = _modification_time(alone, 0, path)
        picture = _picture(path, SMALL, modified, found.orientation).copy()
    except UserError:
        return None
    chosen = np.zeros(found.index.manifest.grid, bool)
    chosen.flat[region] = True
    outline_regions(picture, chosen, width=5)
    return picture


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
    modified = _modification_time(found, rank, path)
    picture = _picture(path, SMALL, modified, found.orientation).copy()
    response_map = found.response_map(rank)
    if response_map is not None:
        regions = deciding_regions(response_map, found.index.manifest.pooled)
        outline_regions(picture, regions, width=5)  # it is shown at a third of its size
    return picture


def _modification_time(found: Found, rank: int, path: pathlib.Path) -> int:
    """The time a photo was changed; an error if that was after it was indexed."""
    try:
        status = path.stat()
    except OSError as error:
        raise UserError(f"{path.name}: {error.strerror}; index the folder again") from error
    indexed = found.index.photo(int(found.rows[rank]))
    if (status.st_size, status.st_mtime_ns) != indexed.version:
        raise UserError(f"{path.name}: changed after it was indexed; index the folder again")
    return status.st_mtime_ns


@functools.lru_cache(maxsize=256)
def _picture(
    path: pathlib.Path, side: int, modified_ns: int, orientation: Orientation
) -> Image.Image:
    return read_picture(path, side, orientation)
