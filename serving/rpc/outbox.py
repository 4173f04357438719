"""The memory of all answers that are being sent, and clients that do not read theirs."""

import asyncio
import dataclasses
import time
from collections.abc import Callable

import grpc

from serving.rpc.status import RequestError

PAUSE_SECONDS = 30.0  # longest pause in reading an answer
_SLOW_SECONDS = 2.0  # what takes longer to be read ends if others need the memory
_SMALL_BYTES = 2**16  # of answers that are not counted
_TICK_SECONDS = 1.0


@dataclasses.dataclass(eq=False)
class Letter:
    """An answer that is being sent.

    Attributes:
        size: its bytes that count.
        read: gives the number of bytes that the client has read so far; None for unknown.
        cut: ends the connection.
    """

    size: int
    read: Callable[[], int | None]
    cut: Callable[[], None]

    def __post_init__(self) -> None:
        self.began = self.moved = time.monotonic()
        self._first = self._last = self.read() or 0

    def look(self, now: float) -> None:
        """Notices what the client has read meanwhile."""
        found = self.read()
        if found is None or found != self._last:
            self.moved = now
        self._last = self._last if found is None else found

    def seconds_left(self, now: float) -> float:
        """Returns in how many seconds it is read at the speed so far."""
        read = self._last - self._first
        return max(0, self.size - read) * (now - self.began) / (1 + read)


class Outbox:
    """Counts the bytes of answers, and ends the connections of clients that do not read.

    Args:
        max_bytes: bytes of all answers together.
    """

    def __init__(self, max_bytes: int):
        self.max_bytes = max_bytes
        self.bytes = 0
        self._letters: set[Letter] = set()
        self._watch: asyncio.Task | None = None

    def add(
        self, size: int, read: Callable[[], int | None], cut: Callable[[], None]
    ) -> Letter | None:
        """Counts an answer until it is removed; returns None for a small one, which does not count.

        Raises:
            RequestError: RESOURCE_EXHAUSTED; other answers have the memory, and are being read.
        """
        if size < _SMALL_BYTES:
            return None
        self._make_room(size)
        if self.bytes + size > self.max_bytes:
            raise RequestError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"the answers that clients read at this moment have more than "
                f"{self.max_bytes // 2**20} MB together (--max-requests-mb); try again later",
            )
        letter = Letter(size, read, cut)
        self._letters.add(letter)
        self.bytes += size
        if self._watch is None or self._watch.done():
            self._watch = asyncio.ensure_future(self._look_after())
        return letter

    def remove(self, letter: Letter | None) -> None:
        """Ends what `add` began; the answer is sent, or its client is gone."""
        if letter is not None and letter in self._letters:
            self._letters.discard(letter)
            self.bytes -= letter.size

    def stop(self) -> None:
        """Ends its own work."""
        if self._watch is not None:
            self._watch.cancel()

    def _make_room(self, size: int) -> None:
        if self.bytes + size <= self.max_bytes:
            return
        now = time.monotonic()
        for letter in self._letters:
            letter.look(now)
        old = [letter for letter in self._letters if now - letter.began > _SLOW_SECONDS]
        for letter in sorted(old, key=lambda letter: letter.seconds_left(now), reverse=True):
            if self.bytes + size <= self.max_bytes or letter.seconds_left(now) < _SLOW_SECONDS:
                return
            self._cut(letter)

    async def _look_after(self) -> None:
        while self._letters:
            await asyncio.sleep(_TICK_SECONDS)
            now = time.monotonic()
            for letter in [*self._letters]:
                letter.look(now)
                if now - letter.moved > PAUSE_SECONDS:
                    self._cut(letter)

    def _cut(self, letter: Letter) -> None:
        self.remove(letter)
        letter.cut()
