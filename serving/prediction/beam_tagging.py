"""Tags photos with an Apache Beam pipeline, on many machines.

    parts of the list of photos -> reshuffle -> the file of a part's answers

Each part is tagged in the batches of the command itself, so that the answers are the same. Its file
is written whole or not at all, beside the journal, in a folder that all machines must be able to
access (the cache folder, `BIAM_CACHE`), as they must the photos and the model. A part whose file
exists is not tagged again, as long as its photos stay as they are; the process that started the
pipeline enters all parts into the journal.
"""

import hashlib
import pathlib
import shutil
from collections.abc import Iterator, Sequence

from biam_tf.beam_pipelines import Shared, beam, new_pipeline
from biam_tf.errors import UserError
from biam_tf.files import write_text, writing_to
from serving.prediction.journal import Answer, FileState, Journal
from serving.prediction.question import Question
from serving.prediction.taggers import open_tagger
from serving.prediction.tagging import batches, tag_batch

_BATCHES_OF_A_PART = 32


class _TagPart(beam.DoFn):
    """Maps the photos of a part to their number, after writing the file of their answers."""

    def __init__(self, question: Question, folder: str):
        self._question = question
        self._folder = folder
        # All threads of a process share one model.
        self._shared = Shared()

    def setup(self) -> None:
        self._tagger = self._shared.acquire(lambda: open_tagger(self._question))

    def process(self, part: tuple[str, list[str]]) -> Iterator[int]:
        name, keys = part
        path = pathlib.Path(self._folder) / name
        if not path.exists():  # else an earlier attempt has finished it
            answers = [a for batch in batches(keys) for a in tag_batch(self._tagger, batch)]
            write_text(path, "".join(f"{answer.to_line()}\n" for answer in answers))
        yield len(keys)


def tag_with_beam(
    journal: Journal, to_do: Sequence[str], question: Question, options: Sequence[str]
) -> None:
    """Tags photos with a pipeline and enters the answers into the journal.

    Args:
        journal: of the answers.
        to_do: absolute paths.
        question: the model and the classes.
        options: of the pipeline, such as `--runner=FlinkRunner`; without a runner it runs in this
            process.

    Raises:
        UserError: the options are not valid, or a part has no file at the end.
    """
    if not to_do:
        return
    folder = journal.path.with_suffix(".parts")
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
    size = len(batches(to_do)[0]) * _BATCHES_OF_A_PART
    lists = [list(to_do[start : start + size]) for start in range(0, len(to_do), size)]
    parts = [(_file_of(keys), keys) for keys in lists]
    try:
        pipeline, _ = new_pipeline(options)
    except SystemExit as stop:  # Beam's parser has printed the reason
        raise UserError("--beam-options: not valid options of Beam, see above") from stop
    _ = (
        pipeline
        | "Parts" >> beam.Create(parts)
        | "Spread" >> beam.Reshuffle()
        | "Tag" >> beam.ParDo(_TagPart(question, str(folder)))
    )
    pipeline.run().wait_until_finish()
    missing = [name for name, _ in parts if not (folder / name).exists()]
    if missing:
        raise UserError(
            f"{folder}: the pipeline ended, but {len(missing)} of {len(parts)} parts are missing; "
            "name a cache folder that all machines can access (BIAM_CACHE), or run it again"
        )
    for name, _ in parts:
        lines = (folder / name).read_bytes().splitlines()
        journal.add(answer for answer in map(Answer.of_line, lines) if answer is not None)
    shutil.rmtree(folder, ignore_errors=True)


def _file_of(keys: Sequence[str]) -> str:
    """Returns the name of a part's file, another one when a photo has changed."""
    digest = hashlib.sha256()
    for key in keys:
        try:
            state: FileState | None = FileState.of(key)
        except OSError:
            state = None
        digest.update(f"{key}\0{state}\0".encode("utf-8", "surrogatepass"))
    return f"{digest.hexdigest()[:32]}.jsonl"
