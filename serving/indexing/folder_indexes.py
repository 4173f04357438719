"""Indexes of folders of photos, each built in a thread that can be followed and stopped."""

import dataclasses
import functools
import hashlib
import os
import pathlib
import threading

from biam_tf.errors import UserError
from biam_tf.files import is_inside
from serving.indexing.build_index import index_photos
from serving.indexing.manifest import MANIFEST
from serving.indexing.photo_index import PhotoIndex
from serving.rpc.version_folders import newest_version

_FOLDERS_SHOWN = 200


class _Stopped(Exception):
    """A user stopped the work."""


@dataclasses.dataclass(eq=False)
class IndexingJob:
    """The indexing of a folder; its attributes may be read from any thread.

    Attributes:
        index: folder of the index.
        done: number of photos in the index.
        total: number of photos in the folder; 0 until they are counted.
        error: why the job failed; None if it did not.
        stopped: whether a user stopped it; the next job continues from there.
    """

    index: pathlib.Path
    done: int = 0
    total: int = 0
    error: str | None = None
    stopped: bool = False

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._ended = threading.Event()

    @property
    def running(self) -> bool:
        """Whether the job has not ended yet."""
        return not self._ended.is_set()

    def stop(self) -> None:
        """Stops the job after the current batch of photos."""
        self._stop.set()

    def wait(self, seconds: float) -> None:
        """Waits until the job ends, for `seconds` at most."""
        self._ended.wait(seconds)

    def run(
        self, model_dir: pathlib.Path, folder: pathlib.Path, within: pathlib.Path | None = None
    ) -> None:
        """Indexes the folder in the calling thread and stores an error in `error`."""
        try:
            index_photos(model_dir, folder, self.index, self._on_progress, within)
        except _Stopped:
            self.stopped = True
        except UserError as error:
            self.error = str(error)
        except Exception as error:
            # For the page; the traceback goes to the log.
            self.error = f"{type(error).__name__}: {error}"
            raise
        finally:
            self._ended.set()

    def _on_progress(self, done: int, total: int) -> None:
        self.done, self.total = done, total
        if self._stop.is_set():
            raise _Stopped


class FolderIndexes:
    """Indexes of folders, built with one model.

    Args:
        model_dir: folder of the model, with one sub-folder per version.
        folder: folder for the indexes.
        photos: only folders and photos in this one may be indexed, also if links lead out of it;
            None for any folder.
    """

    def __init__(
        self, model_dir: pathlib.Path, folder: pathlib.Path, photos: pathlib.Path | None = None
    ) -> None:
        self._model_dir = model_dir
        self._folder = folder
        self.photos = None if photos is None else photos.resolve()
        self._jobs: dict[pathlib.Path, IndexingJob] = {}
        self._lock = threading.Lock()

    def start(self, text: str) -> IndexingJob:
        """Starts or continues indexing a folder; returns the running job if there is one.

        Raises:
            UserError: there is no such folder, or it may not be searched.
        """
        photos = self.resolve(text)
        index = self.index_folder(photos)
        with self._lock:
            job = self._jobs.get(index)
            if job is None or not job.running:
                job = self._jobs[index] = IndexingJob(index)
                index.parent.mkdir(parents=True, exist_ok=True)
                work = threading.Thread(
                    target=job.run,
                    args=(self._model_dir, photos, self.photos),
                    name="indexing",
                    daemon=True,
                )
                work.start()
        return job

    def stop(self, text: str) -> None:
        """Stops the job of a folder, if there is one.

        Raises:
            UserError: as `start`.
        """
        job = self._jobs.get(self.index_folder(self.resolve(text)))
        if job is not None:
            job.stop()

    def open(self, text: str) -> PhotoIndex | None:
        """Returns the index of a folder, complete or not; None if there is none.

        Raises:
            UserError: as `start`, or the index is damaged.
        """
        index = self.index_folder(self.resolve(text))
        try:
            # A shard is added or removed with an entry of the folder.
            state = (index / MANIFEST).stat().st_mtime_ns, index.stat().st_mtime_ns
        except FileNotFoundError:
            return None
        return _open(index, state)

    def resolve(self, text: str) -> pathlib.Path:
        """Returns the absolute path of a folder that a user typed.

        Raises:
            UserError: there is no such folder, or it may not be searched.
        """
        if not text.strip():
            raise UserError("Name a folder of photos.")
        folder = pathlib.Path(text.strip()).expanduser().resolve()
        if self.photos is not None and not folder.is_relative_to(self.photos):
            raise UserError(f"{folder}: only folders in {self.photos} may be searched here")
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder")
        return folder

    def nearby(self, text: str) -> list[str]:
        """Returns a folder, its parent and its sub-folders, if they may be searched."""
        try:
            folder = self.resolve(text)
            inner = sorted(
                entry.path
                for entry in os.scandir(folder)
                if entry.is_dir() and not entry.name.startswith(".") and self._may_read(entry.path)
            )
        except (UserError, OSError):
            return []
        outer = [] if folder == self.photos else [str(folder.parent)]
        return [str(folder), *outer, *inner[:_FOLDERS_SHOWN]]

    def _may_read(self, path: str) -> bool:
        return self.photos is None or is_inside(path, self.photos)

    def index_folder(self, photos: pathlib.Path) -> pathlib.Path:
        """Returns the folder of the index of `photos` with the newest version of the model."""
        version = newest_version(self._model_dir).resolve()
        digest = hashlib.sha256(os.fsencode(f"{version}\0{photos}")).hexdigest()
        return self._folder / f"{photos.name or 'root'}-{digest[:12]}.index"


@functools.lru_cache(maxsize=4)
def _open(index: pathlib.Path, state: tuple[int, int]) -> PhotoIndex:
    return PhotoIndex(index)
