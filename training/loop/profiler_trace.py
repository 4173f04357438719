"""A trace of TensorFlow's profiler: which operations took the time, and the file for Perfetto."""

import collections
import dataclasses
import gzip
import json
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

HOST = "/host:CPU"
_DEVICES = "/device:"
_STREAM = "Stream"  # lines of a GPU that hold kernels; others sum them up again
# What TensorFlow calls an operation that runs: its name in the graph and its type.
_OPERATION = re.compile(r"[^: ]+:(\w+)")
_SHOWN = 20


@dataclasses.dataclass(frozen=True)
class OperationTime:
    """The time of one kind of operation.

    Attributes:
        device: "CPU", or a device as TensorFlow names it, such as "GPU:0".
        name: of the operation's type, on a device of the kernel.
        seconds: on all threads, without other operations that it called.
        count: how many times it ran.
    """

    device: str
    name: str
    seconds: float
    count: int


def read_trace(folder: pathlib.Path) -> Any:
    """Returns the `XSpace` message of the newest trace below a folder of TensorBoard's files.

    Raises:
        FileNotFoundError: there is none.
    """
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    files = sorted(folder.glob("plugins/profile/*/*.xplane.pb"))
    if not files:
        raise FileNotFoundError(f"{folder}: no trace of the profiler in it")
    return xplane_pb2.XSpace.FromString(files[-1].read_bytes())


def operation_times(space: Any) -> list[OperationTime]:
    """Returns the time of each kind of operation on each device, the longest first.

    An operation's own time is that of its event without the operations within it on the same
    thread. On the CPU an operation may use other threads; its event lasts as long as it waits for
    them, and they are not counted again.

    Args:
        space: an `XSpace` message.
    """
    seconds: dict[tuple[str, str], float] = collections.defaultdict(float)
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    for plane in space.planes:
        if plane.name != HOST and not plane.name.startswith(_DEVICES):
            continue
        device = "CPU" if plane.name == HOST else plane.name.removeprefix(_DEVICES)
        for line in _lines_of_work(plane):
            events = [
                (event.offset_ps, event.duration_ps, name)
                for event in line.events
                if (name := _operation(plane, event)) is not None
            ]
            for name, own_ps in _own_times(events):
                seconds[device, name] += own_ps / 1e12
                counts[device, name] += 1
    times = [OperationTime(*key, seconds[key], counts[key]) for key in seconds]
    return sorted(times, key=lambda time: (-time.seconds, time.device, time.name))


def wait_shares(space: Any) -> dict[str, float]:
    """Returns the share of the time in which a device ran no operation, for each device.

    The time is that from the beginning of a device's first operation to the end of its last one.

    Args:
        space: an `XSpace` message.
    """
    intervals: dict[str, list[tuple[int, int]]] = collections.defaultdict(list)
    for plane in space.planes:
        if plane.name != HOST and not plane.name.startswith(_DEVICES):
            continue
        device = "CPU" if plane.name == HOST else plane.name.removeprefix(_DEVICES)
        for line in _lines_of_work(plane):
            for event in line.events:
                if _operation(plane, event) is not None:
                    start = line.timestamp_ns * 1000 + event.offset_ps
                    intervals[device].append((start, start + event.duration_ps))
    shares = {}
    for device, own in intervals.items():
        own.sort()
        first = reached = own[0][0]
        idle = 0
        for start, end in own:
            idle += max(0, start - reached)
            reached = max(reached, end)
        shares[device] = idle / max(1, reached - first)
    return shares


def format_table(times: Sequence[OperationTime], steps: int) -> str:
    """Returns a table for each device: time per step, its share, runs per step, operation.

    Args:
        times: of some steps together, the longest first.
        steps: the number of steps.
    """
    parts = []
    for device in dict.fromkeys(time.device for time in times):
        own = [time for time in times if time.device == device]
        total = sum(time.seconds for time in own)
        lines = [
            f"{device}: {1e3 * total / steps:.2f} ms per step in {len(own)} kinds of operations",
            "ms per step   share runs per step  operation",
        ]
        lines += [
            f"{1e3 * time.seconds / steps:11.3f}{time.seconds / total:8.1%}"
            f"{time.count / steps:14.1f}  {time.name}"
            for time in own[:_SHOWN]
        ]
        rest = own[_SHOWN:]
        if rest:
            seconds, count = sum(time.seconds for time in rest), sum(time.count for time in rest)
            lines.append(
                f"{1e3 * seconds / steps:11.3f}{seconds / total:8.1%}{count / steps:14.1f}  "
                f"{len(rest)} other kinds"
            )
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def write_chrome_trace(space: Any, path: pathlib.Path) -> None:
    """Writes a trace in the JSON form that Perfetto and chrome://tracing open, compressed."""
    events: list[dict] = []
    for number, plane in enumerate(space.planes, start=1):
        events.append(_named("process_name", plane.name, number, 0))
        for thread, line in enumerate(plane.lines, start=1):
            events.append(_named("thread_name", line.name, number, thread))
            start_us = line.timestamp_ns / 1e3
            events += [
                {
                    "ph": "X",
                    "pid": number,
                    "tid": thread,
                    "ts": start_us + event.offset_ps / 1e6,
                    "dur": event.duration_ps / 1e6,
                    "name": plane.event_metadata[event.metadata_id].name,
                }
                for event in line.events
            ]
    with gzip.open(path, "wt", encoding="utf-8") as file:
        json.dump({"displayTimeUnit": "ms", "traceEvents": events}, file)


def _lines_of_work(plane: Any) -> Sequence[Any]:
    streams = [line for line in plane.lines if line.name.startswith(_STREAM)]
    return streams if plane.name != HOST and streams else plane.lines


def _operation(plane: Any, event: Any) -> str | None:
    """Returns the kind of operation of an event, or None if it is not an operation."""
    name = plane.event_metadata[event.metadata_id].name
    if plane.name != HOST:
        return name
    found = _OPERATION.fullmatch(name)
    return found[1] if found else None


def _own_times(events: Sequence[tuple[int, int, str]]) -> Iterator[tuple[str, int]]:
    """Yields name and own time of events of one thread, given as (start, duration, name)."""
    open_events: list[list] = []  # [end, name, own time], each within the one before
    for start, duration, name in sorted(events, key=lambda event: (event[0], -event[1])):
        while open_events and open_events[-1][0] <= start:
            _, finished, own = open_events.pop()
            yield finished, own
        if open_events:
            open_events[-1][2] -= duration
        open_events.append([start + duration, name, duration])
    for _, name, own in open_events:
        yield name, own


def _named(kind: str, name: str, process: int, thread: int) -> dict:
    return {"ph": "M", "name": kind, "pid": process, "tid": thread, "args": {"name": name}}
