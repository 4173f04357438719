"""File access of feature stores, on local disks and all file systems of TensorFlow.

A store reads and writes all of its files through this module and `tf.io.gfile`, so a path with a
scheme, such as `gs://bucket/features`, works like a local folder. Only local paths, which have no
scheme, are flushed and locked.
"""

import concurrent.futures
import contextlib
import hashlib
import os
import pathlib
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import tensorflow as tf

from biam_tf.errors import UserError
from biam_tf.files import size_in_words

try:
    import fcntl
except ImportError:  # Windows has none: extractions to the same folder are not locked there
    fcntl = None  # type: ignore[assignment] # mypy has no name for a module that may be absent

LOCK = ".lock"
CHUNK_BYTES = 1 << 20
# Parallel requests to a remote file system; each mostly waits.
REQUESTS = 16


def normal_path(path: str | os.PathLike) -> str:
    """Returns a path as a string, after checking that TensorFlow supports its scheme.

    Raises:
        UserError: TensorFlow has no file system for the scheme of the path.
    """
    text = os.fspath(path)
    scheme, separator, _ = text.partition("://")
    if not separator:
        return os.fspath(pathlib.Path(text))
    known = sorted(name for name in tf.io.gfile.get_registered_schemes() if name)
    if scheme not in known:
        raise UserError(
            f"{text}: this TensorFlow ({tf.__version__}) has no file system for {scheme}://, only "
            f"for {', '.join(f'{name}://' for name in known)} and local folders; install its "
            "plugin, or mount the storage and give the local folder"
        )
    return text.rstrip("/")


def is_local(path: str) -> bool:
    """Returns whether a path is local, that is without a scheme."""
    return "://" not in path


def join(folder: str, *names: str) -> str:
    """Joins a folder and names to a path."""
    return "/".join((folder, *names))


def is_file(path: str) -> bool:
    """Returns whether `path` is an existing file."""
    return tf.io.gfile.exists(path) and not tf.io.gfile.isdir(path)


def size_of(path: str) -> int | None:
    """Returns the size of a file in bytes, or None if it does not exist."""
    try:
        return tf.io.gfile.stat(path).length
    except tf.errors.NotFoundError:
        return None


def make_folder(path: str) -> None:
    """Creates a folder and its parents unless they exist."""
    tf.io.gfile.makedirs(path)


def names_in(folder: str) -> set[str]:
    """Returns the names of the files and folders in a folder; empty if it does not exist."""
    try:
        return {name.rstrip("/") for name in tf.io.gfile.listdir(folder)}
    except tf.errors.NotFoundError:
        return set()


def read_text(path: str) -> str:
    """Returns the contents of a UTF-8 text file."""
    return read_bytes(path).decode("utf-8")


def read_bytes(path: str) -> bytes:
    """Returns the contents of a file."""
    with tf.io.gfile.GFile(path, "rb") as file:
        return file.read()


def write_text(path: str, text: str) -> None:
    """Writes a UTF-8 text file atomically."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: str, contents: bytes) -> None:
    """Writes a file atomically."""
    aside = f"{path}.tmp"
    with tf.io.gfile.GFile(aside, "wb") as file:
        file.write(contents)
    put_in_place(aside, path)


def put_in_place(aside: str, path: str) -> None:
    """Renames a finished file; on a local disk, after flushing it."""
    if is_local(aside):
        with open(aside, "rb") as file:
            os.fsync(file.fileno())
    tf.io.gfile.rename(aside, path, overwrite=True)


def remove(path: str) -> None:
    """Removes a file if it exists."""
    with contextlib.suppress(tf.errors.NotFoundError):
        tf.io.gfile.remove(path)


def sha256_of_file(path: str) -> str:
    """Returns the SHA-256 of a file's contents in hexadecimal."""
    digest = hashlib.sha256()
    with tf.io.gfile.GFile(path, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def for_each(function: Callable[[Any], Any], values: Iterable[Any]) -> list[Any]:
    """Returns `function(value)` for each value, in order; runs several calls in parallel."""
    with concurrent.futures.ThreadPoolExecutor(REQUESTS) as threads:
        return list(threads.map(function, values))


def check_space(folder: str, needed: int) -> None:
    """Checks the free space of a local disk; does nothing for remote storage.

    Raises:
        UserError: fewer than `needed` bytes are free.
    """
    if not is_local(folder):
        return
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{folder}: the features need another {size_in_words(needed)}, but the disk has "
            f"{size_in_words(free)} left; use a folder on another disk"
        )


@contextlib.contextmanager
def one_process_at_a_time(folder: str) -> Iterator[None]:
    """Locks a local folder against other processes of this machine; does not lock remote folders.

    The lock is released when the process ends.
    """
    if not is_local(folder) or fcntl is None:
        yield
        return
    with open(join(folder, LOCK), "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{folder}: waiting for another process to finish it", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
