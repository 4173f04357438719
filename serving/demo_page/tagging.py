"""A photo shown to a server, and its answer."""

import dataclasses
import re
from collections.abc import Sequence

import grpc
import numpy as np

from biam_tf.errors import UserError
from biam_tf.thresholds import Thresholds
from serving.demo_page.exported_model import ExportedModel
from serving.demo_page.photo_files import PhotoFile
from serving.indexing.pooled_regions import pooled_regions
from serving.rpc.tagging_client import TaggingClient, TaggingError

# How many classes are enough to tell how many regions were pooled.
_PROBED = 64


class ServerGone(Exception):
    """The server can't be reached, or takes too long; the message says so to a person."""


@dataclasses.dataclass(frozen=True, eq=False)
class TaggedPhoto:
    """What a model says of a photo.

    Attributes:
        photo: the photo.
        names: C classes.
        groups: "seen" or "unseen" for each.
        scores: (C,) float32.
        thresholds: calibration and thresholds of the classes; None: the run has none.
        response_maps: (h, w, C); None: the model has none.
        pooled: k, the strongest regions of a class whose mean is its score; None: unknown.
    """

    photo: PhotoFile
    names: tuple[str, ...]
    groups: tuple[str, ...]
    scores: np.ndarray
    thresholds: Thresholds | None = None
    response_maps: np.ndarray | None = None
    pooled: int | None = None

    @property
    def probabilities(self) -> np.ndarray | None:
        """(C,) calibrated scores; None: the run has no calibration."""
        return None if self.thresholds is None else self.thresholds.probabilities(self.scores)

    def ranked(self, count: int) -> np.ndarray:
        """Returns the places of the `count` best classes, best first."""
        return np.argsort(-self.scores, kind="stable")[:count]

    def place(self, name: str) -> int:
        """Returns the place of a class."""
        return self.names.index(name)


def tag_photo(
    client: TaggingClient, model: ExportedModel, photo: PhotoFile, names: Sequence[str]
) -> TaggedPhoto:
    """Asks a server for scores and response maps.

    Args:
        client: of the server.
        model: what the server has, as its files describe it.
        photo: the photo.
        names: C classes that the model knows.

    Raises:
        UserError: the server refuses the photo or the classes.
        ServerGone: it doesn't answer.
    """
    contents, maps = photo.read(), None
    try:
        if model.has_response_maps:
            scores, maps = client.explain(contents, names)
        else:
            scores = client.tag(contents, names)
    except TaggingError as error:
        raise said_of(error, photo) from error
    scores = scores[0]
    return TaggedPhoto(
        photo=photo,
        names=tuple(names),
        groups=tuple(model.groups(names)),
        scores=scores,
        thresholds=model.thresholds.for_names(names) if model.thresholds else None,
        response_maps=None if maps is None else maps[0],
        pooled=None if maps is None else _pooled(maps[0], scores),
    )


def _pooled(maps: np.ndarray, scores: np.ndarray) -> int | None:
    flat = maps.reshape(-1, maps.shape[-1])
    return pooled_regions(flat[:, :_PROBED], scores[:_PROBED])


def said_of(error: TaggingError, photo: PhotoFile | None = None) -> Exception:
    """Returns a server's refusal as it is said to a person: `UserError` or `ServerGone`."""
    gone = {
        grpc.StatusCode.UNAVAILABLE: "does not answer",
        grpc.StatusCode.DEADLINE_EXCEEDED: "takes too long",
        grpc.StatusCode.CANCELLED: "has ended the call",
    }
    if error.code in gone:
        return ServerGone(
            f"The server {gone[error.code]}. Photos and classes are kept; try again later."
        )
    message = re.sub(r"^assertion failed: \[(.*)\]$", r"\1", error.message.partition("\n")[0])
    refused = re.match(r"images\[[\d, ]*\]: (.*)", message)
    if photo is not None and refused:
        width, height = photo.size
        return UserError(f"{photo.name} ({width:,} x {height:,} pixels): {refused[1]}")
    return UserError(f"The server refuses: {message}")
