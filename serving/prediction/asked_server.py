"""Tags from a running server: TensorFlow Serving, or `python -m serving.server`."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from biam_tf.class_calibration import Tag
from biam_tf.errors import UserError
from biam_tf.files import size_in_words
from biam_tf.photos import PhotoError, as_sent
from serving.prediction.question import Question
from serving.rpc.tagging_client import DEFAULT_MAX_MESSAGE_MB, TaggingClient, TaggingError

_PHOTOS_PER_REQUEST, _BYTES_PER_REQUEST = 8, 16 * 2**20
# A photo must fit into a message with the class names around it.
_BYTES_PER_PHOTO = (DEFAULT_MAX_MESSAGE_MB - 4) * 2**20

Answered = TypeVar("Answered")


class ServerTagger:
    """Answers a question about photos with a server, a `PhotoTagger`; threads may share it.

    Args:
        question: its server and classes.

    Raises:
        UserError: the server does not answer, or a class has no embedding.
    """

    def __init__(self, question: Question):
        assert question.server is not None
        self._question = question
        self._client = TaggingClient(
            question.server,
            model_name=question.model_name,
            timeout_seconds=question.timeout,
        )
        names = question.classes
        self._classes = None
        if names is not None:
            self._classes = self._or_error(lambda: self._client.classes(names))
        # Without classes it shows in the answers.
        self.has_thresholds = self._classes is None or self._classes.calibration is not None

    def tag(self, contents: Sequence[bytes]) -> "list[tuple[Tag, ...] | str]":
        answers: list[tuple[Tag, ...] | str] = [""] * len(contents)
        waiting = self._requests(contents, answers)
        while waiting:
            places = waiting.pop()
            try:
                tagged = self._ask([as_sent(contents[place]) for place in places])
            except TaggingError as error:
                refused = error.refused_photos
                if refused is None or any(place >= len(places) for place in refused):
                    raise self._problem(error) from error
                if not refused and len(places) > 1:  # it does not say which
                    waiting += [[place] for place in places]
                    continue
                for place in refused or [0]:
                    answers[places[place]] = error.reason
                rest = [p for number, p in enumerate(places) if number not in (refused or [0])]
                waiting += [rest] if rest else []
            else:
                for place, tags in zip(places, tagged, strict=True):
                    answers[place] = tags
        return answers

    def _requests(self, contents: Sequence[bytes], answers: list) -> list[list[int]]:
        """Returns the places of photos that go into one request; enters those that cannot go."""
        requests: list[list[int]] = [[]]
        room = _BYTES_PER_REQUEST
        for place, photo in enumerate(contents):
            try:
                size = len(as_sent(photo))
            except PhotoError as error:
                answers[place] = str(error)
                continue
            if size > _BYTES_PER_PHOTO:
                answers[place] = (
                    f"{size_in_words(size)}, but a request has room for "
                    f"{size_in_words(_BYTES_PER_PHOTO)}; use a smaller photo"
                )
                continue
            if requests[-1] and (size > room or len(requests[-1]) == _PHOTOS_PER_REQUEST):
                requests.append([])
                room = _BYTES_PER_REQUEST
            requests[-1].append(place)
            room -= size
        return [request for request in requests if request]

    def _ask(self, photos: Sequence[bytes]) -> list[tuple[Tag, ...]]:
        selection = self._question.selection
        if self._classes is None:
            return [tuple(tags) for tags in self._client.known_tags(list(photos), selection)]
        answer = self._client.answer(list(photos), self._classes)
        names = self._question.classes or ()
        probabilities, present = answer.probabilities, answer.present
        return [
            tuple(
                selection.tags(
                    names,
                    scores,
                    None if probabilities is None else probabilities[row],
                    None if present is None else present[row],
                )
            )
            for row, scores in enumerate(answer.scores)
        ]

    def explain(self, photo: bytes) -> tuple[Sequence[str], np.ndarray, np.ndarray]:
        names = self._question.classes
        if names is None:
            raise UserError("--draw with --server draws classes that you choose; add --classes")
        scores, maps = self._or_error(lambda: self._client.explain([photo], names))
        return names, scores, maps

    def _or_error(self, ask: Callable[[], Answered]) -> Answered:
        try:
            return ask()
        except TaggingError as error:
            raise self._problem(error) from error

    def _problem(self, error: TaggingError) -> UserError:
        return UserError(f"{self._question.server} answered {error.code.name}: {error.reason}")
