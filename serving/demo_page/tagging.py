"""Photos tagged by the page's server, and its errors in words for the page's users."""

import dataclasses
import re
from collections.abc import Sequence

import grpc
import numpy as np

from biam_tf.class_calibration import ClassCalibration
from biam_tf.errors import UserError
from biam_tf.photos import Orientation
from serving.demo_page.photo_files import PhotoFile
from serving.demo_page.served_model import ExportedModel
from serving.indexing.region_embedder import pooled_regions
from serving.rpc.photo_tagging import plain_message
from serving.rpc.tagging_client import TaggingClient, TaggingError

# Enough classes to find the number of pooled regions.
_PROBED_CLASSES = 64


class ServerGone(Exception):
    """The server can't be reached or takes too long; the message is for the page's user."""


@dataclasses.dataclass(frozen=True, eq=False)
class TaggedPhoto:
    """A photo with its scores.

    Attributes:
        photo: the photo.
        names: C class names.
        groups: for each as `ExportedModel.groups`.
        scores: (C,) float32.
        thresholds: calibration and thresholds of the classes; None if the run has none.
        response_maps: (h, w, C); None if the model has none.
        pooled: k; the score of a class is the mean of its k strongest responses. None: unknown.
        orientation: whether the model turned the photo upright as EXIF data say.
    """

    photo: PhotoFile
    names: tuple[str, ...]
    groups: tuple[str, ...]
    scores: np.ndarray
    thresholds: ClassCalibration | None = None
    response_maps: np.ndarray | None = None
    pooled: int | None = None
    orientation: Orientation = "follow"

    @property
    def probabilities(self) -> np.ndarray | None:
        """(C,) calibrated scores, NaN for a class that is not calibrated; None: there are none."""
        return None if self.thresholds is None else self.thresholds.probabilities(self.scores)

    def ranked(self, count: int) -> np.ndarray:
        """Returns the indices of the `count` best classes, best first."""
        return np.argsort(-self.scores, kind="stable")[:count]


def cuts_of(photo: TaggedPhoto, level: float | None) -> np.ndarray:
    """Returns (C,), the score from which each class is given as a tag.

    Args:
        photo: the tagged photo.
        level: one level for all classes: a calibrated probability between 0 and 1, or a score if
            the run has no calibration. None for the run's calibrated thresholds, or no threshold
            if it has none.
    """
    thresholds = photo.thresholds
    if thresholds is None:
        return np.full(len(photo.names), -np.inf if level is None else level)
    if level is None:
        return thresholds.cuts
    return (np.log(level / (1 - level)) - thresholds.offsets) / thresholds.slopes


def verdicts_of(photo: TaggedPhoto, level: float | None) -> list[bool | None]:
    """Returns for each of C classes whether it is given as a tag; None: it has no threshold."""
    return [
        bool(score >= cut) if np.isfinite(cut) else None
        for score, cut in zip(photo.scores, cuts_of(photo, level), strict=True)
    ]


def tag_photo(
    client: TaggingClient, model: ExportedModel, photo: PhotoFile, names: Sequence[str]
) -> TaggedPhoto:
    """Requests the scores and response maps of a photo.

    Args:
        client: connected to the server.
        model: the files of the server's model.
        photo: the photo.
        names: C class names that the model can score.

    Raises:
        UserError: the server refuses the photo or the classes.
        ServerGone: the server doesn't respond.
    """
    contents = photo.read()
    try:
        answer = client.answer(contents, names, response_maps=model.has_response_maps)
    except TaggingError as error:
        raise page_error(error, photo) from error
    scores, maps = answer.scores[0], None
    if answer.response_maps is not None:
        maps = answer.response_maps[0]
    return TaggedPhoto(
        photo=photo,
        names=tuple(names),
        groups=tuple(model.groups(names)),
        scores=scores,
        thresholds=model.calibration(names, answer.classes.embeddings),
        response_maps=maps,
        pooled=None if maps is None else _pooled(maps, scores),
        orientation=model.orientation,
    )


def _pooled(maps: np.ndarray, scores: np.ndarray) -> int | None:
    flat = maps.reshape(-1, maps.shape[-1])
    return pooled_regions(flat[:, :_PROBED_CLASSES], scores[:_PROBED_CLASSES])


def page_error(error: TaggingError, photo: PhotoFile | None = None) -> UserError | ServerGone:
    """Returns the error of a call in words for the page's user."""
    gone = {
        grpc.StatusCode.UNAVAILABLE: "does not answer",
        grpc.StatusCode.DEADLINE_EXCEEDED: "takes too long",
        grpc.StatusCode.CANCELLED: "cancelled the call",
    }
    if error.code in gone:
        return ServerGone(
            f"The server {gone[error.code]}. Photos and classes are kept; try again later."
        )
    message = plain_message(error.message)
    refused = re.match(r"images\[[\d, ]*\]: (.*)", message)
    if photo is not None and refused:
        width, height = photo.size
        return UserError(f"{photo.name} ({width:,} x {height:,} pixels): {refused[1]}")
    return UserError(f"The server refuses: {message}")
