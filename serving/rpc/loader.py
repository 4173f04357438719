"""Loads the newest version of a model, and replaces it by newer versions."""

import dataclasses
import gc
import logging
import pathlib
import threading
import time
import weakref
from collections.abc import Callable, Mapping

from serving.rpc.model_version import ModelVersion as ModelVersion  # used here by others
from serving.rpc.version_folders import (
    MODEL_FILE,
    FolderState,
    folder_state,
    numbered_folders,
    require_model_dir,
)

FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 60.0, 3600.0

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class VersionState:
    """The state of a version.

    Attributes:
        state: a name of `ModelVersionStatus.State`: START while its files are waited for,
            LOADING, AVAILABLE or END.
        error: why it could not be loaded; empty if it could.
    """

    state: str
    error: str = ""


class NewestVersion:
    """Keeps the newest version in a folder loaded, from a thread of its own.

    A new version is loaded and warmed up while the old one still serves requests; the old one is
    freed after its last request.

    A folder may also be copied file by file: a version is loaded when two looks find the same
    files, and one that fails to load is tried again when its files change, and after a minute,
    two, four and so on up to an hour. A version whose files grow after it was loaded is loaded
    again.

    Args:
        model_dir: folder of the model, with one sub-folder per version.
        poll_seconds: seconds between looks for a newer version.
        max_bytes: limit of the inputs of warm-up requests.
        on_change: called with each newly loaded version.

    Raises:
        UserError: `model_dir` is not such a folder.
    """

    def __init__(
        self,
        model_dir: pathlib.Path,
        poll_seconds: float,
        max_bytes: int,
        on_change: Callable[[ModelVersion], None] = lambda version: None,
    ) -> None:
        self._model_dir = require_model_dir(model_dir)
        self._poll_seconds = poll_seconds
        self._max_bytes = max_bytes
        self._on_change = on_change
        self._current: ModelVersion | None = None
        self._loaded: FolderState | None = None  # files of the current version
        self._seen: dict[int, FolderState] = {}  # at the last look
        self._failed: dict[int, _Failure] = {}
        self._waiting: dict[int, str] = {}  # why a version is not loaded yet, as was logged
        self._replaced: list[weakref.ref] = []
        self._states: dict[int, VersionState] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="model-versions", daemon=True)

    @property
    def current(self) -> ModelVersion | None:
        """The loaded version; None while the first one is being loaded."""
        return self._current

    @property
    def states(self) -> Mapping[int, VersionState]:
        """The state of each version that was loaded or tried, by number."""
        return dict(self._states)

    def start(self) -> None:
        """Starts loading and watching the folder."""
        self._thread.start()

    def stop(self, seconds: float | None = None) -> bool:
        """Stops watching; the current version stays loaded.

        Args:
            seconds: longest time to wait for a version that is being loaded; None for any.

        Returns:
            Whether watching has ended.
        """
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def _watch(self) -> None:
        while True:
            try:
                self.update()
            except Exception:
                # For example, the folder can't be listed just now: keep the loaded version.
                _LOG.exception("looking for versions in %s", self._model_dir)
            if self._stopped.wait(self._poll_seconds):
                return

    def update(self) -> None:
        """Loads the newest version in the folder, unless it is already loaded."""
        folders = numbered_folders(self._model_dir)
        numbers = {int(path.name) for path in folders}
        for kept in (self._seen, self._failed, self._waiting):
            for number in {*kept} - numbers:
                del kept[number]
        for path in reversed(folders):
            if self._stopped.is_set() or self._is_current(path) or self._try(path):
                break
        self._free_replaced()

    def _is_current(self, path: pathlib.Path) -> bool:
        """Whether this is the loaded version, and whole when it was loaded."""
        if self._current is None or self._loaded is None or int(path.name) != self._current.number:
            return False
        if not (path / MODEL_FILE).is_file():
            return False  # it is being removed
        try:
            sizes = dict(folder_state(path).sizes)
        except OSError:
            return True
        old = dict(self._loaded.sizes)
        grown = {*sizes} >= {*old} and sizes != old
        return not grown

    def _try(self, path: pathlib.Path) -> bool:
        """Loads a version if its files are there; returns whether it is loaded."""
        number = int(path.name)
        try:
            state = folder_state(path)
        except OSError:
            return False
        seen, self._seen[number] = self._seen.get(number), state
        failure = self._failed.get(number)
        if failure and failure.state == state and time.monotonic() < failure.again:
            return False
        if not (path / MODEL_FILE).is_file():
            self._wait(number, f"there is no {MODEL_FILE} in it yet")
            return False
        # Files that were written at least two looks ago need no second look.
        if state != seen and time.time() - state.changed < 2 * self._poll_seconds:
            self._wait(number, "its files are still being written")
            return False
        self._waiting.pop(number, None)
        if self._replace(path):
            self._loaded = state
            self._failed.pop(number, None)
            return True
        pause = FIRST_RETRY_SECONDS
        if failure and failure.state == state:
            pause = min(2 * failure.pause, LONGEST_RETRY_SECONDS)
        self._failed[number] = _Failure(state, time.monotonic() + pause, pause)
        return False

    def _wait(self, number: int, reason: str) -> None:
        if self._waiting.get(number) != reason:
            _LOG.info("version %d waits: %s", number, reason)
            self._waiting[number] = reason
        if self._current is None or number != self._current.number:
            self._states[number] = VersionState("START")

    def _replace(self, path: pathlib.Path) -> bool:
        number = int(path.name)
        self._states[number] = VersionState("LOADING")
        _LOG.info("version %d: loading", number)
        try:
            version = ModelVersion(path)
            requests = version.warm_up(self._max_bytes)
        except Exception as error:
            # Whatever is wrong with it, the loaded version must keep serving.
            _LOG.error(
                "version %d is skipped: %s: %s. It is tried again when its files change, and from "
                "time to time",
                *(number, type(error).__name__, error),
            )
            self._states[number] = VersionState("END", f"{type(error).__name__}: {error}")
            return False
        old, self._current = self._current, version
        self._states[number] = VersionState("AVAILABLE")
        _LOG.info("version %d is loaded; warm-up requests: %d", number, requests)
        if old is not None:
            if old.number != number:
                self._states[old.number] = VersionState("END")
            self._replaced.append(weakref.ref(old))
        self._on_change(version)
        return True

    def _free_replaced(self) -> None:
        """Frees replaced versions; a loaded model is full of reference cycles."""
        if self._replaced:
            gc.collect()
            self._replaced = [old for old in self._replaced if old() is not None]


@dataclasses.dataclass(frozen=True)
class _Failure:
    """Files of a version that could not be loaded, and when they are tried again."""

    state: FolderState
    again: float
    pause: float
