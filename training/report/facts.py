"""What a run was made with: versions of packages, machine, time."""

import datetime
import importlib.metadata
import os
import pathlib
import platform

import tensorflow as tf

import biam_tf

PACKAGES = ("tensorflow", "keras", "numpy", "pillow", "scikit-learn")


def versions() -> dict[str, str]:
    """Returns the versions of Python, of this package and of those it rests on, by name."""
    found = {"biam-tf": biam_tf.__version__, "Python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def machine() -> dict[str, str]:
    """Returns what the machine that writes the report is, by name."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    gpus = [
        tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name)
        for gpu in tf.config.list_physical_devices("GPU")
    ]
    return {
        "system": platform.platform(terse=True),
        "processor": f"{_processor()}, {len(os.sched_getaffinity(0))} cores",
        "memory": f"{memory / 2**30:.0f} GiB",
        "GPU": ", ".join(gpus) or "none",
    }


def now() -> str:
    """Returns the time, to the minute, with its zone."""
    return datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")


def _processor() -> str:
    information = pathlib.Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
