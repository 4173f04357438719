"""Files written whole or not at all, and their SHA-256 sums: the one place that does either."""

import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import sys
import uuid
from collections.abc import Iterator
from typing import Any

from biam_tf.errors import UserError


@contextlib.contextmanager
def writing_to(path: str | os.PathLike) -> Iterator[None]:
    """Turns a full disk or a folder without write permission into one message.

    Raises:
        UserError: something at or below `path` could not be written.
    """
    try:
        yield
    except Exception as error:
        reason = _reason(error)
        if reason is None:
            raise
        raise UserError(
            f"{path}: cannot be written ({reason}). What was complete before is unchanged: free "
            "some space or allow writing there, then run the same command again"
        ) from error


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a path beside `path` to write a file or folder to; it then takes the place of `path`.

    Nothing is at `path` until all is written, and what was there before stays if writing fails.
    The yielded path keeps the suffix of `path`, by which many writers choose a format. A folder
    replaces a missing or an empty one only.

    Args:
        path: of the file or folder; its parent must exist.

    Raises:
        UserError: it could not be written.
    """
    path = pathlib.Path(path)
    partial = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.partial{path.suffix}")
    with writing_to(path):
        try:
            yield partial
            os.replace(partial, path)
        finally:
            if partial.is_dir():
                shutil.rmtree(partial, ignore_errors=True)
            else:
                partial.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a UTF-8 text file whole or not at all; raises as `replacing` does."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="")


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes a JSON file whole or not at all; raises as `replacing` does."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: str | os.PathLike, what: str = "a file of a run") -> Any:
    """Reads a JSON file.

    Args:
        path: of the file.
        what: what it should be, for the message.

    Raises:
        UserError: it cannot be read or is damaged.
    """
    try:
        return json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise UserError(
            f"{path}: damaged: not {what} ({reason}); bring it back from a copy, or repeat the "
            "command that wrote it"
        ) from error


def append_line(path: str | os.PathLike, line: str) -> None:
    """Adds a line to a text file and waits until it is on the disk.

    Raises:
        UserError: it could not be written.
    """
    with writing_to(path), open(path, "a", encoding="utf-8") as file:
        file.write(f"{line}\n")
        file.flush()
        os.fsync(file.fileno())


def sha256_of(path: str | os.PathLike) -> str:
    """Returns the SHA-256 of a local file in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _reason(error: Exception) -> str | None:
    """What the file system said; None for an error of another kind."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    # TensorFlow writes files, too; a program that has not imported it is not made to.
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is not None and isinstance(error, tensorflow.errors.OpError):
        return error.message.splitlines()[0]
    return None
