"""The photos of a report, with their best tags, missed classes and response maps."""

import base64
import dataclasses
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from biam_tf.contact_sheet import fitted, overlay_heat
from biam_tf.photo_tags import Tag, best_tags, row_of
from biam_tf.thresholds import Thresholds
from biam_tf.vocabulary import Vocabulary
from training.data.dataset import Split, TaggingDataset
from training.scoring.explained_photos import ExplainedPhotos

PHOTO, MAP = 320, 190
TAGS, MAPS = 5, 3
VERDICTS = {1: "right", -1: "wrong", 0: "unknown"}


@dataclasses.dataclass(frozen=True)
class Card:
    """A photo with its tags.

    Attributes:
        source: the photo, as a data URI.
        width: of the photo in pixels.
        height: of the photo in pixels.
        name: of the file.
        tags: best first, as on the contact sheet.
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
    names, groups = vocabulary.names, vocabulary.groups
    probabilities, given = explained.decided(thresholds)
    photos = explained.photos(dataset, split)
    for i, (row, photo) in enumerate(zip(explained.rows, photos, strict=True)):
        image, labels = split.images[row], split.labels[row]
        tags = best_tags(
            explained.scores[i].astype(np.float64),
            names,
            groups,
            labels,
            row_of(probabilities, i),
            row_of(given, i),
            TAGS,
        )
        best = [tag.column for tag in tags]
        maps = []
        if explained.response_maps is not None:
            small = fitted(photo, MAP)
            for c in best[:MAPS]:
                heat = overlay_heat(small, explained.response_maps[i, :, :, c].astype(np.float64))
                maps.append((names[c], VERDICTS[int(labels[c])], data_uri(heat)))
        shown = fitted(photo, PHOTO)
        cards.append(
            Card(
                source=data_uri(shown),
                width=shown.width,
                height=shown.height,
                name=image,
                tags=tags,
                missed=[names[c] for c in np.flatnonzero(labels > 0) if c not in best],
                maps=maps,
            )
        )
    return cards


def data_uri(picture: Image.Image) -> str:
    """Returns a picture as a JPEG in a data URI."""
    encoded = io.BytesIO()
    picture.save(encoded, format="JPEG", quality=82, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(encoded.getvalue()).decode()
