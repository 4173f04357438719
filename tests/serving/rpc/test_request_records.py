"""The log of requests, and traces that reach a collector."""

import asyncio
import gzip
import http.server
import json
import re
import threading
import time

import grpc
import pytest

from serving.rpc.answering import Answering
from serving.rpc.calls import Call
from serving.rpc.metrics_page import Metrics
from serving.rpc.request_records import RequestRecords

pytestmark = pytest.mark.integration

TRACE = "0af7651916cd43dd8448eb211c80319c"


def ended() -> Call:
    call = Call("Predict", {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}, signature="tag")
    call.photos, call.started, call.ended = 2, call.received + 0.1, call.received + 0.3
    return call


def test_a_line_per_request(tmp_path):
    records, call = RequestRecords(tmp_path / "log"), ended()
    records.write(call, grpc.StatusCode.OK)
    records.close()
    (line,) = map(json.loads, (tmp_path / "log").read_text().splitlines())
    assert line["id"] == call.id and line["code"] == "OK" and line["photos"] == 2
    assert (line["queue_ms"], line["run_ms"]) == (100.0, 200.0)


def test_the_event_loop_s_own_work_is_no_waiting(tmp_path):
    records, metrics = RequestRecords(tmp_path / "log"), Metrics()
    answering, call = Answering(1, 1, metrics, records), Call("GetModelStatus")
    assert asyncio.run(answering.answer(call, lambda: time.sleep(0.05) or "done", False)) == "done"
    assert answering.stop()
    records.close()
    (line,) = map(json.loads, (tmp_path / "log").read_text().splitlines())
    assert line["run_ms"] >= 50 and line["queue_ms"] < 25
    assert call.worked >= 0.05 and call.waited < 0.025
    page = metrics.page().decode()
    (seconds,) = re.findall(r'biam_request_seconds_sum\{method="GetModelStatus".*\} (\S+)', page)
    assert float(seconds) == pytest.approx(call.worked)


def test_work_that_never_began_waited_only():
    call = Call("Predict")
    call.ended = call.received + 0.2
    assert (round(call.waited, 3), call.worked) == (0.2, None)


def test_spans_of_the_clients_trace_reach_a_collector(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):  # does not lead to this machine
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

    bodies = []

    class Collector(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            bodies.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

    with http.server.HTTPServer(("127.0.0.1", 0), Collector) as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        records = RequestRecords(traces=f"http://127.0.0.1:{collector.server_port}/v1/traces")
        records.write(ended(), grpc.StatusCode.OK)
        records.close()
        collector.shutdown()
    (body,) = (gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body for body in bodies)
    found = trace_service_pb2.ExportTraceServiceRequest.FromString(body)
    spans = found.resource_spans[0].scope_spans[0].spans
    seconds = {
        s.name: round((s.end_time_unix_nano - s.start_time_unix_nano) / 1e9, 3) for s in spans
    }
    assert seconds == {"queue": 0.1, "run": 0.2, "Predict": 0.3}
    assert {span.trace_id.hex() for span in spans} == {TRACE}
