"""Good and bad requests of many clients while versions change: no wrong code, score or health."""

import dataclasses

import numpy as np
import pytest
from tiny_server import ready, started, wait_for

from benchmarks.server_load import LIMITS
from benchmarks.shared.load_clients import HealthProbes, LoadClients
from benchmarks.shared.load_model import LENGTHS, FlippingVersions
from benchmarks.shared.load_requests import KINDS, Reply, fault_of, make_request

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def test_no_wrong_reply_under_load(tmp_path):
    with FlippingVersions(tmp_path, 0.5) as versions:
        server = ready(started(versions.model_dir, metrics_port=0, **LIMITS))
        address = (server.address, server.metrics_port)
        probes = HealthProbes(address)
        probes.start()
        for transport in ("gRPC", "REST"):
            replies = LoadClients(transport, address, 32).run(2.0)
            assert replies.wrong == 0, replies.examples
            assert {kind for kind, _ in replies.codes} == {*KINDS}
            assert replies.lengths.total() > 0
        wait_for(lambda: len(server.versions.states) > 2)
        health, failures = probes.stop()
        assert not failures and all(health.values())
        wait_for(lambda: not server._answering._open)
        assert server.stop()


def test_wrong_replies_are_seen():
    random = np.random.default_rng(0)
    good = make_request("good", random)
    length = good.class_embeddings.shape[1]
    right = Reply("OK", "", good.scores, version=LENGTHS.index(length))
    assert fault_of(good, right) == ""
    worse = good.scores.copy()
    worse[-1, -1] += 0.01
    for reply in (
        dataclasses.replace(right, scores=worse),
        dataclasses.replace(right, scores=good.scores[:, :0]),
        dataclasses.replace(right, version=1 - LENGTHS.index(length)),
        Reply("INTERNAL", "ValueError"),
        Reply("INVALID_ARGUMENT", f"class_embeddings: shape (1, 9); expected (any, {length})"),
    ):
        assert fault_of(good, reply), reply
    bad = make_request("too many classes", random)
    assert fault_of(bad, Reply("OK", "", good.scores)) == "code OK"
    assert fault_of(bad, Reply("INVALID_ARGUMENT", "another reason"))
