"""Files of a feature store, on this machine or wherever TensorFlow has a file system.

Everything a store reads and writes goes through here and so through `tf.io.gfile`: a path with a
scheme, such as `gs://bucket/features`, is used like a local folder. What only a local disk can do,
to be flushed and to be locked, is done where the path has no scheme.
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

try:
    import fcntl
except ImportError:  # Windows has none: there, two extractions into one folder are not kept apart
    fcntl = None  # type: ignore[assignment] # mypy has no name for a module that may be absent

LOCK = ".lock"
CHUNK_BYTES = 1 << 20
# Requests at a time to a remote file system, where each one is mostly waiting.
REQUESTS = 16


def normal_path(path: str | os.PathLike) -> str:
    """Returns a path as text, after checking that TensorFlow can open such paths.

    Raises:
        UserError: the path's scheme is one that this TensorFlow has no file system for.
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
            "plugin, or mount the storage and name the folder"
        )
    return text.rstrip("/")


def is_local(path: str) -> bool:
    """Tells whether a path is one of this machine's own, without a scheme."""
    return "://" not in path


def join(folder: str, *names: str) -> str:
    """Returns the path of something inside a folder."""
    return "/".join((folder, *names))


def is_file(path: str) -> bool:
    """Tells whether there is a file at `path`."""
    return tf.io.gfile.exists(path) and not tf.io.gfile.isdir(path)


def size_of(path: str) -> int | None:
    """Returns the size of a file in bytes, or None where there is none."""
    try:
        return tf.io.gfile.stat(path).length
    except tf.errors.NotFoundError:
        return None


def make_folder(path: str) -> None:
    """Makes a folder and those it lies in, as far as they are not there."""
    tf.io.gfile.makedirs(path)


def names_in(folder: str) -> set[str]:
    """Returns the names of what lies in a folder; none where there is no such folder."""
    try:
        return {name.rstrip("/") for name in tf.io.gfile.listdir(folder)}
    except tf.errors.NotFoundError:
        return set()


def read_text(path: str) -> str:
    """Returns the contents of a text file, UTF-8."""
    with tf.io.gfile.GFile(path, "rb") as file:
        return file.read().decode("utf-8")


def write_text(path: str, text: str) -> None:
    """Writes a text file whole or not at all."""
    aside = f"{path}.tmp"
    with tf.io.gfile.GFile(aside, "wb") as file:
        file.write(text.encode("utf-8"))
    put_in_place(aside, path)


def put_in_place(aside: str, path: str) -> None:
    """Gives a finished file its name; on a local disk, only after its bytes have arrived there."""
    if is_local(aside):
        with open(aside, "rb") as file:
            os.fsync(file.fileno())
    tf.io.gfile.rename(aside, path, overwrite=True)


def remove(path: str) -> None:
    """Removes a file, if it is there."""
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
    """Returns `function` of each value, in order; several wait for the storage at a time."""
    with concurrent.futures.ThreadPoolExecutor(REQUESTS) as threads:
        return list(threads.map(function, values))


def check_space(folder: str, needed: int) -> None:
    """Checks that a local disk has room; of other storage the room is not known.

    Raises:
        UserError: there are fewer than `needed` bytes left.
    """
    if not is_local(folder):
        return
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{folder}: the features need another {needed / 1e9:.1f} GB, but the disk has "
            f"{free / 1e9:.1f} GB left; name a folder on another disk"
        )


@contextlib.contextmanager
def one_process_at_a_time(folder: str) -> Iterator[None]:
    """Keeps others of this machine out of a local folder; remote ones are not locked.

    The lock goes with the process, however that ends.
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
