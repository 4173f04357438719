"""Messages of gRPC, received by an `Intake`.

gRPC hands over a message when it is complete. What has arrived of the others is known to the kernel
alone, which counts the bytes of a connection (Linux). Where it does not, complete messages count.
"""

import asyncio
import concurrent.futures
import contextlib
import ipaddress
import os
import socket
import struct
import time
import urllib.parse
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from serving.rpc.calls import REQUEST_ID, Call
from serving.rpc.intake import Intake
from serving.rpc.outbox import Outbox
from serving.rpc.status import RequestError, invalid_argument
from serving.rpc.wire_check import CHECKED_BYTES, broken, require_simple

_LARGE_METHODS = ("Predict",)  # health and status never wait, and have small messages
# Places of tcpi_bytes_acked and tcpi_bytes_received in Linux' struct tcp_info.
_BYTES_READ, _BYTES_RECEIVED = 120, 128
_LOOK_PAUSE = 20  # times the time that a look at all sockets takes


class BoundedMessages(grpc.aio.ServerInterceptor):
    """Lets an `Intake` receive the messages of all methods of a gRPC server.

    Handlers are called as before. To gRPC they are methods that take streams, as these decide
    themselves how long they wait for a message; on the wire there is no difference.

    Args:
        intake: receives and counts.
        outbox: counts the answers that are being sent.
        record: called with what was refused, and its code.
        most_values: largest number of strings of a request.
    """

    def __init__(
        self,
        intake: Intake,
        outbox: Outbox,
        record: Callable[[Call, grpc.StatusCode], None],
        most_values: int,
    ):
        self._intake = intake
        self._outbox = outbox
        self._record = record
        self._most_values = most_values
        self._sockets = Sockets()
        self._readers = concurrent.futures.ThreadPoolExecutor(2, "messages")  # of large ones

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler:
        """Returns the handler of a call."""
        handler: Any = await continuation(handler_call_details)
        if handler is None:
            return handler
        method = handler_call_details.method.rpartition("/")[2]
        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(
                self._streaming(handler, method), None, handler.response_serializer
            )
        return grpc.stream_unary_rpc_method_handler(self._unary(handler, method))

    def _unary(self, handler: Any, method: str) -> Callable:
        async def answer(_: Any, context: grpc.aio.ServicerContext) -> Any:
            async with self._message(handler, context, method) as request:
                if request is None:
                    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "there is no message")
                response = await handler.unary_unary(request, context)
            if method in _LARGE_METHODS:
                loop = asyncio.get_running_loop()
                found = await loop.run_in_executor(None, handler.response_serializer, response)
            else:
                found = handler.response_serializer(response)
            del request, response
            async with self._told(context, method):
                self._send(context, found)
            return found

        return answer

    def _send(self, context: grpc.aio.ServicerContext, answer: bytes) -> None:
        """Counts an answer until it is sent."""
        peer = context.peer()
        letter = self._outbox.add(
            len(answer), lambda: self._sockets.read(peer), lambda: self._sockets.cut(peer)
        )
        context.add_done_callback(lambda _: self._outbox.remove(letter))

    def _streaming(self, handler: Any, method: str) -> Callable:
        async def requests(context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
            while True:
                async with self._message(handler, context, method, False) as request:
                    if request is None:
                        return
                    yield request

        async def answer(_: Any, context: grpc.aio.ServicerContext) -> None:
            if handler.request_streaming:
                async for response in handler.stream_stream(requests(context), context):
                    await context.write(response)
                return
            async with self._message(handler, context, method) as request:
                if request is None:
                    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "there is no message")
            await handler.unary_stream(request, context)

        return answer

    @contextlib.asynccontextmanager
    async def _message(
        self, handler: Any, context: grpc.aio.ServicerContext, method: str, is_one: bool = True
    ) -> AsyncIterator[Any]:
        """Gives the next message, None at the end; its bytes count until the context is left."""
        size, request = 0, None
        try:
            async with self._told(context, method):
                peer = context.peer()
                message = await self._intake.receive(
                    peer,
                    lambda: self._sockets.received(peer),
                    context.read,
                    is_one,
                    waits=method in _LARGE_METHODS,
                )
                if isinstance(message, bytes):
                    self._intake.hold(len(message))
                    size = len(message)
                    request = await self._parsed(handler, method, message)
                del message
            yield request
            del request
        finally:
            self._intake.release(size)

    async def _parsed(self, handler: Any, method: str, message: bytes) -> Any:
        def parse() -> Any:
            if len(message) > CHECKED_BYTES:
                require_simple(message, self._most_values)
            try:
                return handler.request_deserializer(message)
            except DecodeError:
                raise broken() from None

        if len(message) <= CHECKED_BYTES:
            return parse()
        if method not in _LARGE_METHODS:
            raise invalid_argument(f"a message of {len(message)} bytes; {method} needs few")
        return await asyncio.get_running_loop().run_in_executor(self._readers, parse)

    @contextlib.asynccontextmanager
    async def _told(self, context: grpc.aio.ServicerContext, method: str) -> AsyncIterator[None]:
        """Ends a call with the code of an error, and records it."""
        try:
            yield
        except RequestError as error:
            metadata = context.invocation_metadata() or ()
            call = Call(method, {key: str(value) for key, value in metadata})
            self._record(call, error.code)
            context.set_trailing_metadata(((REQUEST_ID, call.id),))
            await context.abort(error.code, error.message)


