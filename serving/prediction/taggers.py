"""What answers: a tagger in this process, or a server; both name the photos that they refuse."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from biam_tf.class_calibration import Tag
from biam_tf.embeddings.names import normalize
from biam_tf.errors import UserError
from biam_tf.photos import PhotoError, as_sent, decoding_problem
from biam_tf.progress import progress
from serving.prediction.question import Question

if TYPE_CHECKING:
    from biam_tf import Tagger
    from biam_tf.vocabulary import Vocabulary

# Photos of a batch. The last digits of scores depend on the size of a batch, so that all have this
# one, and a command that was stopped and continued writes the same bytes.
BATCH = 16
_NAMES_AT_A_TIME = 256


class PhotoTagger(Protocol):
    """Answers a question about photos.

    Attributes:
        has_thresholds: whether it says which tags are present.
    """

    has_thresholds: bool

    def tag(self, contents: Sequence[bytes]) -> "list[tuple[Tag, ...] | str]":
        """Returns the tags of each encoded photo, or why it cannot be read."""

    def explain(self, photo: bytes) -> tuple[Sequence[str], np.ndarray, np.ndarray]:
        """Returns class names, scores (1, C) and response maps (1, h, w, C) of a photo.

        Raises:
            UserError: the model has no response maps, or the photo cannot be read.
        """


def open_tagger(question: Question) -> PhotoTagger:
    """Loads the model of a question, or connects to the server.

    Raises:
        UserError: there is none, a class has no embedding, or a probability is asked for where the
            model gives none.
    """
    if question.server is not None:
        from serving.prediction.asked_server import ServerTagger

        return ServerTagger(question)
    return LocalTagger(question)


class LocalTagger:
    """A `PhotoTagger` in this process; threads may share it.

    Args:
        question: its model and classes.
        tagger: its model, if it is loaded already.

    Raises:
        UserError: as `open_tagger`.
    """

    def __init__(self, question: Question, tagger: "Tagger | None" = None):
        from biam_tf import Tagger

        self._question = question
        if tagger is not None:
            self._tagger = tagger
        elif question.preset is not None:
            self._tagger = Tagger.from_preset(question.preset)
        else:
            self._tagger = Tagger.load(str(question.model))
        self.has_thresholds = self._tagger.thresholds is not None
        if question.selection.needs_calibration and not self.has_thresholds:
            raise UserError(
                f"--present, --probability: {question.name} has no thresholds, as it "
                "was trained without validation photos; use --threshold SCORE or --top N"
            )
        self._vocabulary = self._tagger.vocabulary
        if question.classes is not None:
            self._vocabulary = embed_classes(self._tagger, question.classes)

    def tag(self, contents: Sequence[bytes]) -> "list[tuple[Tag, ...] | str]":
        answers: list[tuple[Tag, ...] | str] = [""] * len(contents)
        left = list(range(len(contents)))
        while left:
            photos = [contents[place] for place in left]
            try:
                # The same photo again fills the batch.
                tagged = self._ask(photos + photos[:1] * (BATCH - len(photos)))
            except UserError:
                refused = {place: self._problem(contents[place]) for place in left}
                if not any(refused.values()):
                    raise  # it is not about a photo
                for place, reason in refused.items():
                    answers[place] = reason or ""
                left = [place for place in left if refused[place] is None]
                continue
            for place, tags in zip(left, tagged, strict=False):
                answers[place] = chosen_tags(tags, self._question)
            break
        return answers

    def _ask(self, photos: Sequence[bytes]) -> "list[list[Tag]]":
        question = self._question
        at: float | Literal["threshold"] | None = question.probability
        if question.present:
            at = "threshold"
        return self._tagger.tag(photos, self._vocabulary, top=question.top, at=at)

    def _problem(self, contents: bytes) -> str | None:
        try:
            reason = decoding_problem(as_sent(contents))
        except PhotoError as error:
            return str(error)
        if reason is None:
            try:
                self._tagger.features(contents)
            except UserError as error:
                return str(error).removeprefix("photo 1: ")
        return reason

    def explain(self, photo: bytes) -> tuple[Sequence[str], np.ndarray, np.ndarray]:
        scores, maps = self._tagger.explain(photo, self._vocabulary)
        return self._vocabulary.names, scores, maps


def chosen_tags(tags: Sequence[Tag], question: Question) -> tuple[Tag, ...]:
    """Returns the tags that are wanted; a threshold of the question decides what is present."""
    cut = question.threshold
    if cut is None:
        return tuple(tags)
    return tuple(dataclasses.replace(tag, present=True) for tag in tags if tag.score >= cut)


def embed_classes(tagger: "Tagger", classes: Sequence[str]) -> "Vocabulary":
    """Embeds names, with progress if they are many, and keeps many embeddings in the cache."""
    from biam_tf.vocabulary import Vocabulary

    names = list(dict.fromkeys(normalize(name) for name in classes))
    blocks = [names[i : i + _NAMES_AT_A_TIME] for i in range(0, len(names), _NAMES_AT_A_TIME)]
    if len(blocks) < 3:
        rows = [tagger.embed(block) for block in blocks]
    else:
        rows = []
        with progress(len(names), "Embedding classes", "class") as bar:
            for block in blocks:
                rows.append(tagger.embed(block))
                bar.update(len(block))
    return Vocabulary(tuple(names), np.concatenate(rows), ("unseen",) * len(names))
