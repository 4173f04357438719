"""How requests are answered, whether they come over gRPC or HTTP: queue, codes, records.

The event loop of the server only receives and sends. The work of a request runs in a thread of a
pool; a request that waits for one is in the queue, whose length is bounded.
"""

import asyncio
import concurrent.futures
import functools
import logging
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import grpc

from serving.rpc.calls import Call
from serving.rpc.metrics_page import Metrics
from serving.rpc.request_records import RequestRecords
from serving.rpc.status import RequestError

_LOG = logging.getLogger(__name__)

Result = TypeVar("Result")


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
        self._reader = concurrent.futures.ThreadPoolExecutor(1, "reader")
        self._limit = limit
        self._metrics = metrics
        self._records = records
        self._open: dict[concurrent.futures.Future, Call] = {}
        self._lock = threading.Lock()

    async def answer(
        self,
        call: Call,
        work: Callable[..., Result],
        in_thread: bool,
        read: Callable[[], Any] | None = None,
    ) -> Result:
        """Returns what `work` returns.

        Args:
            call: the request.
            work: called in a thread of the pool or, if it is short, in the event loop.
            in_thread: which of the two.
            read: called before, for a large request, in the one thread that reads these; `work`
                takes what it returns.

        Raises:
            RequestError: the work raised it, or another exception (INTERNAL), or the queue is full.
        """
        code = grpc.StatusCode.OK
        try:
            if read is not None:
                work = functools.partial(work, await self._queued(self._reader, call, read))
            if in_thread:
                return await self._queued(self._pool, call, work)
            call.started = time.time()
            return work()
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
            self.record(call, code)

    def record(self, call: Call, code: grpc.StatusCode) -> None:
        """Counts and logs a request that has ended."""
        call.ended = time.time()
        self._metrics.observe(call, code)
        self._records.write(call, code)

    def stop(self) -> bool:
        """Ends the work at its next step; returns whether it all has ended."""
        with self._lock:
            calls = [*self._open.values()]
        for call in calls:
            call.give_up()
        for pool in (self._reader, self._pool):
            pool.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            return not self._open

    async def _queued(
        self, pool: concurrent.futures.Executor, call: Call, work: Callable[[], Result]
    ) -> Result:
        with self._lock:
            if len(self._open) >= self._limit:
                raise RequestError(
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    f"{self._limit} requests are worked on or waiting already; try again later",
                )
            try:
                future = pool.submit(self._work, call, work)
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
        call.started = call.started or time.time()
        self._measure()
        return work()

    def _close(self, future: concurrent.futures.Future) -> None:
        with self._lock:
            self._open.pop(future, None)
        self._measure()

    def _measure(self) -> None:
        with self._lock:
            calls = [*self._open.values()]
        waiting = sum(call.started is None for call in calls)
        self._metrics.set_load(waiting, len(calls) - waiting)
