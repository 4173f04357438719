"""Folders of photos, each indexed once in a thread, so that a page can follow and stop it."""

import dataclasses
import functools
import hashlib
import os
import pathlib
import threading

from biam_tf.errors import UserError
from serving.index import index_photos
from serving.indexing.photo_index import MANIFEST, PhotoIndex

_FOLDERS_SHOWN = 200


class _Stopped(Exception):
    """The work was stopped by a person."""


@dataclasses.dataclass(eq=False)
class IndexingJob:
    """A folder that is being indexed; read it from any thread.

    Attributes:
        index: where the index is.
        done: photos that are in it.
        total: photos of the folder; 0: not counted yet.
        error: why it ended early; None: it did not.
        stopped: whether a person stopped it; the same work goes on from there.
    """

    index: pathlib.Path
    done: int = 0
    total: int = 0
    error: str | None = None
    stopped: bool = False

    def __post_init__(self):
        self._stop = threading.Event()
        self._ended = threading.Event()

    @property
    def running(self) -> bool:
        """Whether it is still under way."""
        return not self._ended.is_set()

    def stop(self) -> None:
        """Asks it to end after the photos it looks at now."""
        self._stop.set()

    def wait(self, seconds: float) -> None:
        """Waits for its end, no longer than that."""
        self._ended.wait(seconds)

    def run(self, model_dir: pathlib.Path, folder: pathlib.Path) -> None:
        """Does the work, in the calling thread; errors are kept in `error`."""
        try:
            index_photos(model_dir, folder, self.index, self._reached)
        except _Stopped:
            self.stopped = True
        except UserError as error:
            self.error = str(error)
        except Exception as error:
            # The page must tell of it; the log has the traceback.
            self.error = f"{type(error).__name__}: {error}"
            raise
        finally:
            self._ended.set()

    def _reached(self, done: int, total: int) -> None:
        self.done, self.total = done, total
        if self._stop.is_set():
            raise _Stopped


class FolderIndexes:
    """Indexes of folders with one model.

    Args:
        model_dir: holds a folder for each version of the model.
        folder: where the indexes are kept.
        photos: photos may only be in this folder; None: anywhere.
    """

    def __init__(
        self, model_dir: pathlib.Path, folder: pathlib.Path, photos: pathlib.Path | None = None
    ):
        self._model_dir = model_dir
        self._folder = folder
        self._photos = None if photos is None else photos.resolve()
        self._jobs: dict[pathlib.Path, IndexingJob] = {}
        self._lock = threading.Lock()

    def start(self, text: str) -> IndexingJob:
        """Begins to index a folder, or goes on; a job under way is shared.

        Raises:
            UserError: it is no folder, or not one that may be searched.
        """
        photos = self.checked(text)
        index = self.place(photos)
        with self._lock:
            job = self._jobs.get(index)
            if job is None or not job.running:
                job = self._jobs[index] = IndexingJob(index)
                index.parent.mkdir(parents=True, exist_ok=True)
                work = threading.Thread(
                    target=job.run, args=(self._model_dir, photos), name="indexing", daemon=True
                )
                work.start()
        return job

    def stop(self, text: str) -> None:
        """Asks the work on a folder, if there is any, to end.

        Raises:
            UserError: as `start`.
        """
        job = self._jobs.get(self.place(self.checked(text)))
        if job is not None:
            job.stop()

    def open(self, text: str) -> PhotoIndex | None:
        """Returns the index of a folder, as far as it goes; None: there is none yet.

        Raises:
            UserError: as `start`, or the index is damaged.
        """
        manifest = self.place(self.checked(text)) / MANIFEST
        try:
            changed = manifest.stat().st_mtime_ns
        except FileNotFoundError:
            return None
        return _opened(manifest.parent, changed)

    def checked(self, text: str) -> pathlib.Path:
        """Returns the folder that a text names, if it may be searched.

        Raises:
            UserError: it may not.
        """
        if not text.strip():
            raise UserError("Name a folder of photos.")
        folder = pathlib.Path(text.strip()).expanduser().resolve()
        if self._photos is not None and not folder.is_relative_to(self._photos):
            raise UserError(f"{folder}: only folders in {self._photos} may be searched here")
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder")
        return folder

    def around(self, text: str) -> list[str]:
        """Returns a folder, the one it is in, and those in it, as far as they may be searched."""
        try:
            folder = self.checked(text)
            inner = sorted(
                entry.path
                for entry in os.scandir(folder)
                if entry.is_dir() and not entry.name.startswith(".")
            )
        except (UserError, OSError):
            return []
        outer = [] if folder == self._photos else [str(folder.parent)]
        return [str(folder), *outer, *inner[:_FOLDERS_SHOWN]]

    def place(self, photos: pathlib.Path) -> pathlib.Path:
        """Returns where the index of a folder is, for the newest version of the model."""
        from serving.rpc.loader import newest_version

        version = newest_version(self._model_dir).resolve()
        digest = hashlib.sha256(os.fsencode(f"{version}\0{photos}")).hexdigest()
        return self._folder / f"{photos.name or 'root'}-{digest[:12]}.index"


@functools.lru_cache(maxsize=4)
def _opened(index: pathlib.Path, changed_ns: int) -> PhotoIndex:
    return PhotoIndex(index)
