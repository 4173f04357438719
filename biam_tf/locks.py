"""A lock on a folder that one process works in, with the owner's process number and host."""

import contextlib
import json
import os
import pathlib
import tempfile
import threading
from collections.abc import Iterator
from typing import TextIO

from biam_tf.errors import UserError
from biam_tf.files import writing_to
from biam_tf.processes import ProcessIdentity, this_process

try:
    import fcntl
except ImportError:  # Windows has none: there, the owner's number alone decides
    fcntl = None  # type: ignore[assignment] # mypy has no name for a module that may be absent

# A lock of another machine counts as left behind if its owner has not touched it for so long.
LEFT_AFTER_SECONDS = 180.0
_TOUCH_SECONDS = 20.0


@contextlib.contextmanager
def locked(path: str | os.PathLike, work: str) -> Iterator[None]:
    """Holds the lock file `path`, whose folder is created if it does not exist.

    A lock that was left by a process that was killed is taken over: on the same machine at once,
    on another one after `LEFT_AFTER_SECONDS`. Folders that were created and are still empty at the
    end are removed.

    Args:
        path: the lock file; it exists only while the lock is held.
        work: what is done, for the message, such as "runs/a is being trained".

    Raises:
        UserError: another process holds the lock, or the file cannot be written.
    """
    path = pathlib.Path(path)
    with writing_to(path.parent):
        created = _create_folder(path.parent)
        file = _acquire(path, work)
    done = threading.Event()
    threading.Thread(target=_keep_touching, args=(path, done), daemon=True).start()
    try:
        yield
    finally:
        done.set()
        with contextlib.suppress(OSError):
            path.unlink()
        file.close()
        with contextlib.suppress(OSError):  # no longer empty
            for folder in created:
                folder.rmdir()


def _create_folder(folder: pathlib.Path) -> list[pathlib.Path]:
    """Creates a folder and its parents; returns those that were missing, innermost first."""
    missing = []
    for path in (folder, *folder.parents):
        if path.exists():
            break
        missing.append(path)
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _acquire(path: pathlib.Path, work: str) -> TextIO:
    while True:
        file = open(path, "a+", encoding="utf-8")
        try:
            is_free = _lock_file(file)
            if is_free and not _is_same_file(file, path):
                file.close()  # its owner has just removed it
                continue
            owner = _read_owner(path)
            if not is_free or (owner is not None and _is_at_work(owner, path)):
                raise UserError(_refusal(owner, path, work))
            file.seek(0)
            file.truncate()
            own = this_process()
            owner_fields = {"process": own.number, "host": own.host, "started": own.started}
            json.dump(owner_fields, file)
            file.flush()
            return file
        except BaseException:
            file.close()
            raise


def _lock_file(file: TextIO) -> bool:
    """Locks an open file; returns whether it was free, True where the file system has no locks."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _is_same_file(file: TextIO, path: pathlib.Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _read_owner(path: pathlib.Path) -> ProcessIdentity | None:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        return ProcessIdentity(int(fields["process"]), int(fields["started"]), str(fields["host"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None  # written at this moment, or by a process that was killed before it could


def _is_at_work(owner: ProcessIdentity, path: pathlib.Path) -> bool:
    """Returns whether the owner of a lock that could be taken nevertheless still works."""
    if not owner.is_of_this_host:
        return _seconds_untouched(path) < LEFT_AFTER_SECONDS
    if fcntl is not None or owner.number == os.getpid():
        # The system has released the lock of its own process, or it is a former use of this one.
        return False
    return owner.is_running


def _seconds_untouched(path: pathlib.Path) -> float:
    """Returns the age of a file by the clock of its file system."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".clock-") as file:
        file.write(b"0")
        file.flush()
        return os.fstat(file.fileno()).st_mtime - path.stat().st_mtime


def _keep_touching(path: pathlib.Path, done: threading.Event) -> None:
    while not done.wait(_TOUCH_SECONDS):
        with contextlib.suppress(OSError):
            os.utime(path)


def _refusal(owner: ProcessIdentity | None, path: pathlib.Path, work: str) -> str:
    if owner is None:
        return f"{work} by another process; wait until it has ended"
    who = f"{work} by process {owner.number} on {owner.host}"
    if owner.is_of_this_host:
        return f"{who}; wait until it has ended, or stop it"
    return (
        f"{who}; wait until it has ended, or stop it there. If it was killed, the lock is free "
        f"after {LEFT_AFTER_SECONDS / 60:.0f} minutes, or once you delete {path}"
    )
