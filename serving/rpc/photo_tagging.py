"""Photos of any number tagged by a server in several requests, and their tags printed or drawn."""

import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TextIO

import numpy as np

from biam_tf.class_calibration import ClassCalibration, Selection, Tag
from biam_tf.embeddings.names import look_up
from biam_tf.errors import UserError
from biam_tf.errors import plain_message as plain_message  # used here by others
from biam_tf.files import size_in_words
from biam_tf.photos import PhotoError, as_sent
from biam_tf.spreadsheets import SpreadsheetWriter
from biam_tf.thresholds import Thresholds
from biam_tf.vocabulary import Vocabulary
from serving.rpc.answers import Answer, Classes
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
        tags: best first.
        calibrated: whether they have probabilities and thresholds.
    """

    photo: str
    tags: list[Tag]
    calibrated: bool


@dataclasses.dataclass
class Failures:
    """What was not tagged.

    Attributes:
        photos: why each of these photos was not tagged, by path.
        stopped: the error that ended the requests before all photos were sent; None if none did.
    """

    photos: dict[str, str] = dataclasses.field(default_factory=dict)
    stopped: TaggingError | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class LocalThresholds:
    """Thresholds in a file of this machine, for a server whose model gives scores only.

    Attributes:
        thresholds: the file.
        vocabulary: the classes of the model, from `vocabulary.npz` beside it.
    """

    thresholds: Thresholds
    vocabulary: Vocabulary

    @classmethod
    def read(cls, path: pathlib.Path) -> "LocalThresholds":
        """Reads the `thresholds.json` of a run or an export.

        Raises:
            UserError: it or `vocabulary.npz` beside it cannot be read.
        """
        vocabulary = path.with_name("vocabulary.npz")
        if not vocabulary.is_file():
            raise UserError(
                f"{path}: no vocabulary.npz beside it; name the thresholds.json in the folder of "
                "a run, or in assets.extra of an export"
            )
        return cls(Thresholds.load(path), Vocabulary.load(vocabulary))

    def of(self, classes: Classes) -> ClassCalibration:
        """Returns the calibration of classes."""
        return self.thresholds.for_classes(classes.names, classes.embeddings, self.vocabulary)

    def add_to(self, tags: Sequence[Tag], selection: Selection) -> list[Tag]:
        """Returns tags of the model's own classes with probabilities, by their scores."""
        own, names = self.vocabulary, [tag.name for tag in tags]
        rows = [look_up(name, None, own.index).row for name in names]
        embeddings = own.embeddings[[0 if row is None else row for row in rows]]
        its = self.thresholds.for_classes(names, embeddings, own)
        scores = np.array([tag.score for tag in tags], np.float32)
        return selection.tags(names, scores, its.probabilities(scores), its.decide(scores))


def tag_with_known_classes(
    client: TaggingClient,
    photos: Sequence[str],
    selection: Selection,
    failures: Failures,
    local: LocalThresholds | None = None,
) -> list[PhotoTags]:
    """Returns tags of the model's own classes for each photo that was not refused.

    Args:
        client: connected to the server.
        photos: paths of the photos; they are read as they are sent.
        selection: which classes are given.
        failures: collects what was not tagged.
        local: replaces the probabilities and thresholds of the model; None: those of the model.

    Raises:
        UserError: the selection needs thresholds, and there are none.
    """
    tagged, of_server = [], selection if local is None else Selection()
    ask = functools.partial(client.known_tags, selection=of_server)
    for chunk, answers in _answers(photos, ask, failures):
        for (path, _), tags in zip(chunk, answers, strict=True):
            if local is not None:
                tags = local.add_to(tags, selection)
            calibrated = selection.needs_calibration or any(t.present is not None for t in tags)
            tagged.append(PhotoTags(path, tags, calibrated))
    return tagged


