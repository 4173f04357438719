"""A lock on a folder that one process works in, with the owner's process number and host."""

import contextlib
import json
import os
import pathlib
import socket
import tempfile
import threading
from collections.abc import Iterator
from typing import Any, TextIO

from biam_tf.errors import UserError
from biam_tf.files import writing_to

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
            json.dump(_this_process(), file)
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


def _read_owner(path: pathlib.Path) -> dict[str, Any] | None:
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
        return owner if {"process", "host", "started"} <= owner.keys() else None
    except (OSError, ValueError, AttributeError, RecursionError):
        return None  # written at this moment, or by a process that was killed before it could


def _this_process() -> dict[str, Any]:
    process = os.getpid()
    return {"process": process, "host": socket.gethostname(), "started": _start_of(process)}


def _start_of(process: int) -> int | None:
    """Returns when a process started, in ticks since the machine did; None if not known."""
    try:
        fields = pathlib.Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
        # The name of the program, in parentheses, may contain spaces and parentheses.
        return int(fields.rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None


def _is_at_work(owner: dict[str, Any], path: pathlib.Path) -> bool:
    """Returns whether the owner of a lock that could be taken nevertheless still works."""
    if owner["host"] != socket.gethostname():
        return _seconds_untouched(path) < LEFT_AFTER_SECONDS
    process = owner["process"]
    if fcntl is not None or process == os.getpid():
        # The system has released the lock of its own process, or it is a former use of this one.
        return False
    try:
        os.kill(process, 0)
    except (OSError, TypeError):
        return False
    return owner["started"] == _start_of(process)


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


def _refusal(owner: dict[str, Any] | None, path: pathlib.Path, work: str) -> str:
    if owner is None:
        return f"{work} by another process; wait until it has ended"
    who = f"{work} by process {owner['process']} on {owner['host']}"
    if owner["host"] == socket.gethostname():
        return f"{who}; wait until it has ended, or stop it"
    return (
        f"{who}; wait until it has ended, or stop it there. If it was killed, the lock is free "
        f"after {LEFT_AFTER_SECONDS / 60:.0f} minutes, or once you delete {path}"
    )
