"""Pictures of photos with their tags, and where in the photo each was found."""

import hashlib
import json
import os
import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image, PngImagePlugin

from biam_tf.contact_sheet import make_contact_sheet
from biam_tf.errors import UserError
from biam_tf.files import replacing, writing_to
from biam_tf.photos import PhotoError, open_photo, read_photo_file
from biam_tf.progress import progress
from serving.prediction.journal import Answer, Journal
from serving.prediction.photo_list import ListedPhoto
from serving.prediction.taggers import PhotoTagger

# Entry of a picture that tells what it was drawn of; a picture of the same is not drawn again.
_DRAWN_OF = "biam_tf"
# Larger than a photo in the picture.
_SIDE = 640
_LONGEST_NAME = 80


def places_to_draw(folder: pathlib.Path, photos: Sequence[ListedPhoto]) -> dict[str, pathlib.Path]:
    """Returns the picture of each photo, by key: as in the folders of the photos, each once."""
    places: dict[str, pathlib.Path] = {}
    taken: set[str] = set()
    for photo in photos:
        place, number = f"{photo.place}.png", 1
        while place.lower() in taken:
            number += 1
            place = f"{photo.place}-{number}.png"
        taken.add(place.lower())
        places[photo.key] = folder / place
    return places


def to_draw(
    places: dict[str, pathlib.Path], journal: Journal, photos: Sequence[ListedPhoto]
) -> list[ListedPhoto]:
    """Returns the photos with tags whose picture is missing, or was drawn of something else."""
    return [
        photo
        for photo in photos
        if journal.get(photo.key).tags
        and _drawn_of(places[photo.key]) != _fingerprint(journal.get(photo.key))
    ]


def draw_photos(
    tagger: PhotoTagger,
    places: dict[str, pathlib.Path],
    journal: Journal,
    photos: Sequence[ListedPhoto],
) -> None:
    """Draws photos, their tags, and heat over the photo for the first three.

    Args:
        tagger: of the photos.
        places: PNG files to write, by key.
        journal: of the tags.
        photos: to draw.

    Raises:
        UserError: the model has no response maps, or a file cannot be written.
    """
    with progress(len(photos), "Drawing", "photo") as bar:
        for photo in photos:
            _draw(tagger, places[photo.key], photo, journal.get(photo.key))
            bar.update(1)


def _draw(tagger: PhotoTagger, path: pathlib.Path, photo: ListedPhoto, answer: Answer) -> None:
    try:
        contents = read_photo_file(photo.key)
        shown = open_photo(contents, at_least=(2 * _SIDE, 2 * _SIDE)).image
    except PhotoError as error:
        raise UserError(f"{photo.path}: cannot be drawn: {error}") from error
    if hashlib.sha256(contents).hexdigest() != answer.sha256:
        raise UserError(f"{photo.path}: changed while it was tagged; run the same command again")
    shown.thumbnail((_SIDE, _SIDE))
    names, scores, maps = tagger.explain(contents)
    tags = answer.tags or ()
    caption = os.path.basename(photo.path)
    sheet = make_contact_sheet(
        [np.asarray(shown)],
        names,
        ["seen"] * len(names),  # nothing is marked as unseen
        scores,
        response_maps=maps,
        captions=[caption.encode("utf-8", "replace").decode()[-_LONGEST_NAME:]],
        columns=1,
        tags=len(tags),
        title="Tags, and where each was found",
    )
    facts = PngImagePlugin.PngInfo()
    facts.add_text(_DRAWN_OF, _fingerprint(answer))
    with writing_to(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        sheet.save(partial, "PNG", pnginfo=facts, optimize=True)


def _fingerprint(answer: Answer) -> str:
    tags = [(tag.name, f"{tag.score:.6g}") for tag in answer.tags or ()]
    return hashlib.sha256(json.dumps([answer.sha256, tags]).encode()).hexdigest()


def _drawn_of(path: pathlib.Path) -> str | None:
    try:
        with Image.open(path) as picture:
            return picture.info.get(_DRAWN_OF)
    except (OSError, ValueError, SyntaxError):
        return None
