"""Memory and disk of this machine: what this process has used, and what is available."""

import dataclasses
import os
import pathlib
import resource
import shutil
import sys
import time

from training.data.input.sources import default_memory_limit

MEMORY_INFO, STATUS = pathlib.Path("/proc/meminfo"), pathlib.Path("/proc/self/status")
PROCESSOR_INFO = pathlib.Path("/proc/stat")


def peak_memory() -> int:
    """Returns the peak resident memory of this process in bytes."""
    if STATUS.is_file():  # getrusage includes the parent's memory at the start of this process
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def total_memory() -> int:
    """Returns the memory of this machine in bytes, or of the container if that is less."""
    return 2 * default_memory_limit()


def available_memory() -> int:
    """Returns the bytes that a new process could use now, or all if that is unknown."""
    if MEMORY_INFO.is_file():
        for line in MEMORY_INFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return min(1024 * int(line.split()[1]), total_memory())
    return total_memory()


@dataclasses.dataclass(frozen=True)
class ProcessorTime:
    """Seconds of all processors together up to a moment.

    Attributes:
        passed: since the machine started; 0 if unknown.
        used: of these, by all processes.
        own: by this process.
    """

    passed: float
    used: float
    own: float

    @classmethod
    def now(cls) -> "ProcessorTime":
        """Returns the seconds up to now."""
        own = time.process_time()
        if not PROCESSOR_INFO.is_file():
            return cls(0.0, 0.0, own)
        ticks = [int(text) for text in PROCESSOR_INFO.read_text().split("\n", 1)[0].split()[1:9]]
        seconds = [tick / os.sysconf("SC_CLK_TCK") for tick in ticks]
        # user, nice, system, idle, waiting for disks, interrupts (2), taken by a host
        return cls(sum(seconds), sum(seconds) - seconds[3] - seconds[4], own)

    def share_of_others(self, before: "ProcessorTime") -> float:
        """Returns which share of the time since `before` other processes had, 0 to 1."""
        passed = self.passed - before.passed
        others = (self.used - before.used) - (self.own - before.own)
        return min(max(others / passed, 0.0), 1.0) if passed > 0 else 0.0


def peak_gpu_memory() -> dict[str, int]:
    """Returns the peak memory of each GPU in bytes, by the name of the device."""
    import tensorflow as tf

    names = [
        device.name.removeprefix("/device:") for device in tf.config.list_logical_devices("GPU")
    ]
    return {name: tf.config.experimental.get_memory_info(name)["peak"] for name in names}


def free_disk(path: str | os.PathLike) -> int:
    """Returns the free bytes of the disk of `path`, which need not exist yet."""
    return shutil.disk_usage(existing_parent(path)).free


def same_disk(a: str | os.PathLike, b: str | os.PathLike) -> bool:
    """Returns whether two paths, which need not exist yet, are on the same disk."""
    return existing_parent(a).stat().st_dev == existing_parent(b).stat().st_dev


def existing_parent(path: str | os.PathLike) -> pathlib.Path:
    """Returns `path`, or the nearest folder above it that exists."""
    path = pathlib.Path(os.path.abspath(path))
    while not path.exists():
        path = path.parent
    return path
