"""Tags a list of photos: batches in threads, each entered into the journal when it is done."""

import hashlib
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from biam_tf.photos import PhotoError, photo_problem, read_photo_file
from biam_tf.progress import progress
from biam_tf.threads import in_order
from serving.prediction.journal import Answer, FileState, Journal
from serving.prediction.taggers import BATCH, PhotoTagger

# One batch is read and decoded while another runs through the model.
_BATCHES_AT_ONCE = 2

Out = TypeVar("Out")


def batches(keys: Sequence[str]) -> list[Sequence[str]]:
    """Returns photos in the batches that they are tagged in."""
    return [keys[start : start + BATCH] for start in range(0, len(keys), BATCH)]


def batches_in_order(
    function: Callable[[Sequence[str]], Out], keys: Sequence[str]
) -> Iterator[Out]:
    """Yields what `function` makes of each batch of photos, in their order."""
    return in_order(function, batches(keys), _BATCHES_AT_ONCE, ahead=_BATCHES_AT_ONCE)


def tag_batch(tagger: PhotoTagger, keys: Sequence[str]) -> list[Answer]:
    """Reads and tags photos.

    Args:
        tagger: answers.
        keys: absolute paths.

    Returns:
        An answer for each photo, tags or the reason why it is broken, in the same order.
    """
    answers: dict[str, Answer] = {}
    read: list[tuple[str, FileState, bytes]] = []
    for key in keys:
        try:
            state = _state(key)
            read.append((key, state, read_photo_file(key)))
        except PhotoError as error:
            answers[key] = Answer(key, FileState(-1, 0, 0), "", problem=str(error))
    tagged = tagger.tag([contents for _, _, contents in read]) if read else []
    for (key, state, contents), found in zip(read, tagged, strict=True):
        sha256 = hashlib.sha256(contents).hexdigest()
        if isinstance(found, str):
            answers[key] = Answer(key, state, sha256, problem=found)
        else:
            answers[key] = Answer(key, state, sha256, tags=found)
    return [answers[key] for key in keys]


def _state(key: str) -> FileState:
    try:
        return FileState.of(key)
    except OSError:
        read_photo_file(key)  # says what is wrong with it
        raise


def tag_photos(
    journal: Journal, to_do: Sequence[str], total: int, open_tagger: Callable[[], PhotoTagger]
) -> None:
    """Tags photos and enters them into the journal.

    Args:
        journal: of the answers.
        to_do: absolute paths.
        total: number of all photos, those of before included, for the progress line.
        open_tagger: loads the model; it is not called if there is nothing to do.

    Raises:
        UserError: the model cannot be loaded, or the journal cannot be written.
    """
    if not to_do:
        return
    tagger = open_tagger()
    with progress(total, "Tagging", "photo", total - len(to_do)) as bar:
        for answers in batches_in_order(lambda keys: tag_batch(tagger, keys), to_do):
            journal.add(answers)
            bar.update(len(answers))


def repaired(journal: Journal, keys: Iterable[str]) -> list[str]:
    """Returns photos that were broken before but can be read now, in a format since installed."""
    return [
        key
        for key in keys
        if journal.get(key).problem is not None and photo_problem(pathlib.Path(key)) is None
    ]
