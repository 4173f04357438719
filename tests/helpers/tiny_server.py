"""The embedded server in a test: on a free port, and waited for."""

import os
import time

from serving.server import ServerSettings, TaggingServer

SETTINGS = {"port": 0, "poll_seconds": 0.05}


def wait_for(condition, seconds=300):
    """Waits until `condition()` is true; fails after a time that no busy machine reaches."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def started(model_dir, **settings) -> TaggingServer:
    server = TaggingServer(model_dir, ServerSettings(**{**SETTINGS, **settings}))
    server.start()
    return server


def ready(server) -> TaggingServer:
    wait_for(lambda: server.versions.current is not None)
    return server


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
