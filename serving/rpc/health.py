"""gRPC's health service, which clients that do not read can't hold up."""

import asyncio

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_States = health_pb2.HealthCheckResponse


class HealthServicer(health_pb2_grpc.HealthServicer):
    """`Check` and `Watch`.

    That of grpcio-health-checking keeps a lock while it writes to a client that watches. One that
    does not read would stop the news of new versions, and the end of the server.

    Args:
        services: names of the services, which are not serving at first.
    """

    def __init__(self, services: tuple[str, ...]):
        self._states = dict.fromkeys(services, _States.NOT_SERVING)
        self._changed = asyncio.Event()  # replaced at each change
        self._stopping = False

    async def Check(
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        """Returns whether a service is serving."""
        if request.service not in self._states:
            await context.abort(grpc.StatusCode.NOT_FOUND, "there is no such service")
        return _States(status=self._states[request.service])

    async def Watch(
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext
    ) -> None:
        """Sends whether a service is serving, and again when that changes."""
        sent = None
        while True:
            changed = self._changed
            state = self._states.get(request.service, _States.SERVICE_UNKNOWN)
            if state != sent:
                await context.write(_States(status=state))
                sent = state
            elif self._stopping:
                return  # the server need not wait for those who watch
            else:
                await changed.wait()

    def set_serving(self) -> None:
        """All services are serving, unless the server stops."""
        if not self._stopping:
            self._set(_States.SERVING)

    def stop(self) -> None:
        """No service is serving any more."""
        self._stopping = True
        self._set(_States.NOT_SERVING)

    def _set(self, state: int) -> None:
        self._states = dict.fromkeys(self._states, state)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
