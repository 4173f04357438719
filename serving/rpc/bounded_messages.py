"""Messages of gRPC, received by an `Intake`.

gRPC hands over a message when it is complete. What has arrived of the others is known to the kernel
alone, which counts the bytes of a connection (Linux). Where it does not, complete messages count.
"""

import contextlib
import ipaddress
import os
import socket
import struct
import urllib.parse
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from serving.rpc.calls import REQUEST_ID, Call
from serving.rpc.intake import Intake
from serving.rpc.status import RequestError

_LARGE_METHODS = ("Predict",)  # health and status never wait
_BYTES_RECEIVED = 128  # place of tcpi_bytes_received in Linux' struct tcp_info


class BoundedMessages(grpc.aio.ServerInterceptor):
    """Lets an `Intake` receive the messages of all methods of a gRPC server.

    Handlers are called as before. To gRPC they are methods that take streams, as these decide
    themselves how long they wait for a message; on the wire there is no difference.

    Args:
        intake: receives and counts.
        record: called with what was refused, and its code.
    """

    def __init__(self, intake: Intake, record: Callable[[Call, grpc.StatusCode], None]):
        self._intake = intake
        self._record = record
        self._sockets = Sockets()

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
        return grpc.stream_unary_rpc_method_handler(
            self._unary(handler, method), None, handler.response_serializer
        )

    def _unary(self, handler: Any, method: str) -> Callable:
        async def answer(_: Any, context: grpc.aio.ServicerContext) -> Any:
            async with self._message(context, method) as message:
                if message is None:
                    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "there is no message")
                request = handler.request_deserializer(message)
                del message
                return await handler.unary_unary(request, context)

        return answer

    def _streaming(self, handler: Any, method: str) -> Callable:
        async def requests(context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
            while True:
                async with self._message(context, method, False) as message:
                    if message is None:
                        return
                    yield handler.request_deserializer(message)

        async def answer(_: Any, context: grpc.aio.ServicerContext) -> None:
            if handler.request_streaming:
                async for response in handler.stream_stream(requests(context), context):
                    await context.write(response)
                return
            async with self._message(context, method) as message:
                if message is None:
                    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "there is no message")
                request = handler.request_deserializer(message)
            await handler.unary_stream(request, context)

        return answer

    @contextlib.asynccontextmanager
    async def _message(
        self, context: grpc.aio.ServicerContext, method: str, is_one: bool = True
    ) -> AsyncIterator[bytes | None]:
        """Gives the next message, None at the end; its bytes count until the context is left."""
        size = 0
        try:
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
        except RequestError as error:
            metadata = context.invocation_metadata() or ()
            call = Call(method, {key: str(value) for key, value in metadata})
            self._record(call, error.code)
            context.set_trailing_metadata(((REQUEST_ID, call.id),))
            await context.abort(error.code, error.message)
        try:
            yield message if isinstance(message, bytes) else None
        finally:
            self._intake.release(size)


class Sockets:
    """What the kernel knows of the connections of this process."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def received(self, peer: str) -> int | None:
        """Returns how many bytes a connection has received; None if it is unknown.

        Args:
            peer: the address of the other side, as gRPC gives it.
        """
        address = _address(peer)
        if address is None:
            return None
        known = self._numbers.get(peer)
        found = None if known is None else _bytes_received(known, address)
        return self._find(peer, address) if found is None else found

    def _find(self, peer: str, address: tuple[str, int]) -> int | None:
        try:
            numbers = [int(name) for name in os.listdir("/proc/self/fd")]
        except (OSError, ValueError):
            return None
        for number in numbers:
            found = _bytes_received(number, address)
            if found is not None:
                if len(self._numbers) > 4096:  # of connections that ended
                    self._numbers.clear()
                self._numbers[peer] = number
                return found
        return None


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


def _bytes_received(number: int, address: tuple[str, int]) -> int | None:
    """Returns what a socket has received, if it is connected to the address."""
    try:
        found = socket.socket(fileno=number)
    except OSError:
        return None
    try:
        if found.family not in (socket.AF_INET, socket.AF_INET6):
            return None
        host, port, *_ = found.getpeername()
        if (_plain(host), port) != address:
            return None
        facts = found.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192)
        return struct.unpack_from("=Q", facts, _BYTES_RECEIVED)[0]
    except (OSError, AttributeError, struct.error):
        return None
    finally:
        found.detach()  # it is gRPC's
