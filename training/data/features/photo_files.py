"""What identifies the contents of photos: sizes, modification times and SHA-256.

A feature store has these values for every photo that it was made from, in `photos.npz`. A photo of
the same size and modification time counts as unchanged and is not read. Otherwise its SHA-256
decides. Photos on remote file systems are not read for this: another time means other contents.
"""

import concurrent.futures
import dataclasses
import functools
import io
import os
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from biam_tf.arrays import open_npz
from biam_tf.errors import UserError
from biam_tf.files import sha256_of
from biam_tf.photo_decoding.file_headers import HEADER_BYTES, format_of, read_otherwise_before
from biam_tf.photos import Orientation
from training.data.features import storage

PHOTOS = "photos.npz"
NO_FILE = -1  # size of a photo that does not exist
_THREADS = 16
_AT_A_TIME = 512  # photos per task of a thread


class PhotoState(NamedTuple):
    """Size in bytes and modification time in nanoseconds; both -1 if there is no such file."""

    bytes: int
    modified: int

    @property
    def exists(self) -> bool:
        """Whether there is such a file."""
        return self.bytes != NO_FILE


@dataclasses.dataclass(frozen=True)
class PhotoRecords:
    """The photos that features were computed from, in the order of the store's list of photos.

    Attributes:
        states: (N, 2) int64, `PhotoState` of each photo.
        sha256: (N, 32) uint8; 0 where it is not known.
    """

    states: np.ndarray
    sha256: np.ndarray

    @classmethod
    def of_rows(cls, rows: Iterable[tuple[int, int, str]]) -> "PhotoRecords":
        """Creates records from (size, modification time, SHA-256 in hexadecimal or "")."""
        rows = list(rows)
        digests = b"".join(bytes.fromhex(sha256) if sha256 else bytes(32) for _, _, sha256 in rows)
        return cls(
            np.array([row[:2] for row in rows], np.int64).reshape(-1, 2),
            np.frombuffer(digests, np.uint8).reshape(-1, 32),
        )

    def rows(self) -> list[tuple[PhotoState, str]]:
        """Returns the state and the SHA-256 in hexadecimal, "" if not known, of each photo."""
        text, length = self.sha256.tobytes().hex(), 64
        digests = (text[i : i + length] for i in range(0, len(text), length))
        return [
            (PhotoState(*state), sha256 if sha256.strip("0") else "")
            for state, sha256 in zip(self.states.tolist(), digests, strict=True)
        ]

    def write(self, path: str) -> None:
        """Writes the records to an .npz file, atomically."""
        file = io.BytesIO()
        np.savez(file, states=self.states, sha256=self.sha256)
        storage.write_bytes(path, file.getvalue())

    @classmethod
    def read(cls, path: str, count: int) -> "PhotoRecords":
        """Reads the records of `count` photos that `write` wrote.

        Raises:
            UserError: the file is damaged or of another list of photos.
        """
        try:
            with open_npz(storage.read_bytes(path)) as arrays:
                records = cls(arrays["states"], arrays["sha256"])
            if records.states.shape == (count, 2) and records.sha256.shape == (count, 32):
                return records
        except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile):
            pass
        raise UserError(
            f"{path}: not the records of the {count} photos of this store; delete the store's "
            "folder and extract the features again"
        )


class PhotoFiles:
    """Files of photos, asked for their states and contents at most once.

    Args:
        directory: the folder of the photos, local or on a file system of TensorFlow.
    """

    def __init__(self, directory: str | os.PathLike):
        self.directory = storage.normal_path(directory)
        self.is_local = storage.is_local(self.directory)
        self._states: dict[str, PhotoState] = {}
        self._sha256: dict[str, str] = {}

    def states(self, images: Sequence[str]) -> list[PhotoState]:
        """Returns the state of each of `images`, relative paths."""
        self._states |= self._ask(self._state, images, self._states)
        return [self._states[image] for image in images]

    def sha256(self, images: Sequence[str]) -> list[str]:
        """Returns the SHA-256 of each of `images` in hexadecimal; "" if missing or unreadable."""
        self._sha256 |= self._ask(self._digest, images, self._sha256)
        return [self._sha256[image] for image in images]

    def remember(self, sha256: Mapping[str, str]) -> None:
        """Takes over the SHA-256 of photos that are known to be unchanged."""
        self._sha256 |= {image: digest for image, digest in sha256.items() if digest}

    def changed_since(self, images: Iterable[str], time: int) -> list[str]:
        """Returns the photos that were written, replaced or renamed after `time`, in nanoseconds.

        Uses the later of a local file's modification time and its change time, which a program
        that copies an old photo over another one cannot set back.
        """
        images = list(images)
        times = self._ask(functools.partial(_latest_time, is_local=self.is_local), images, {})
        return [image for image in images if times[image] > time]

    def read_otherwise(self, images: Sequence[str], orientation: Orientation) -> list[str]:
        """Returns the photos of which version 0.1 read other pixels; reads their headers."""
        otherwise = functools.partial(_read_otherwise, orientation=orientation)
        answers = self._ask(otherwise, images, {})
        return [image for image in images if answers[image]]

    def _ask(
        self, question: Callable[[str], Any], images: Sequence[str], known: Mapping[str, Any]
    ) -> dict[str, Any]:
        new = [image for image in dict.fromkeys(images) if image not in known]
        size = min(_AT_A_TIME, -(-len(new) // _THREADS) or 1)
        parts = [new[start : start + size] for start in range(0, len(new), size)]

        def ask(part: Sequence[str]) -> list[Any]:
            return [question(f"{self.directory}/{image}") for image in part]

        with concurrent.futures.ThreadPoolExecutor(_THREADS) as threads:
            answers = [answer for part in threads.map(ask, parts) for answer in part]
        return dict(zip(new, answers, strict=True))

    def _state(self, path: str) -> PhotoState:
        if self.is_local:
            return local_state(path)
        try:
            found = tf.io.gfile.stat(path)
        except tf.errors.NotFoundError:
            return PhotoState(NO_FILE, NO_FILE)
        return PhotoState(found.length, found.mtime_nsec)

    def _digest(self, path: str) -> str:
        if not self.is_local:
            return ""
        try:
            return sha256_of(path)
        except (OSError, ValueError):
            return ""


def _read_otherwise(path: str, orientation: Orientation) -> bool:
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            contents = file.read(HEADER_BYTES)
            if format_of(contents) != "JPEG":
                contents += file.read()
    except tf.errors.OpError:
        return False  # a photo that is not here cannot be compared
    return read_otherwise_before(contents, orientation)


def local_state(path: str) -> PhotoState:
    """Returns the state of a local file."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):  # ValueError: a NUL character in the name
        return PhotoState(NO_FILE, NO_FILE)
    return PhotoState(found.st_size, found.st_mtime_ns)


def _latest_time(path: str, is_local: bool) -> int:
    if is_local:
        try:
            found = os.stat(path)
        except (OSError, ValueError):
            return NO_FILE
        return max(found.st_mtime_ns, found.st_ctime_ns)
    try:
        return int(tf.io.gfile.stat(path).mtime_nsec)
    except tf.errors.NotFoundError:
        return NO_FILE


def written_at(path: str) -> int:
    """Returns the time, in nanoseconds, from which a file is as it is; see `changed_since`."""
    return _latest_time(path, storage.is_local(path))
