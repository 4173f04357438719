"""The memory of all requests together: on their way, waiting for a thread, and worked on."""

import asyncio
import ctypes
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from serving.rpc.status import RequestError

PAUSE_SECONDS = 30.0  # longest pause in a message
_PATIENCE_SECONDS = 0.25  # that a request waits for the end of others
_SLOW_SECONDS = 10.0  # what an upload received in more at its speed ends if others wait
_SLOW_RATE = 2**17  # bytes per second of one that is not waited for
_USUAL_BYTES = 16 * 2**20
_SMALL_BYTES = 48 * 2**10  # of requests that need not wait; clients send 64 KB before they are read
_MOST_WAITING = 1024
_TICK_SECONDS = 0.05
_TIME_SHARE = 0.05  # of the event loop's time for looking at the uploads
_AT_A_TIME = 100  # uploads looked at between turns of others


class Intake:
    """Counts the bytes of requests, lets new ones wait for room, and ends those that stop.

    A request waits, before its message is received, until there is room for one of usual size; they
    get it in the order in which they came. A small one that is there already does not wait. The
    sizes of messages are unknown before they are complete; should they become too many bytes, those
    end that hold the most for how fast they proceed. A slow but small upload, and a large but fast
    one, remain.

    Args:
        max_bytes: bytes of all requests together.
    """

    def __init__(self, max_bytes: int):
        self.max_bytes = max_bytes
        self._held = 0
        self._freed = 0  # bytes, since memory was given back
        self._gave_back = 0.0
        self._waiting: list[float] = []  # since when
        self._connections: dict[str, _Connection] = {}
        self._before: dict[str, int] = {}  # bytes of connections when their last upload ended
        self._watch: asyncio.Task | None = None

    @property
    def bytes(self) -> int:
        """Bytes of requests in memory; of those on their way as of the last look."""
        return self._held + sum(one.on_its_way for one in self._connections.values())

    def hold(self, size: int) -> None:
        """Counts bytes until they are released.

        Raises:
            RequestError: RESOURCE_EXHAUSTED; these are too many, and are not counted.
        """
        if self._held + size > self.max_bytes:
            raise self._full()
        self._held += size

    def release(self, size: int) -> None:
        """Ends what `hold` began."""
        self._held -= size
        self._freed += size

    async def _room(self, is_small: Callable[[], bool]) -> None:
        """Waits for room for another request.

        Raises:
            RequestError: RESOURCE_EXHAUSTED; there was none for a long time.
        """
        if not self._waiting and self._has_room():
            return
        if len(self._waiting) >= _MOST_WAITING:
            raise self._full()
        since = time.monotonic()
        self._waiting.append(since)
        self._start_watch()
        try:
            while True:
                first = self._waiting[: _AT_A_TIME // 4]
                crowd = 0 if since in first else len(self._waiting)
                await asyncio.sleep(_TICK_SECONDS * (1 + crowd / _AT_A_TIME))
                if is_small() or (since in first and self._has_room()):
                    return
                if time.monotonic() - since > PAUSE_SECONDS:
                    raise self._full()
        finally:
            self._waiting.remove(since)

    def _has_room(self) -> bool:
        usual, now = min(_USUAL_BYTES, self.max_bytes), time.monotonic()
        uploads = sum(one.expected(usual, now) for one in self._connections.values())
        return self._held + uploads + usual <= self.max_bytes

    async def receive(
        self,
        client: str,
        received: Callable[[], int | None],
        read: Callable[[], Awaitable[Any]],
        is_one: bool = True,
        waits: bool = True,
        size: int | None = None,
    ) -> Any:
        """Waits for room, and for a message.

        Args:
            client: the connection; its uploads are looked at together.
            received: gives the number of bytes it has received so far; None for unknown.
            read: reads the message; returns bytes or, at the end of a stream, something else.
            is_one: whether the message is due now; those of a stream may be long in coming.
            waits: whether it waits for room.
            size: size of the message, where it is known before it is read.

        Raises:
            RequestError: DEADLINE_EXCEEDED, the client sends nothing any more; RESOURCE_EXHAUSTED.
        """
        if waits:
            await self._room(self._smallness(client, received, size))
        upload = _Upload(asyncio.ensure_future(read()), is_one)
        connection = self._connections.get(client)
        if connection is None:
            connection = self._connections[client] = _Connection(received)
        connection.uploads.add(upload)
        self._start_watch()
        complete = 0
        try:
            found = await upload.task
            complete = len(found) if isinstance(found, bytes | bytearray) else 0
            return found
        except asyncio.CancelledError:
            if upload.reason is not None:
                raise upload.reason from None
            raise
        finally:
            connection.uploads.discard(upload)
            if connection.uploads:
                connection.look(time.monotonic())
                connection.complete(complete)
            else:
                self._connections.pop(client, None)
                if size is None:
                    self._remember(client, received())

    def _smallness(
        self, client: str, received: Callable[[], int | None], size: int | None
    ) -> Callable[[], bool]:
        """Returns a function that says, at its second call or later, whether a request is small.

        Its size is unknown over gRPC. It is small if its connection, which has no other upload, has
        received little and then nothing more: what is on its way is all there, or it is slow.
        """
        if size is not None:
            return lambda: size <= _SMALL_BYTES
        before, last = self._before.get(client, 0), received()

        def is_small() -> bool:
            nonlocal last
            previous, last = last, received()
            if client in self._connections or last is None or last != previous:
                return False
            return last - before <= _SMALL_BYTES

        return is_small

    def _remember(self, client: str, received: int | None) -> None:
        if received is None:
            return
        if len(self._before) > 4 * _MOST_WAITING:  # of connections that ended
            self._before.clear()
        self._before[client] = received

    def stop(self) -> None:
        """Ends its own work; those who wait for messages are ended by the server."""
        if self._watch is not None:
            self._watch.cancel()

    def _start_watch(self) -> None:
        if self._watch is None or self._watch.done():
            self._watch = asyncio.ensure_future(self._look_after())

    async def _look_after(self) -> None:
        pause = _TICK_SECONDS
        while self._connections or self._waiting:
            await asyncio.sleep(pause)
            began = time.monotonic()
            for number, connection in enumerate([*self._connections.values()]):
                now = time.monotonic()
                connection.look(now)
                if now - connection.moved > PAUSE_SECONDS:
                    connection.end(self._stopped(), of_streams=False)
                if number % _AT_A_TIME == _AT_A_TIME - 1:
                    await asyncio.sleep(0)
            now = time.monotonic()
            pause = max(_TICK_SECONDS, (now - began) / _TIME_SHARE)
            self._end_uploads(self.bytes - self.max_bytes, 0.0)
            if self._waiting and now - self._waiting[0] > _PATIENCE_SECONDS:
                room = min(_USUAL_BYTES, self.max_bytes)
                self._end_uploads(self.bytes + room - self.max_bytes, _SLOW_SECONDS)
            await self._give_back(now)
        await self._give_back(time.monotonic() + 1)

    def _end_uploads(self, size: int, at_least: float) -> None:
        """Ends uploads that hold `size` bytes: those first that hold the most for their speed.

        Args:
            size: bytes to free.
            at_least: uploads that received what they hold in fewer seconds, at their speed, go on.
        """
        if size <= 0:
            return
        for connection in sorted(self._connections.values(), key=_seconds_held, reverse=True):
            if size <= 0 or not connection.on_its_way or _seconds_held(connection) < at_least:
                return
            size -= connection.on_its_way
            self._freed += connection.on_its_way
            connection.end(self._full())

    async def _give_back(self, now: float) -> None:
        """Returns freed memory to the system, after much was freed, once a second at most."""
        if self._freed > self.max_bytes // 4 and now - self._gave_back > 1:
            self._freed, self._gave_back = 0, now
            await asyncio.get_running_loop().run_in_executor(None, _return_memory)

    @staticmethod
    def _stopped() -> RequestError:
        return RequestError(
            grpc.StatusCode.DEADLINE_EXCEEDED,
            f"no part of the message came for {PAUSE_SECONDS:g} s",
        )

    def _full(self) -> RequestError:
        return RequestError(
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            f"the requests at this moment have more than {self.max_bytes // 2**20} MB together "
            "(--max-requests-mb); try again later",
        )


def _seconds_held(connection: "_Connection") -> float:
    return connection.on_its_way / (1 + connection.rate)


class _Upload:
    """A message on its way."""

    def __init__(self, task: asyncio.Future, is_one: bool):
        self.task = task
        self.is_one = is_one
        self.reason: RequestError | None = None


class _Connection:
    """The uploads of one connection, and what it has received since the first of them began."""

    def __init__(self, received: Callable[[], int | None]):
        self.uploads: set[_Upload] = set()
        self._began = self.moved = self._looked = time.monotonic()
        self.rate = 0.0  # bytes per second, of about the last second
        self._count = received
        self._received = received() or 0
        self._complete = self._received  # those that belong to no open upload

    @property
    def on_its_way(self) -> int:
        return self._received - self._complete

    def expected(self, usual: int, now: float) -> int:
        """Returns how many bytes the uploads will have soon; slow ones hardly more than now."""
        if now - self._began > _PATIENCE_SECONDS and self.rate < _SLOW_RATE:
            return self.on_its_way
        return max(self.on_its_way, usual * sum(upload.is_one for upload in self.uploads))

    def look(self, now: float) -> None:
        received = self._count()
        new = 0 if received is None else max(0, received - self._received)
        seconds = max(now - self._looked, 1e-3)
        self.rate += min(1.0, seconds) * (new / seconds - self.rate)
        self._received, self._looked = self._received + new, now
        if new or received is None:
            self.moved = now

    def complete(self, size: int) -> None:
        self._complete = min(self._received, self._complete + size)

    def end(self, reason: RequestError, of_streams: bool = True) -> None:
        for upload in self.uploads:
            if upload.is_one or of_streams:
                upload.reason = upload.reason or reason
                upload.task.cancel()


def _return_memory() -> None:
    """Lets glibc return free memory, which it keeps for the thread that had it."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):
        pass  # another C library
