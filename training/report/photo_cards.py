"""The photos of a report, with their best tags, missed classes and response maps."""

import base64
import dataclasses
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from biam_tf.contact_sheet import fitted, overlay_heat
from biam_tf.photos import open_photo
from biam_tf.thresholds import Thresholds
from biam_tf.vocabulary import Vocabulary
from training.data.dataset import Split, TaggingDataset
from training.scoring.explained_photos import ExplainedPhotos

PHOTO, MAP = 320, 190
TAGS, MAPS = 5, 3
VERDICTS = {1: "right", -1: "wrong", 0: "unknown"}


@dataclasses.dataclass(frozen=True)
class Tag:
    """A tag of a photo.

    Attributes:
        name: of the class.
        unseen: whether the class is unseen.
        verdict: "right", "wrong" or "unknown".
        value: probability or score, as text.
        length: of its bar, 0-100.
        given: whether its score reaches the class's threshold.
    """

    name: str
    unseen: bool
    verdict: str
    value: str
    length: float
    given: bool


@dataclasses.dataclass(frozen=True)
class Card:
    """A photo with its tags.

    Attributes:
        source: the photo, as a data URI.
        width: of the photo in pixels.
        height: of the photo in pixels.
        name: of the file.
        tags: best first.
        missed: present classes that are not among the tags.
        maps: (name, verdict, data URI) of the first tags' response maps over the photo.
    """

    source: str
    width: int
    height: int
    name: str
    tags: Sequence[Tag]
    missed: Sequence[str]
    maps: Sequence[tuple[str, str, str]]


def photo_cards(
    explained: ExplainedPhotos,
    dataset: TaggingDataset,
    split: Split,
    vocabulary: Vocabulary,
    thresholds: Thresholds | None,
) -> list[Card]:
    """Returns a card for each photo.

    Args:
        explained: the photos, their scores and response maps.
        dataset: the data set of the photos.
        split: the photos' names and labels.
        vocabulary: the classes.
        thresholds: for the same classes in the same order; None: scores are shown.
    """
    cards = []
    for i, row in enumerate(explained.rows):
        image = split.images[row]
        # From the file, in its own proportions: the model's input is square.
        path = dataset.photo_path(image)
        photo = open_photo(path, orientation=explained.orientation).image
        labels, scores = split.labels[row], explained.scores[i].astype(np.float64)
        best = np.argsort(-scores, kind="stable")[: min(TAGS, len(scores))]
        maps = []
        if explained.response_maps is not None:
            small = fitted(photo, MAP)
            for c in best[:MAPS]:
                heat = overlay_heat(small, explained.response_maps[i, :, :, c].astype(np.float64))
                maps.append((vocabulary.names[c], VERDICTS[int(labels[c])], data_uri(heat)))
        shown = fitted(photo, PHOTO)
        cards.append(
            Card(
                source=data_uri(shown),
                width=shown.width,
                height=shown.height,
                name=image,
                tags=_tags(best, scores, labels, vocabulary, thresholds),
                missed=[vocabulary.names[c] for c in np.flatnonzero(labels > 0) if c not in best],
                maps=maps,
            )
        )
    return cards


def data_uri(picture: Image.Image) -> str:
    """Returns a picture as a JPEG in a data URI."""
    encoded = io.BytesIO()
    picture.save(encoded, format="JPEG", quality=82, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(encoded.getvalue()).decode()


def _tags(
    best: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    vocabulary: Vocabulary,
    thresholds: Thresholds | None,
) -> list[Tag]:
    given = np.zeros(len(scores), bool)
    low = float(np.median(scores))
    span = scores[best[0]] - low or 1.0
    lengths, values = (scores - low) / span, [f"{score:.2f}" for score in scores]
    if thresholds is not None:
        probabilities, given = thresholds.probabilities(scores), thresholds.decide(scores)
        known = ~np.isnan(probabilities)
        lengths = np.where(known, probabilities, 0.0)
        values = [
            f"{100 * p:.0f} %" if is_known else "no %"
            for p, is_known in zip(probabilities, known, strict=True)
        ]
    return [
        Tag(
            name=vocabulary.names[c],
            unseen=vocabulary.groups[c] == "unseen",
            verdict=VERDICTS[int(labels[c])],
            value=values[c],
            length=round(100 * float(np.clip(lengths[c], 0, 1)), 1),
            given=bool(given[c]),
        )
        for c in best
    ]
