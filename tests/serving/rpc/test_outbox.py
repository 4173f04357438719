"""Answers that clients read slowly or not at all, and health that they can't hold up."""

import asyncio
import types

import pytest
from grpc_health.v1 import health_pb2

from serving.rpc import outbox
from serving.rpc.health import HealthServicer
from serving.rpc.outbox import Outbox
from serving.rpc.status import RequestError

pytestmark = pytest.mark.unit
MB = 2**20


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    for name, value in {"PAUSE_SECONDS": 0.2, "_TICK_SECONDS": 0.02, "_SLOW_SECONDS": 0.1}.items():
        monkeypatch.setattr(outbox, name, value)


def test_who_does_not_read_is_cut_off_and_who_reads_is_not():
    async def scenario():
        box, cut, read = Outbox(10 * MB), [], [0]
        box.add(MB, lambda: 7, lambda: cut.append("still"))
        slow = box.add(MB, lambda: read[0], lambda: cut.append("slow"))
        assert box.add(100, lambda: 7, lambda: cut.append("small")) is None
        assert box.bytes == 2 * MB
        for _ in range(10):
            await asyncio.sleep(0.05)
            read[0] += 1
        assert cut == ["still"] and box.bytes == MB
        box.remove(slow)
        box.remove(None)
        assert box.bytes == 0

    asyncio.run(scenario())


def test_for_others_the_slowest_is_cut_off(monkeypatch):
    monkeypatch.setattr(outbox, "PAUSE_SECONDS", 60.0)

    async def scenario():
        box, cut, read = Outbox(10 * MB), [], [0]
        box.add(4 * MB, lambda: 0, lambda: cut.append("still"))
        box.add(4 * MB, lambda: read[0], lambda: cut.append("fast"))
        with pytest.raises(RequestError, match="--max-requests-mb"):
            box.add(4 * MB, lambda: 0, lambda: None)  # both are new
        await asyncio.sleep(0.15)
        read[0] = 3 * MB
        assert box.add(4 * MB, lambda: 0, lambda: None) is not None
        assert cut == ["still"] and box.bytes == 8 * MB
        with pytest.raises(RequestError):
            box.add(4 * MB, lambda: 0, lambda: None)
        box.stop()

    asyncio.run(scenario())


def test_a_watcher_that_does_not_read_holds_up_no_other():
    async def scenario():
        health, seen = HealthServicer(("", "tagging")), []

        async def never(_):
            await asyncio.Event().wait()

        async def write(answer):
            seen.append(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))

        request = health_pb2.HealthCheckRequest(service="tagging")
        stuck = asyncio.ensure_future(health.Watch(request, types.SimpleNamespace(write=never)))
        watcher = asyncio.ensure_future(health.Watch(request, types.SimpleNamespace(write=write)))
        await asyncio.sleep(0)
        health.set_serving()
        await asyncio.sleep(0)
        assert (await health.Check(request, None)).status == health_pb2.HealthCheckResponse.SERVING
        health.stop()
        await asyncio.wait_for(watcher, 10)  # ends, so that the server need not wait for it
        health.set_serving()
        assert seen == ["NOT_SERVING", "SERVING", "NOT_SERVING"]
        stuck.cancel()

    asyncio.run(scenario())
