"""What TensorFlow and other libraries write to standard error while a command runs.

TensorFlow's native code writes a dozen lines when it is imported and started, past all settings of
its log level: they come before these are read. So a small process reads what native code writes,
and passes on what matters. It is a process and not a thread, because it must outlive a crash, whose
reason is often in the lines before.

This file is also the program of that process; it imports the standard library only.
"""

import collections
import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import io
import json
import logging
import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import BinaryIO, NoReturn

# The form of TensorFlow's log lines: severity, date, time, thread, file and line. The date of
# lines before its start is 0000.
_LOG_LINE = re.compile(rb"([IWE])\d{4} [\d:.]+ +\d+ [\w./-]+:\d+\] ")
# An error by its severity only: the operation runs in another implementation.
_FALLBACK = b"Falling back to the default Eigen-based implementation"
_BEFORE_START = b"WARNING: All log messages before absl::InitializeLog()"
# These lines of this process tell the filter where its start ends, and that it ends well.
_STARTED, _ENDED = b"\0biam_tf: started\n", b"\0biam_tf: ended\n"
_KEPT_LINES = 50
_NVIDIA_DRIVER = pathlib.Path("/dev/nvidiactl")
# Whether file descriptor 2 is the filter at the moment.
_is_filtered = False
_CHATTY = {"httpx": logging.WARNING, "orbax": logging.ERROR, "tensorflow": logging.ERROR}


@contextlib.contextmanager
def quiet_libraries(is_quiet: bool = True) -> Iterator[None]:
    """Holds back messages of libraries while a command runs, and names the device once.

    TensorFlow's lines of information and warnings are left out, and its errors too until it has
    listed the devices: without a GPU it reports one that is none. They are shown after all if the
    process dies or an error that is not a user's mistake leaves the block. Everything that is not
    in the form of its log lines is passed on.

    When TensorFlow is imported, one line on standard error says which device there is. Where Keras
    is set to another backend, its import and that of TensorFlow raise a `UserError`.

    Args:
        is_quiet: whether to do so. It is not done in a process that has TensorFlow already, or
            where standard error is not the process's own.
    """
    if "tensorflow" in sys.modules or sys.stderr is not sys.__stderr__:
        yield
        return
    if is_quiet:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # read when TensorFlow is imported
        for name in ("httpx", "orbax"):
            logging.getLogger(name).setLevel(_CHATTY[name])
    else:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "0")
    with contextlib.ExitStack() as stack:

        def before() -> None:
            if is_quiet and sys.executable:
                stack.enter_context(_filtered())

        finder = _TensorFlowFinder(before, lambda: _started(is_quiet))
        sys.meta_path.insert(0, finder)
        try:
            yield
        finally:
            if finder in sys.meta_path:
                sys.meta_path.remove(finder)


def end_process(status: int) -> NoReturn:
    """Ends the process at once, without waiting for its threads; held messages are left out."""
    sys.stdout.flush()
    sys.stderr.flush()
    if _is_filtered:
        os.write(2, _ENDED)
    os._exit(status)


def _require_tensorflow_backend() -> None:
    """Raises a UserError if Keras is set to another backend than TensorFlow."""
    folder = pathlib.Path(os.environ.get("KERAS_HOME") or pathlib.Path.home() / ".keras")
    backend = os.environ.get("KERAS_BACKEND")
    if not backend:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            backend = json.loads((folder / "keras.json").read_text("utf-8")).get("backend")
    if backend and backend != "tensorflow":
        from biam_tf.errors import UserError  # not in the program of the filter

        raise UserError(
            f"training, data sets and serving need TensorFlow, but Keras is set to {backend}: set "
            "KERAS_BACKEND=tensorflow (biam_tf's layers, losses and build_head take any backend)"
        )


def _started(is_quiet: bool) -> None:
    """Lists the devices while messages are still held back, and names them."""
    line = device_line()
    if is_quiet:
        from absl import logging as absl_logging

        absl_logging.set_verbosity(absl_logging.ERROR)
        logging.getLogger("tensorflow").setLevel(_CHATTY["tensorflow"])
        os.write(2, _STARTED)
    print(line, file=sys.stderr, flush=True)


def device_line() -> str:
    """Returns one sentence about the GPUs that TensorFlow finds, or the CPU that it uses."""
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
        names = [str(detail.get("device_name", "a GPU")) for detail in details]
        if len(names) == 1:
            return f"GPU found: {names[0]}."
        return f"{len(names)} GPUs found: {', '.join(names)}."
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    line = f"No GPU found; using the CPU ({cores} core{'' if cores == 1 else 's'})."
    if _NVIDIA_DRIVER.exists() and os.environ.get("CUDA_VISIBLE_DEVICES", "0") not in ("", "-1"):
        line += " There is a driver for NVIDIA GPUs; --debug shows why TensorFlow does not use it."
    return line


class _TensorFlowFinder(importlib.abc.MetaPathFinder):
    """Calls functions before and after TensorFlow is imported, wherever that happens."""

    def __init__(self, before: Callable[[], None], after: Callable[[], None]) -> None:
        self._before = before
        self._after = after

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name in ("keras", "tensorflow"):
            _require_tensorflow_backend()
        if name != "tensorflow":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                self._before()
                execute(module)
                self._after()

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


@contextlib.contextmanager
def _filtered() -> Iterator[None]:
    """Sends what is written to file descriptor 2 through the filter; Python's own stays direct."""
    global _is_filtered
    sys.stderr.flush()
    direct = os.dup(2)
    # In a session of its own: Ctrl-C must not end it before this process.
    reader = subprocess.Popen(
        [sys.executable, "-I", "-S", __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert reader.stdin is not None
    os.dup2(reader.stdin.fileno(), 2)
    reader.stdin.close()
    stream = sys.stderr
    sys.stderr = io.TextIOWrapper(
        os.fdopen(os.dup(direct), "wb", buffering=0),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=True,
        write_through=True,
    )
    ended, _is_filtered = False, True
    try:
        yield
        ended = True
    finally:
        if ended:
            os.write(2, _ENDED)
        sys.stderr.flush()
        sys.stderr = stream
        os.dup2(direct, 2)
        _is_filtered = False
        os.close(direct)
        with contextlib.suppress(subprocess.TimeoutExpired):  # a child may still hold the pipe
            reader.wait(timeout=1)


def filter_messages(source: int, sink: BinaryIO) -> None:
    """Copies a file descriptor to a stream, without log lines that do not matter.

    What does not begin like a log line is passed on at once, also before its line is complete.

    Args:
        source: file descriptor, read to its end.
        sink: to write to.
    """
    held: collections.deque[bytes] = collections.deque(maxlen=_KEPT_LINES)
    pending, is_starting, in_a_line = b"", True, False
    while chunk := os.read(source, 1 << 16):
        *lines, pending = (pending + chunk).split(b"\n")
        for line in (part + b"\n" for part in lines):
            found = None if in_a_line else _LOG_LINE.match(line)
            if line == _STARTED:
                is_starting = False
            elif line == _ENDED:
                held.clear()
            elif line.startswith(_BEFORE_START) and not in_a_line:
                pass
            elif found and (found[1] != b"E" or is_starting or _FALLBACK in line):
                if found[1] != b"I":
                    held.append(line)
            else:
                sink.write(line)
            in_a_line = False
        if pending and (in_a_line or pending[:1] not in b"IWE\0"):
            sink.write(pending)
            pending, in_a_line = b"", True
        sink.flush()
    sink.writelines([pending, *held])
    sink.flush()


if __name__ == "__main__":
    filter_messages(0, sys.stderr.buffer)