class Sockets:
    """What the kernel knows of the connections of this process."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, int], int] = {}
        self._next_look = 0.0

    def received(self, peer: str) -> int | None:
        """Returns how many bytes a connection has received; None if it is unknown.

        Args:
            peer: the address of the other side, as gRPC gives it.
        """
        return self._known(peer, _BYTES_RECEIVED)

    def read(self, peer: str) -> int | None:
        """Returns how many bytes the other side has received; None if it is unknown."""
        return self._known(peer, _BYTES_READ)

    def cut(self, peer: str) -> None:
        """Ends a connection."""
        address = _address(peer)
        number = None if address is None else self._numbers.get(address)
        if address is None or number is None:
            return
        with _borrowed(number, address) as found, contextlib.suppress(OSError):
            if found is not None:
                found.shutdown(socket.SHUT_RDWR)

    def _known(self, peer: str, place: int) -> int | None:
        address = _address(peer)
        if address is None:
            return None
        for _ in range(2):
            number = self._numbers.get(address)
            found = None if number is None else _fact(number, address, place)
            if found is not None or not self._look():
                return found
        return None

    def _look(self) -> bool:
        """Finds the sockets of all connections; not always, as that takes long if they are many."""
        began = time.monotonic()
        if began < self._next_look:
            return False
        try:
            numbers = [int(name) for name in os.listdir("/proc/self/fd")]
        except (OSError, ValueError):
            numbers = []
        found = ((_peer_of(number), number) for number in numbers)
        self._numbers = {address: number for address, number in found if address is not None}
        self._next_look = time.monotonic() + _LOOK_PAUSE * (time.monotonic() - began)
        return True


def _address(peer: str) -> tuple[str, int] | None:
    """Returns the address and port of a peer; None for one that is no address of IP."""
    scheme, _, rest = urllib.parse.unquote(peer).partition(":")
    host, _, port = rest.rpartition(":")
    if scheme not in ("ipv4", "ipv6") or not port.isdigit():
        return None
    return _plain(host.strip("[]")), int(port)


def _plain(host: str) -> str:
    address = ipaddress.ip_address(host.partition("%")[0])
    return str(getattr(address, "ipv4_mapped", None) or address)


@contextlib.contextmanager
def _borrowed(
    number: int, address: tuple[str, int] | None = None
) -> Iterator[socket.socket | None]:
    """Gives the socket of gRPC with a number; None if it is none, or not that of the address."""
    try:
        found = socket.socket(fileno=number)
    except OSError:
        yield None
        return
    try:
        yield found if address is None or _peer_address(found) == address else None
    finally:
        found.detach()  # it is gRPC's


def _peer_of(number: int) -> tuple[str, int] | None:
    with _borrowed(number) as found:
        return None if found is None else _peer_address(found)


def _peer_address(found: socket.socket) -> tuple[str, int] | None:
    try:
        if found.family not in (socket.AF_INET, socket.AF_INET6):
            return None
        host, port, *_ = found.getpeername()
    except OSError:
        return None
    return _plain(host), port


def _fact(number: int, address: tuple[str, int], place: int) -> int | None:
    """Returns a count of the kernel of a socket, if it is connected to the address."""
    with _borrowed(number, address) as found:
        if found is None:
            return None
        try:
            facts = found.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192)
            return struct.unpack_from("=Q", facts, place)[0]
        except (OSError, AttributeError, struct.error):
            return None
