"""Files written whole or not at all, and their SHA-256 sums: the one place that does either."""

import contextlib
import errno
import hashlib
import json
import os
import pathlib
import shutil
import stat
import sys
import uuid
import zipfile
from collections.abc import Iterator
from typing import Any

from biam_tf.errors import UserError
from biam_tf.processes import ProcessIdentity, this_process

CACHE_VARIABLE = "BIAM_CACHE"


def cache_folder() -> pathlib.Path:
    """Returns the folder of what can be made again: `BIAM_CACHE`, or biam_tf in the user cache."""
    own = os.environ.get(CACHE_VARIABLE)
    if own:
        return pathlib.Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (pathlib.Path(shared) if shared else pathlib.Path.home() / ".cache") / "biam_tf"


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
    with writing_to(path), _beside(path) as partial:
        yield partial
        os.replace(partial, path)


@contextlib.contextmanager
def folder_beside(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a new folder beside `path`, which is removed with all that it holds.

    Args:
        path: of a file or folder to be written; its parent must exist.

    Raises:
        UserError: it could not be written.
    """
    path = pathlib.Path(path)
    with _beside(path) as folder:
        with writing_to(path):
            folder.mkdir()
        yield folder


@contextlib.contextmanager
def _beside(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a path beside `path` that names this process, and removes what is there at the end."""
    _remove_leftovers(path.parent)
    own = f"{this_process().in_a_name()}-{uuid.uuid4().hex[:8]}"
    partial = path.with_name(f".{path.stem}.{own}.partial{path.suffix}")
    try:
        yield partial
    finally:
        _remove(partial)


_looked_through: set[pathlib.Path] = set()


def _remove_leftovers(folder: pathlib.Path) -> None:
    """Removes, once per process, what processes of this machine that were killed have left."""
    folder = folder.absolute()
    if folder in _looked_through:
        return
    _looked_through.add(folder)
    for path in folder.glob(".*.partial*"):
        owner = ProcessIdentity.of_name(path.name)
        if owner is not None and owner.is_of_this_host and not owner.is_running:
            with contextlib.suppress(OSError):
                _remove(path)


def _remove(path: pathlib.Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def is_inside(path: str | os.PathLike, folder: str | os.PathLike) -> bool:
    """Returns whether a file lies in a folder or below it once symbolic links are followed."""
    return pathlib.Path(path).resolve().is_relative_to(pathlib.Path(folder).resolve())


def size_in_words(size: float) -> str:
    """Returns a number of bytes with the unit that suits it, such as `3.2 GB` or `40.5 kB`."""
    for unit, power in (("GB", 9), ("MB", 6), ("kB", 3)):
        if round(size / 10**power, 1) >= 1:
            return f"{size / 10**power:.1f} {unit}"
    return f"{size:.0f} bytes"


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


def read_model(path: str | os.PathLike, way_out: str) -> Any:
    """Reads a model that Keras saved.

    Args:
        path: the `.keras` file.
        way_out: what to do if it is damaged, for the message.

    Returns:
        The `keras.Model`.

    Raises:
        UserError: the file is missing, not whole or not a model.
    """
    import keras  # brings TensorFlow, which most users of this module do without

    try:
        return keras.models.load_model(path)
    except Exception as error:  # a damaged archive raises errors of any kind
        if not isinstance(error, FileNotFoundError) and _is_sound_archive(path):
            raise  # the file is as it was written: the reason is another one
        reason = "cut short or changed" if os.path.isfile(path) else "no such file"
        raise UserError(
            f"{path}: damaged: not a whole Keras model ({reason}); {way_out}"
        ) from error


def _is_sound_archive(path: str | os.PathLike) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except Exception:  # of any kind, as above
        return False


def append_line(path: str | os.PathLike, line: str) -> None:
    """Adds a line to a text file and waits until it is on the disk.

    Raises:
        UserError: it could not be written.
    """
    with writing_to(path), open(path, "a", encoding="utf-8") as file:
        file.write(f"{line}\n")
        file.flush()
        os.fsync(file.fileno())


def require_regular(path: str | os.PathLike) -> None:
    """Raises an `OSError` for a pipe or device, which would be waited for without end."""
    mode = os.stat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "a pipe or device, not a file", os.fspath(path))


def sha256_of(path: str | os.PathLike) -> str:
    """Returns the SHA-256 of a local file in hexadecimal."""
    require_regular(path)
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


def version_number(name: str) -> int | None:
    """Returns the version that a folder of this name holds; None for any other name.

    The number is in ASCII digits and fits 64 bits with a sign, as TensorFlow Serving requires.
    """
    if not (name.isascii() and name.isdecimal() and len(name) <= 40):
        return None
    number = int(name)
    return number if number < 2**63 else None
