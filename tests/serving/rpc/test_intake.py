"""Which uploads go on, and which end, when there are too many bytes of requests."""

import asyncio
import contextlib
import socket

import grpc
import pytest

from serving.rpc import bounded_messages, intake
from serving.rpc.bounded_messages import Sockets
from serving.rpc.intake import Intake
from serving.rpc.status import RequestError

pytestmark = pytest.mark.integration
MB = 2**20


@pytest.fixture(autouse=True)
def small(monkeypatch):
    for name, value in {"PAUSE_SECONDS": 0.5, "_PATIENCE_SECONDS": 0.1, "_USUAL_BYTES": MB}.items():
        monkeypatch.setattr(intake, name, value)


class Uploads:
    """Clients whose bytes arrive at sockets of this process, as at those of gRPC."""

    def __init__(self, counts: Intake):
        self._intake = counts
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets = [self._listener]
        self.complete: dict[str, asyncio.Event] = {}

    async def start(self, name: str, size: int) -> asyncio.Task:
        """Begins an upload of which so many bytes have come."""
        client = socket.create_connection(self._listener.getsockname())
        server, (host, port) = self._listener.accept()
        self._sockets += [client, server]
        complete = self.complete[name] = asyncio.Event()

        async def read() -> bytes:
            await complete.wait()
            return b"x" * size

        peer, sockets = f"ipv4:{host}:{port}", Sockets()
        receiving = self._intake.receive(peer, lambda: sockets.received(peer), read)
        started = asyncio.create_task(receiving)
        while len(self._intake._connections) < len(self.complete):
            await asyncio.sleep(0.01)
        for _ in range(0, size, 2**16):
            client.sendall(b"x" * 2**16)
            server.recv(2**16, socket.MSG_WAITALL)
        return started

    def close(self) -> None:
        for one in self._sockets:
            one.close()


def run(scenario, limit: int = 4 * MB) -> None:
    async def with_uploads() -> None:
        counts = Intake(limit)
        with contextlib.closing(Uploads(counts)) as uploads:
            await asyncio.wait_for(scenario(counts, uploads), 30)
        counts.stop()

    asyncio.run(with_uploads())


async def refused(task: asyncio.Future) -> grpc.StatusCode:
    with pytest.raises(RequestError) as error:
        await task
    return error.value.code


def test_the_stalled_upload_that_holds_most_ends_and_the_others_go_on(monkeypatch):
    monkeypatch.setattr(intake, "PAUSE_SECONDS", 20.0)

    async def scenario(counts, uploads):
        stalled = await uploads.start("stalled", 3 * MB)
        slow = await uploads.start("slow", 2**16)
        await asyncio.sleep(0.3)
        fast = await uploads.start("fast", 2 * MB)
        assert await refused(stalled) == grpc.StatusCode.RESOURCE_EXHAUSTED
        for name, task in (("slow", slow), ("fast", fast)):
            uploads.complete[name].set()
            assert len(await task) == {"slow": 2**16, "fast": 2 * MB}[name]
        assert counts.bytes == 0

    run(scenario, 5 * MB)


def test_a_message_that_stops_ends_and_one_that_is_due_later_does_not():
    async def scenario(counts, uploads):
        stream = asyncio.create_task(
            counts.receive("a", lambda: 0, asyncio.Event().wait, is_one=False)
        )
        stopped = await uploads.start("stopped", 2**16)
        assert await refused(stopped) == grpc.StatusCode.DEADLINE_EXCEEDED
        assert not stream.done()
        stream.cancel()

    run(scenario)


def test_requests_wait_for_room_and_are_refused_if_none_comes():
    async def scenario(counts, uploads):
        counts.hold(int(3.5 * MB))
        with pytest.raises(RequestError, match="--max-requests-mb"):
            counts.hold(MB)

        async def read() -> bytes:
            return b"ok"

        assert await refused(asyncio.ensure_future(counts.receive("a", lambda: MB, read))) == (
            grpc.StatusCode.RESOURCE_EXHAUSTED
        )
        waiting = asyncio.create_task(counts.receive("a", lambda: MB, read))
        # Small ones do not wait: over gRPC one of which little came, and then nothing more.
        assert await counts.receive("b", lambda: 1000, read) == b"ok"
        assert await counts.receive("c", lambda: 0, read, size=1000) == b"ok"
        assert await counts.receive("a", lambda: 0, read, waits=False) == b"ok"  # health
        assert not waiting.done()
        counts.release(int(3.5 * MB))
        assert await waiting == b"ok"

    run(scenario)


def test_complete_messages_of_a_connection_are_not_on_their_way():
    async def scenario(counts, uploads):
        received = [0]
        first, second = asyncio.Event(), asyncio.Event()

        async def read(event) -> bytes:
            await event.wait()
            return b"x" * 3 * MB

        tasks = [
            asyncio.create_task(counts.receive("a", lambda: received[0], lambda e=e: read(e)))
            for e in (first, second)
        ]
        await asyncio.sleep(0.02)
        received[0] = 3 * MB
        await asyncio.sleep(0.1)
        assert counts.bytes == 3 * MB
        first.set()
        await tasks[0]
        assert counts.bytes == 0
        second.set()
        await tasks[1]

    run(scenario)


def test_addresses_are_those_of_sockets():
    assert bounded_messages._address("ipv4:127.0.0.1:80") == ("127.0.0.1", 80)
    assert bounded_messages._address("ipv6:%5B::1%5D:80") == ("::1", 80)
    assert bounded_messages._address("ipv6:[::ffff:10.0.0.1]:80") == ("10.0.0.1", 80)
    assert bounded_messages._address("unix:/tmp/x") is None
