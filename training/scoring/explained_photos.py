"""Photos with their scores and response maps, and the sheet of pictures that shows them."""

import dataclasses
import pathlib
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from biam_tf.contact_sheet import PHOTO, draw_contact_sheet, fitted
from biam_tf.files import writing_to
from biam_tf.models import build_tagger
from biam_tf.models.head import response_map_layer, with_response_maps
from biam_tf.photos import Orientation, open_photo
from biam_tf.thresholds import Thresholds
from biam_tf.vocabulary import Vocabulary
from training.data.dataset import Split, TaggingDataset
from training.data.input.photo_reader import read_photo

PHOTOS_ON_SHEET = 12


@dataclasses.dataclass(frozen=True, eq=False)
class ExplainedPhotos:
    """Some photos of a split with their scores and response maps.

    Attributes:
        rows: (P,) indices of the photos in the split.
        pixels: (P, S, S, 3) uint8, at the size that the model takes.
        scores: (P, C).
        response_maps: (P, h, w, C); None: the head does not classify regions.
        orientation: whether the photos were turned upright as EXIF data say.
    """

    rows: np.ndarray
    pixels: np.ndarray
    scores: np.ndarray
    response_maps: np.ndarray | None
    orientation: Orientation = "follow"

    def photos(self, dataset: TaggingDataset, split: Split) -> list[Image.Image]:
        """Returns the photos from their files, in their own proportions: `pixels` are square."""
        paths = [dataset.photo_path(split.images[row]) for row in self.rows]
        return [open_photo(path, orientation=self.orientation).image for path in paths]

    def decided(self, thresholds: Thresholds | None) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Returns probabilities (P, C) and which classes are tags (P, C); None without thresholds.

        Args:
            thresholds: of the same classes in the same order.
        """
        if thresholds is None:
            return None, None
        scores = self.scores.astype(np.float64)
        return thresholds.probabilities(scores), thresholds.decide(scores)


def explain_photos(
    backbone: keras.Model,
    head: keras.Model,
    dataset: TaggingDataset,
    split: Split,
    vocabulary: Vocabulary,
    count: int,
    orientation: Orientation = "follow",
) -> ExplainedPhotos:
    """Scores some photos, spread evenly over a split or over those with an unseen class.

    Args:
        backbone: photos to features.
        head: features to scores; its response maps are returned if it has any.
        dataset: of the split.
        split: the photos to choose from.
        vocabulary: the classes.
        count: the number of photos.
        orientation: whether photos are turned upright as EXIF data say.
    """
    rows = _photos_to_show(split, dataset.unseen, count)
    size = backbone.input_shape[1]
    photos = tf.stack(
        [
            read_photo(dataset.directory, tf.constant(split.images[i]), size, orientation)
            for i in rows
        ]
    )
    has_maps = response_map_layer(head) is not None
    tagger = build_tagger(backbone, with_response_maps(head) if has_maps else head)
    inputs = {"images": photos, "class_embeddings": tf.constant(vocabulary.embeddings)}
    # Called once: compiling it would take longer than running it.
    outputs = tagger([inputs[tensor.name] for tensor in tagger.inputs], training=False)
    return ExplainedPhotos(
        rows,
        photos.numpy().round().astype(np.uint8),
        (outputs["scores"] if has_maps else outputs).numpy(),
        np.asarray(outputs["response_maps"], np.float32) if has_maps else None,
        orientation,
    )


def draw_sheet(
    explained: ExplainedPhotos,
    path: pathlib.Path,
    dataset: TaggingDataset,
    split: Split,
    vocabulary: Vocabulary,
    title: str,
    thresholds: Thresholds | None,
) -> None:
    """Draws photos of a split with their top tags and response maps into a PNG."""
    contents = sheet_contents(explained, dataset, split, vocabulary, thresholds)
    with writing_to(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_contact_sheet(path, **contents, title=title)


def sheet_contents(
    explained: ExplainedPhotos,
    dataset: TaggingDataset,
    split: Split,
    vocabulary: Vocabulary,
    thresholds: Thresholds | None = None,
) -> dict[str, Any]:
    """Returns the arguments of `biam_tf.contact_sheet.make_contact_sheet` for these photos.

    Args:
        explained: the photos.
        dataset: of the split.
        split: the photos' names and labels.
        vocabulary: the classes.
        thresholds: of any run of these classes; None: scores are shown.
    """
    probabilities, given = explained.decided(thresholds and thresholds.for_names(vocabulary.names))
    photos = [fitted(photo, PHOTO) for photo in explained.photos(dataset, split)]
    return {
        "photos": [np.asarray(photo) for photo in photos],
        "captions": [split.images[row] for row in explained.rows],
        "probabilities": probabilities,
        "given": given,
        "names": vocabulary.names,
        "groups": vocabulary.groups,
        "scores": explained.scores,
        "labels": split.labels[explained.rows],
        "response_maps": explained.response_maps,
    }


def _photos_to_show(split: Split, unseen: np.ndarray, count: int) -> np.ndarray:
    with_unseen = np.flatnonzero(split.labels.columns(unseen).count(1, axis=1))
    pool = with_unseen if len(with_unseen) >= count else np.arange(len(split))
    spread = np.linspace(0, len(pool) - 1, min(count, len(pool)))
    return pool[spread.round().astype(int)]
