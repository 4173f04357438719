"""Clients that load a server with good and bad requests, and probes of its health."""

import collections
import concurrent.futures
import dataclasses
import http.client
import threading
import time
from collections.abc import Callable

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.shared.load_requests import KINDS, SENDERS, fault_of, make_request

_PAUSE_SECONDS = 0.02  # of a client between requests
_PROBE_SECONDS = 0.02  # between probes
_PROBE_TIMEOUT_SECONDS = 10.0


@dataclasses.dataclass
class LoadResult:
    """What clients were answered.

    Attributes:
        codes: number of replies, by kind of request and code.
        lengths: number of right answers, by length of the class embeddings.
        versions: the versions that answered, as far as answers say it (gRPC).
        wrong: number of replies that are wrong.
        examples: what is wrong with the first of these.
    """

    codes: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    lengths: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    versions: set[int] = dataclasses.field(default_factory=set)
    wrong: int = 0
    examples: list[str] = dataclasses.field(default_factory=list)

    def add(self, other: "LoadResult") -> None:
        self.codes += other.codes
        self.lengths += other.lengths
        self.versions |= other.versions
        self.wrong += other.wrong
        self.examples = [*self.examples, *other.examples][:10]


class LoadClients:
    """Clients that send random requests at the same time; half of these are good.

    Args:
        transport: "gRPC" or "REST".
        server: address of gRPC, and port of HTTP.
        clients: number of clients.
    """

    def __init__(self, transport: str, server: tuple[str, int], clients: int):
        self._transport, self._server, self._clients = transport, server, clients

    def run(self, seconds: float) -> LoadResult:
        """Sends requests for so long."""
        total = LoadResult()
        end = time.monotonic() + seconds
        with concurrent.futures.ThreadPoolExecutor(self._clients) as threads:
            for result in threads.map(lambda seed: self._one(seed, end), range(self._clients)):
                total.add(result)
        return total

    def _one(self, seed: int, end: float) -> LoadResult:
        random, result = np.random.default_rng(seed), LoadResult()
        bad = [kind for kind in KINDS if kind != "good"]
        sender = SENDERS[self._transport](self._server)
        while time.monotonic() < end:
            kind = "good" if random.random() < 0.5 else str(random.choice(bad))
            request = make_request(kind, random)
            reply = sender.send(request)
            result.codes[kind, reply.code] += 1
            fault = fault_of(request, reply)
            if fault:
                result.wrong += 1
                result.examples = [*result.examples, f"{kind}: {fault}"][:10]
            elif reply.code == "OK":
                result.lengths[request.class_embeddings.shape[1]] += 1
                result.versions |= {reply.version} - {None}
            time.sleep(_PAUSE_SECONDS)
        sender.close()
        return result


class HealthProbes:
    """Asks for the health of a server again and again, by gRPC and at `/healthz`.

    Each probe of `/healthz` makes its own connection, as those of Kubernetes do.

    Args:
        server: address of gRPC, and port of HTTP.
    """

    def __init__(self, server: tuple[str, int]):
        self._server = server
        self._seconds: dict[str, list[float]] = {"gRPC health": [], "/healthz": []}
        self._failures: list[str] = []
        self._stopped = threading.Event()
        channel = grpc.insecure_channel(server[0], [("grpc.enable_http_proxy", 0)])
        self._stub = health_pb2_grpc.HealthStub(channel)
        probes = {"gRPC health": self._ask_grpc, "/healthz": self._ask_http}
        self._threads = [
            threading.Thread(target=self._probe, args=item, daemon=True) for item in probes.items()
        ]

    def start(self) -> None:
        """Starts to ask."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> tuple[dict[str, list[float]], list[str]]:
        """Returns the seconds of each answer, by probe, and what went wrong."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()
        return self._seconds, self._failures

    def _probe(self, name: str, ask: Callable[[], object]) -> None:
        while not self._stopped.wait(_PROBE_SECONDS):
            start = time.perf_counter()
            try:
                found = ask()
            except (grpc.RpcError, OSError, http.client.HTTPException) as error:
                found = repr(error)
            self._seconds[name].append(time.perf_counter() - start)
            if found != "healthy":
                self._failures.append(f"{name}: {found}")

    def _ask_grpc(self) -> str:
        request = health_pb2.HealthCheckRequest()
        status = self._stub.Check(request, timeout=_PROBE_TIMEOUT_SECONDS).status
        serving = status == health_pb2.HealthCheckResponse.SERVING
        return "healthy" if serving else f"status {status}"

    def _ask_http(self) -> str:
        connection = http.client.HTTPConnection(
            "127.0.0.1", self._server[1], timeout=_PROBE_TIMEOUT_SECONDS
        )
        try:
            connection.request("GET", "/healthz")
            response = connection.getresponse()
            text = response.read()
        finally:
            connection.close()
        return "healthy" if (response.status, text) == (200, b"ok\n") else f"{response.status}"
