"""How requests are answered, whether they come over gRPC or HTTP: queue, codes, records.

The event loop of the server only receives and sends. The work of a request runs in a thread of a
pool; a request that waits for one is in the queue, whose length is bounded.
"""

import asyncio
import concurrent.futures
import dataclasses
import logging
import re
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from typing import TypeVar

import grpc

from serving.rpc.metrics_page import Metrics
from serving.rpc.request_records import RequestRecords
from serving.rpc.status import RequestError

REQUEST_ID = "x-request-id"
_GIVEN_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")

_LOG = logging.getLogger(__name__)

Result = TypeVar("Result")


@dataclasses.dataclass
class Call:
    """A request while it is answered.

    Attributes:
        method: the gRPC method, or that of gRPC with the same effect.
        headers: metadata of gRPC or headers of HTTP, by lower-case name.
        deadline: when the client stops waiting, by `time.monotonic`; None for never.
        signature: name of the signature; "unknown" for one that the model lacks.
        photos: number of photos; None for a request without any.
        classes: number of classes; None for a request without any.
        id: the client's `x-request-id` if it is short and plain, else one of our own.
        received: when it was received, by `time.time`.
        started: when its work started; None before.
        ended: when it was answered; None before.
    """

    method: str
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    deadline: float | None = None
    signature: str = ""
    photos: int | None = None
    classes: int | None = None
    id: str = ""
    received: float = dataclasses.field(default_factory=time.time)
    started: float | None = None
    ended: float | None = None

    def __post_init__(self) -> None:
        self._given_up = threading.Event()
        given = self.headers.get(REQUEST_ID, "")
        self.id = given if _GIVEN_ID.fullmatch(given) else uuid.uuid4().hex[:16]

    def give_up(self) -> None:
        """Ends the work at its next step."""
        self._given_up.set()

    @property
    def is_late(self) -> bool:
        """Whether the deadline passed."""
        return self.deadline is not None and time.monotonic() >= self.deadline

    def check(self) -> None:
        """Ends the work if nobody waits for it.

        Raises:
            RequestError: DEADLINE_EXCEEDED or CANCELLED.
        """
        if self.is_late:
            raise RequestError(grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline passed")
        if self._given_up.is_set():
            raise RequestError(grpc.StatusCode.CANCELLED, "the client gave up")


class Answering:
    """Runs the work of requests in threads, bounded, measured and recorded.

    Args:
        threads: requests worked on at the same time.
        limit: largest number of requests worked on or waiting; more get RESOURCE_EXHAUSTED.
        metrics: counts and times the requests.
        records: the log of requests, and traces.
    """

    def __init__(self, threads: int, limit: int, metrics: Metrics, records: RequestRecords):
        self._pool = concurrent.futures.ThreadPoolExecutor(threads, "request")
        self._limit = limit
        self._metrics = metrics
        self._records = records
        self._open: dict[concurrent.futures.Future, Call] = {}
        self._lock = threading.Lock()

    async def answer(self, call: Call, work: Callable[[], Result], in_thread: bool) -> Result:
        """Returns what `work` returns.

        Args:
            call: the request.
            work: called in a thread of the pool or, if it is short, in the event loop.
            in_thread: which of the two.

        Raises:
            RequestError: the work raised it, or another exception (INTERNAL), or the queue is full.
        """
        code = grpc.StatusCode.OK
        try:
            return await self._queued(call, work) if in_thread else work()
        except RequestError as error:
            code = error.code
            raise
        except asyncio.CancelledError:
            late = call.is_late
            code = grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED
            raise
        except Exception as error:
            code = grpc.StatusCode.INTERNAL
            _LOG.exception("%s, request %s", call.method, call.id)
            raise RequestError(code, f"{type(error).__name__}: {error}") from error
        finally:
            call.ended = time.time()
            self._metrics.observe(call, code)
            self._records.write(call, code)

    def stop(self) -> bool:
        """Ends the work at its next step; returns whether it all has ended."""
        with self._lock:
            calls = [*self._open.values()]
        for call in calls:
            call.give_up()
        self._pool.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            return not self._open

    async def _queued(self, call: Call, work: Callable[[], Result]) -> Result:
        with self._lock:
            if len(self._open) >= self._limit:
                raise RequestError(
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    f"{self._limit} requests are worked on or waiting already; try again later",
                )
            try:
                future = self._pool.submit(self._work, call, work)
            except RuntimeError:  # the pool is shut down
                raise RequestError(grpc.StatusCode.UNAVAILABLE, "the server stops") from None
            self._open[future] = call
            self._measure()
        # Not when the client goes, but when the thread is free again.
        future.add_done_callback(self._close)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            call.give_up()
            raise

    def _work(self, call: Call, work: Callable[[], Result]) -> Result:
        call.check()
        call.started = time.time()
        self._measure()
        return work()

    def _close(self, future: concurrent.futures.Future) -> None:
        with self._lock:
            self._open.pop(future, None)
        self._measure()

    def _measure(self) -> None:
        calls = [*self._open.values()]
        waiting = sum(call.started is None for call in calls)
        self._metrics.set_load(waiting, len(calls) - waiting)
