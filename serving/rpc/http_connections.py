"""Connections of HTTP that end if they do not proceed."""

import asyncio
from collections.abc import Mapping
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_SECONDS = 20.0  # until a request must have begun, and its header be complete


class BoundedConnection(H11Protocol):
    """A connection of uvicorn that ends without a request in time.

    uvicorn gives the header of a request, and the first request of a connection, any time.
    """

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self.app_state = {**self.app_state, "connection": self}
        self._timer: asyncio.TimerHandle | None = None

    @property
    def unsent(self) -> int:
        """Bytes of the answer that wait for the client here."""
        return self.transport.get_write_buffer_size()

    def abort(self) -> None:
        """Ends the connection at once; an answer that is being sent is cut off."""
        self.transport.abort()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait_for_request()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        super().handle_events()
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()

    def on_response_complete(self) -> None:
        self._wait_for_request()
        super().on_response_complete()

    def _wait_for_request(self) -> None:
        self._stop_waiting()
        self._timer = self.loop.call_later(HEADER_SECONDS, self.abort)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def connection_of(scope: Mapping[str, Any]) -> BoundedConnection:
    """Returns the connection of a request."""
    return scope["state"]["connection"]
