"""What was answered before: the tags of each photo, kept so that a stopped command continues.

A journal is a text file in the cache folder, one for each model, list of classes and choice of
tags. Its lines are JSON objects, added after every batch of photos; the last line of a photo
counts. A photo is known by its contents: as long as size and times of its file stay, they are taken
for the same, otherwise its SHA-256 decides.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Sequence

from biam_tf.class_calibration import Tag
from biam_tf.errors import UserError
from biam_tf.files import CACHE_VARIABLE, append_line, cache_folder, sha256_of, writing_to

# Another number for other contents of a journal: what was answered before is then asked again.
FORMAT = 1


@dataclasses.dataclass(frozen=True)
class FileState:
    """What tells that a file has not been changed: size in bytes, and times in nanoseconds."""

    size: int
    modified: int
    changed: int

    @classmethod
    def of(cls, path: str) -> "FileState":
        """Reads the state of a file; raises an `OSError` if there is none."""
        status = os.stat(path)
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@dataclasses.dataclass(frozen=True)
class Answer:
    """What is known of a photo.

    Attributes:
        key: absolute path.
        state: of its file when it was read.
        sha256: of its contents.
        tags: best first; None: the photo is broken.
        problem: why it is broken.
    """

    key: str
    state: FileState
    sha256: str
    tags: tuple[Tag, ...] | None = None
    problem: str | None = None

    def to_line(self) -> str:
        """Returns the answer as a line of a journal."""
        value: dict = {
            "photo": self.key,
            "state": dataclasses.astuple(self.state),
            "sha256": self.sha256,
        }
        if self.tags is None:
            value["problem"] = self.problem
        else:
            value["tags"] = [dataclasses.astuple(tag) for tag in self.tags]
        return json.dumps(value)

    @classmethod
    def of_line(cls, line: bytes) -> "Answer | None":
        """Returns the answer of a line; None: it was cut off when a process was killed."""
        try:
            value = json.loads(line)
            tags = value.get("tags")
            return cls(
                value["photo"],
                FileState(*value["state"]),
                value["sha256"],
                None if tags is None else tuple(Tag(*tag) for tag in tags),
                value.get("problem"),
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            return None


class Journal:
    """The answers of one model to one list of classes.

    Only the state of each photo is held in memory; its tags are read when they are asked for.

    Args:
        identity: all that the answers depend on, besides the photos.
        forget: whether earlier answers are dropped.

    Attributes:
        path: the file.

    Raises:
        UserError: the cache folder cannot be written.
    """

    def __init__(self, identity: Sequence[str], forget: bool = False):
        digest = hashlib.sha256(
            "\0".join((str(FORMAT), *identity)).encode("utf-8", "surrogatepass")
        )
        self.path = cache_folder() / "predictions" / f"{digest.hexdigest()[:24]}.jsonl"
        self._where: dict[str, tuple[int, FileState, str]] = {}
        try:
            with writing_to(self.path.parent):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                if forget:
                    self.path.unlink(missing_ok=True)
        except UserError as error:
            raise UserError(
                f"{error}. Answers are kept there to continue a stopped command; the environment "
                f"variable {CACHE_VARIABLE} names another folder"
            ) from None

    @property
    def lock(self) -> pathlib.Path:
        """Path of the lock of the process that writes the journal."""
        return self.path.with_suffix(".lock")

    def open(self) -> None:
        """Reads what was answered before; ends a line that was cut off."""
        if not self.path.exists():
            return
        with open(self.path, "rb") as file:
            start, line = 0, b""
            for line in file:
                self._enter(Answer.of_line(line), start)
                start += len(line)
        if line and not line.endswith(b"\n"):
            with writing_to(self.path), open(self.path, "ab") as file:
                file.write(b"\n")

    def _enter(self, answer: Answer | None, start: int) -> None:
        if answer is not None:
            self._where[answer.key] = start, answer.state, answer.sha256

    def add(self, answers: Iterable[Answer]) -> None:
        """Adds answers, and waits until they are on the disk."""
        answers = list(answers)
        if not answers:
            return
        start = self.path.stat().st_size if self.path.exists() else 0
        lines = [answer.to_line() for answer in answers]
        append_line(self.path, "\n".join(lines))
        for answer, line in zip(answers, lines, strict=True):
            self._enter(answer, start)
            start += len(line) + 1  # they are ASCII

    def get(self, key: str) -> Answer:
        """Returns the answer for a photo that is known."""
        with open(self.path, "rb") as file:
            file.seek(self._where[key][0])
            answer = Answer.of_line(file.readline())
        if answer is None or answer.key != key:
            raise UserError(f"{self.path}: changed while it was read; run the same command again")
        return answer

    def to_do(self, keys: Iterable[str]) -> list[str]:
        """Returns the photos without an answer for what their files hold now.

        Files that were touched but hold the same are entered with their new state.
        """
        left, touched = [], []
        for key in keys:
            found = self._compare(key)
            if found is None:
                left.append(key)
            elif found != self._where[key][1]:
                touched.append(dataclasses.replace(self.get(key), state=found))
        self.add(touched)
        return left

    def _compare(self, key: str) -> FileState | None:
        """Returns the state of a file that holds what was answered; None if it does not."""
        if key not in self._where:
            return None
        _, state, sha256 = self._where[key]
        try:
            now = FileState.of(key)
            same = now == state or (now.size == state.size and sha256_of(key) == sha256)
        except OSError:
            return None
        return now if same else None
