"""Photos of any number tagged by a server in several requests, and their tags printed or drawn."""

import contextlib
import dataclasses
import json
import os
import pathlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from biam_tf.errors import UserError
from biam_tf.errors import plain_message as plain_message  # used here by others
from biam_tf.files import size_in_words
from biam_tf.photos import PhotoError, as_sent
from biam_tf.spreadsheets import SpreadsheetWriter
from serving.rpc.tagging_client import (
    DEFAULT_MAX_MESSAGE_MB,
    TaggingClient,
    TaggingError,
    read_file,
)

_PHOTOS_PER_REQUEST, _BYTES_PER_REQUEST = 8, 16 * 2**20
# A photo must fit into a message with the class names around it.
_BYTES_PER_PHOTO = (DEFAULT_MAX_MESSAGE_MB - 4) * 2**20
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


@dataclasses.dataclass
class Failures:
    """What was not tagged.

    Attributes:
        photos: why each of these photos was not tagged, by path.
        stopped: the error that ended the requests before all photos were sent; None if none did.
    """

    photos: dict[str, str] = dataclasses.field(default_factory=dict)
    stopped: TaggingError | None = None


def tag_with_known_classes(
    client: TaggingClient, photos: Sequence[str], top: int, failures: Failures
) -> list[PhotoTags]:
    """Returns the `top` best of the model's own classes for each photo that was not refused."""
    tagged = []
    for chunk, answers in _answers(photos, client.tag_known, failures):
        for (path, _), tags in zip(chunk, answers, strict=True):
            tagged.append(PhotoTags(path, tags[:top]))
    return tagged


def tag_with_classes(
    client: TaggingClient,
    photos: Sequence[str],
    names: Sequence[str],
    top: int,
    failures: Failures,
    sheet: pathlib.Path | None = None,
) -> list[PhotoTags]:
    """Returns the `top` best of the named classes for each photo that was not refused.

    Args:
        client: connected to the server.
        photos: paths of the photos; they are read as they are sent.
        names: class names that the model can embed.
        top: largest number of tags per photo.
        failures: collects what was not tagged.
        sheet: PNG file to draw the photos, their tags and response maps into; None for no file.

    Raises:
        UserError: a photo can't be drawn, or the sheet can't be written.
    """

    def ask(contents: list[bytes]) -> tuple[np.ndarray, np.ndarray | None]:
        if sheet is None:
            return client.tag(contents, names), None
        return client.explain(contents, names)

    answered: list[str] = []
    drawn: list[Photo] = []
    score_chunks, map_chunks = [], []
    for chunk, (scores, response_maps) in _answers(photos, ask, failures):
        answered += [path for path, _ in chunk]
        score_chunks.append(scores)
        if sheet is not None:
            drawn += chunk
            map_chunks.append(response_maps)
    if not answered:
        return []
    scores = np.concatenate(score_chunks)
    if sheet is not None:
        _draw(sheet, drawn, names, scores, np.concatenate(map_chunks), top)
    tagged = []
    for path, row in zip(answered, scores, strict=True):
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
    writer = SpreadsheetWriter(sys.stdout)
    writer.writerow(["photo", "tag", "score"])
    for photo in tagged:
        writer.writerows((photo.photo, name, f"{score:.6g}") for name, score in photo.tags)


def print_json(tagged: Sequence[PhotoTags], failures: Failures | None = None) -> None:
    """Prints one list with the tags of each photo; failed ones follow with their error."""
    rows = [
        {"photo": photo.photo, "tags": [{"name": n, "score": s} for n, s in photo.tags]}
        for photo in tagged
    ]
    for path, error in (failures.photos if failures else {}).items():
        rows.append({"photo": path, "tags": [], "error": error})
    print(json.dumps(rows, indent=2, ensure_ascii=False))


def _answers(
    paths: Sequence[str], ask: Callable[[list[bytes]], Any], failures: Failures
) -> Iterator[tuple[Sequence[Photo], Any]]:
    """Yields photos and the server's answer to them, a request at a time.

    A photo that is refused is left out of its request, which is then sent again, so that it costs
    no answer but its own. Another error ends the requests.
    """
    for chunk in _chunks(_readable(paths, failures), len(paths)):
        waiting = [chunk]
        while waiting:
            photos = waiting.pop(0)
            try:
                answer = ask([contents for _, contents in photos])
            except TaggingError as error:
                refused = error.refused_photos
                if refused is None or any(place >= len(photos) for place in refused):
                    failures.stopped = error
                    return
                if not refused and len(photos) > 1:  # it does not say which
                    waiting = [[photo] for photo in photos] + waiting
                    continue
                refused = refused or [0]
                failures.photos |= {photos[place][0]: error.reason for place in refused}
                rest = [photo for place, photo in enumerate(photos) if place not in refused]
                waiting = ([rest] if rest else []) + waiting
            else:
                yield photos, answer


def _readable(paths: Sequence[str], failures: Failures) -> Iterator[Photo]:
    """Yields photos in formats that servers decode, without those that can't be sent."""
    for path in paths:
        try:
            contents = as_sent(read_file(path))
        except (UserError, PhotoError) as error:
            failures.photos[path] = str(error).removeprefix(f"{path}: ")
            continue
        if len(contents) > _BYTES_PER_PHOTO:
            failures.photos[path] = (
                f"{size_in_words(len(contents))}, but a request has room for "
                f"{size_in_words(_BYTES_PER_PHOTO)}; use a smaller photo"
            )
            continue
        yield path, contents


def _chunks(photos: Iterable[Photo], count: int) -> Iterator[list[Photo]]:
    """Divides photos into requests that stay below the size limit of messages.

    Args:
        photos: read as the requests are made.
        count: their number, for the progress line.
    """
    from biam_tf.progress import progress

    shown: contextlib.AbstractContextManager = contextlib.nullcontext()
    if count > _PHOTOS_PER_REQUEST:
        shown = progress(count, "Tagging", "photo")
    with shown as bar:
        chunk: list[Photo] = []
        room = _BYTES_PER_REQUEST
        for photo in photos:
            if chunk and (len(photo[1]) > room or len(chunk) == _PHOTOS_PER_REQUEST):
                yield chunk
                if bar is not None:
                    bar.update(len(chunk))
                chunk, room = [], _BYTES_PER_REQUEST
            chunk.append(photo)
            room -= len(photo[1])
        if chunk:
            yield chunk
        if bar is not None:
            bar.update(count - bar.n)


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
