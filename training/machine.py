"""Memory and disk of this machine: what a process has used, and what is there."""

import os
import pathlib
import resource
import shutil
import sys

from training.data.input.sources import default_memory_limit

MEMORY_INFO, STATUS = pathlib.Path("/proc/meminfo"), pathlib.Path("/proc/self/status")


def peak_memory() -> int:
    """Returns the largest resident memory in bytes that this process has had so far."""
    if STATUS.is_file():  # getrusage counts what the parent had when it started this process, too
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def total_memory() -> int:
    """Returns this machine's memory in bytes, or the container's where it has less."""
    return 2 * default_memory_limit()


def available_memory() -> int:
    """Returns the bytes that a new process could use now; where that is unknown, all there are."""
    if MEMORY_INFO.is_file():
        for line in MEMORY_INFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return min(1024 * int(line.split()[1]), total_memory())
    return total_memory()


def peak_gpu_memory() -> dict[str, int]:
    """Returns the largest number of bytes in use on each GPU so far, by the device's name."""
    import tensorflow as tf

    names = [
        device.name.removeprefix("/device:") for device in tf.config.list_logical_devices("GPU")
    ]
    return {name: tf.config.experimental.get_memory_info(name)["peak"] for name in names}


def free_disk(path: str | os.PathLike) -> int:
    """Returns the free bytes of the disk that holds `path`, which need not exist yet."""
    return shutil.disk_usage(existing_parent(path)).free


def same_disk(a: str | os.PathLike, b: str | os.PathLike) -> bool:
    """Tells whether two paths, which need not exist yet, lie on one disk."""
    return existing_parent(a).stat().st_dev == existing_parent(b).stat().st_dev


def existing_parent(path: str | os.PathLike) -> pathlib.Path:
    """Returns `path`, or the nearest folder above it that exists."""
    path = pathlib.Path(os.path.abspath(path))
    while not path.exists():
        path = path.parent
    return path
