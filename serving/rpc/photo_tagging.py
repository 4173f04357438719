"""Photos of any number tagged by a server in several requests, and their tags printed or drawn."""

import csv
import dataclasses
import json
import os
import pathlib
import sys
from collections.abc import Iterable, Sequence

import numpy as np

from biam_tf.errors import UserError
from biam_tf.errors import plain_message as plain_message  # used here by others
from serving.rpc.tagging_client import TaggingClient

_PHOTOS_PER_REQUEST, _BYTES_PER_REQUEST = 8, 16 * 2**20
# Larger than a photo on the sheet, and small enough to keep many in memory.
_DRAWN_SIZE = 640, 640

Photo = tuple[str, bytes]  # path and encoded contents


@dataclasses.dataclass(frozen=True)
class PhotoTags:
    """The tags of a photo.

    Attributes:
        photo: path of the photo.
        tags: (name, score), best first.
    """

    photo: str
    tags: list[tuple[str, float]]


def tag_with_known_classes(
    client: TaggingClient, photos: Sequence[Photo], top: int
) -> list[PhotoTags]:
    """Returns the `top` best of the model's own classes for each photo."""
    tagged = []
    for chunk in _chunks(photos):
        answers = client.tag_known([contents for _, contents in chunk])
        for (path, _), tags in zip(chunk, answers, strict=True):
            tagged.append(PhotoTags(path, tags[:top]))
    return tagged


def tag_with_classes(
    client: TaggingClient,
    photos: Sequence[Photo],
    names: Sequence[str],
    top: int,
    sheet: pathlib.Path | None = None,
) -> list[PhotoTags]:
    """Returns the `top` best of the named classes for each photo.

    Args:
        client: connected to the server.
        photos: paths and contents of the photos.
        names: class names that the model can embed.
        top: largest number of tags per photo.
        sheet: PNG file to draw the photos, their tags and response maps into; None for no file.

    Raises:
        TaggingError: the server returned an error.
        UserError: a photo can't be drawn, or the sheet can't be written.
    """
    score_chunks, map_chunks = [], []
    for chunk in _chunks(photos):
        contents = [photo for _, photo in chunk]
        if sheet is None:
            score_chunks.append(client.tag(contents, names))
        else:
            scores, response_maps = client.explain(contents, names)
            score_chunks.append(scores)
            map_chunks.append(response_maps)
    scores = np.concatenate(score_chunks)
    if sheet is not None:
        _draw(sheet, photos, names, scores, np.concatenate(map_chunks), top)
    tagged = []
    for (path, _), row in zip(photos, scores, strict=True):
        best = np.argsort(-row, kind="stable")[:top]
        tagged.append(PhotoTags(path, [(names[c], float(row[c])) for c in best]))
    return tagged


def print_table(tagged: Sequence[PhotoTags]) -> None:
    """Prints a block of lines per photo."""
    for number, photo in enumerate(tagged):
        print(("\n" if number else "") + photo.photo)
        for name, score in photo.tags:
            print(f"  {score:8.3f}  {name}")


def print_csv(tagged: Sequence[PhotoTags]) -> None:
    """Prints one line per tag: photo, tag, score."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["photo", "tag", "score"])
    for photo in tagged:
        writer.writerows((photo.photo, name, f"{score:.6g}") for name, score in photo.tags)


def print_json(tagged: Sequence[PhotoTags]) -> None:
    """Prints one list with the tags of each photo."""
    rows = [
        {"photo": photo.photo, "tags": [{"name": n, "score": s} for n, s in photo.tags]}
        for photo in tagged
    ]
    print(json.dumps(rows, indent=2, ensure_ascii=False))


def _chunks(photos: Sequence[Photo]) -> Iterable[Sequence[Photo]]:
    """Divides photos into requests that stay below the size limit of messages."""
    from biam_tf.progress import progress

    chunks: list[list[Photo]] = [[]]
    room = _BYTES_PER_REQUEST
    for path, contents in photos:
        if chunks[-1] and (len(contents) > room or len(chunks[-1]) == _PHOTOS_PER_REQUEST):
            chunks.append([])
            room = _BYTES_PER_REQUEST
        chunks[-1].append((path, contents))
        room -= len(contents)
    if len(chunks) == 1:
        yield photos
        return
    with progress(len(photos), "Tagging", "photo") as bar:
        for chunk in chunks:
            yield chunk
            bar.update(len(chunk))


def _draw(
    path: pathlib.Path,
    photos: Sequence[Photo],
    names: Sequence[str],
    scores: np.ndarray,
    response_maps: np.ndarray,
    top: int,
) -> None:
    from biam_tf.contact_sheet import draw_contact_sheet

    draw_contact_sheet(
        path,
        [_pixels(*photo) for photo in photos],
        names,
        ["seen"] * len(names),  # the groups are unknown here; none is marked as unseen
        scores,
        response_maps=response_maps,
        tags=top,
        captions=[os.path.basename(photo) for photo, _ in photos],
        title="Tags, and where each was found",
    )


def _pixels(path: str, contents: bytes) -> np.ndarray:
    from biam_tf.photos import PhotoError, open_photo

    width, height = _DRAWN_SIZE
    try:
        photo = open_photo(contents, at_least=(2 * width, 2 * height)).image
    except PhotoError as error:
        raise UserError(f"{path}: cannot be drawn: {error}") from error
    photo.thumbnail(_DRAWN_SIZE)
    return np.asarray(photo)