def tag_with_classes(
    client: TaggingClient,
    photos: Sequence[str],
    names: Sequence[str],
    selection: Selection,
    failures: Failures,
    sheet: pathlib.Path | None = None,
    local: LocalThresholds | None = None,
) -> list[PhotoTags]:
    """Returns tags of the named classes for each photo that was not refused.

    Args:
        client: connected to the server.
        photos: paths of the photos; they are read as they are sent.
        names: class names that the model can embed.
        selection: which classes are given.
        failures: collects what was not tagged.
        sheet: PNG file to draw the photos, their tags and response maps into; None for no file.
        local: replaces the probabilities and thresholds of the model; None: those of the model.

    Raises:
        UserError: the selection needs thresholds and there are none, a photo can't be drawn, or
            the sheet can't be written.
    """
    classes: Classes | None = None
    its: ClassCalibration | None = None

    def ask(contents: list[bytes]) -> Answer:
        nonlocal classes, its
        answer = client.answer(contents, classes or names, response_maps=sheet is not None)
        if answer.classes is not classes:  # the first answer, or another version of the model
            classes = answer.classes
            its = classes.calibration if local is None else local.of(classes)
        return answer

    tagged: list[PhotoTags] = []
    drawn: list[Photo] = []
    score_chunks, map_chunks = [], []
    for chunk, answer in _answers(photos, ask, failures):
        for (path, _), scores in zip(chunk, answer.scores, strict=True):
            calibrated = (
                (None, None) if its is None else (its.probabilities(scores), its.decide(scores))
            )
            tags = selection.tags(names, scores, *calibrated)
            tagged.append(PhotoTags(path, tags, its is not None))
        if sheet is not None:
            drawn += chunk
            score_chunks.append(answer.scores)
            map_chunks.append(answer.response_maps)
    if sheet is not None and tagged:
        scores, maps = np.concatenate(score_chunks), np.concatenate(map_chunks)
        _draw(sheet, drawn, names, scores, maps, selection.top or len(names))
    return tagged


def print_table(tagged: Sequence[PhotoTags]) -> None:
    """Prints a block of lines per photo; a tick marks the classes that reach their threshold."""
    tick = tick_for(sys.stdout)
    for number, photo in enumerate(tagged):
        print(("\n" if number else "") + photo.photo)
        for tag in photo.tags:
            print(f"  {tag.score:8.3f}  {calibrated_columns(tag, tick)}{tag.name}")


def calibrated_columns(tag: Tag, tick: str) -> str:
    """Returns a tick for a present class and the probability, in columns; empty without them."""
    if tag.present is None:
        return ""
    per_cent = "-" if tag.probability is None else f"{100 * tag.probability:.0f} %"
    return f"{tick if tag.present else ' '} {per_cent:>5}  "


def tick_for(stream: TextIO) -> str:
    """Returns a tick, or a star where the stream cannot show it."""
    try:
        "\u2713".encode(stream.encoding or "ascii")
    except UnicodeEncodeError:
        return "*"
    return "\u2713"


def print_csv(tagged: Sequence[PhotoTags]) -> None:
    """Prints one line per tag: photo, tag, score, and where there are any, probability, present."""
    writer = SpreadsheetWriter(sys.stdout)
    calibrated = any(photo.calibrated for photo in tagged)
    writer.writerow(["photo", "tag", "score", *(["probability", "present"] * calibrated)])
    for photo in tagged:
        for tag in photo.tags:
            row: list[object] = [photo.photo, tag.name, f"{tag.score:.6g}"]
            if calibrated:
                row += ["" if tag.probability is None else f"{tag.probability:.6g}", tag.present]
            writer.writerow(row)


def print_json(tagged: Sequence[PhotoTags], failures: Failures | None = None) -> None:
    """Prints one list with the tags of each photo; failed ones follow with their error."""
    rows: list[dict[str, Any]] = []
    for photo in tagged:
        tags = [
            {"name": tag.name, "score": tag.score}
            | ({"probability": tag.probability, "present": tag.present} if photo.calibrated else {})
            for tag in photo.tags
        ]
        rows.append({"photo": photo.photo, "tags": tags})
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
