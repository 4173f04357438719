"""A server's versions that come and go, and its way out."""

import concurrent.futures
import os
import re
import threading
import time

import grpc
import numpy as np
import pytest
import tensorflow as tf
from grpc_health.v1 import health_pb2
from prediction_requests import CLASSES, PHOTOS, good, health, predictor, refusal, status
from tensorflow_serving.apis import (
    get_model_status_pb2,
)
from tiny_model import (
    LONGEST_WAIT_SECONDS,
    Gate,
    expected_scores,
    write_tiny_model,
)
from tiny_server import ready, resident_bytes, started, wait_for
from warm_processes import WarmProcess

from biam_tf.errors import UserError
from serving import server as server_command
from serving.server import ServerSettings


def test_until_a_version_is_loaded_it_is_unavailable(tmp_path):
    server = started(tmp_path)
    with grpc.insecure_channel(server.address) as channel:
        predict = predictor(channel)
        code, details = refusal(predict)
        assert code == grpc.StatusCode.UNAVAILABLE and "loaded yet" in details
        assert refusal(predict, model="another")[0] == grpc.StatusCode.NOT_FOUND
        assert health(channel) == health_pb2.HealthCheckResponse.NOT_SERVING
        write_tiny_model(tmp_path, 1)
        ready(server)
        assert predict().model_spec.version.value == 1
        wait_for(lambda: health(channel) == health_pb2.HealthCheckResponse.SERVING)
    server.stop()


def test_a_broken_version_is_passed_over_until_it_is_mended(tmp_path, caplog):
    write_tiny_model(tmp_path, 1)
    server = ready(started(tmp_path))
    end = get_model_status_pb2.ModelVersionStatus.END
    with grpc.insecure_channel(server.address) as channel:
        predict = predictor(channel)
        (tmp_path / "2").mkdir()
        (tmp_path / "2" / "saved_model.pb").write_bytes(b"half a model")
        wait_for(lambda: 2 in status(channel) and status(channel)[2].state == end)
        assert status(channel)[2].status.error_message
        assert "version 2 is skipped" in caplog.text
        assert predict().model_spec.version.value == 1
        write_tiny_model(tmp_path, 3)
        wait_for(lambda: server.versions.current.number == 3)
        for file in (tmp_path / "3").rglob("*"):
            os.utime(file)
        (tmp_path / "3").rename(tmp_path / ".gone")
        wait_for(lambda: server.versions.current.number == 1)  # taken back, as by TF Serving
        (tmp_path / "2" / "saved_model.pb").unlink()
        (tmp_path / "2").rmdir()
        write_tiny_model(tmp_path, 2)
        wait_for(lambda: server.versions.current.number == 2)
    server.stop()


def test_requests_that_run_during_a_reload_finish_on_their_version(tmp_path):
    write_tiny_model(tmp_path, 1)
    server = ready(started(tmp_path))
    gate = Gate(tmp_path / "gate")
    with (
        grpc.insecure_channel(server.address) as channel,
        concurrent.futures.ThreadPoolExecutor(1) as pool,
    ):
        predict = predictor(channel)
        running = pool.submit(predict, "", good([gate.photo]))
        wait_for(gate.reached)
        write_tiny_model(tmp_path, 2, bias=100.0)
        wait_for(lambda: server.versions.current.number == 2)
        assert not running.done()
        np.testing.assert_allclose(
            tf.make_ndarray(predict().outputs["scores"]), expected_scores(PHOTOS, CLASSES, 100.0)
        )
        gate.open()
        assert running.result().model_spec.version.value == 1
    server.stop()


@pytest.mark.slow
def test_reloads_under_load_fail_no_request_and_leave_the_memory_flat(tmp_path):
    reloads = 6  # python -m benchmarks.reload makes 20 of a real export
    write_tiny_model(tmp_path, 1, bias=1.0)
    server = ready(started(tmp_path, poll_seconds=0.02))
    stop, memory = threading.Event(), []

    def ask():
        with grpc.insecure_channel(server.address) as channel:
            predict, seen = predictor(channel), set()
            while not stop.is_set():
                response = predict()
                version = response.model_spec.version.value
                scores = tf.make_ndarray(response.outputs["scores"])
                np.testing.assert_allclose(scores, expected_scores(PHOTOS, CLASSES, version))
                seen.add(version)
                time.sleep(0.005)
            return seen

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(ask) for _ in range(4)]
        try:
            for version in range(2, 2 + reloads):
                write_tiny_model(tmp_path, version, bias=float(version))
                wait_for(lambda version=version: server.versions.current.number == version)
                memory.append(resident_bytes())
        finally:
            stop.set()
        seen = set().union(*(client.result() for client in clients))
    server.stop()
    assert {1, reloads} < seen  # answers were compared with those of their version
    assert memory[-1] - memory[1] < 30e6


def serve(model_dir, *options):
    """The server as a process, and its address when it listens."""
    process = WarmProcess("serving.server", [model_dir, "--port", "0", *options])
    wait_for(lambda: said(process, " on 127.0.0.1:") or process.returncode is not None)
    return process, re.search(r"127\.0\.0\.1:\d+", said(process, " on 127.0.0.1:"))[0]


def said(process, text):
    """The line of its standard error with a text, if there is one by now."""
    return next((line for line in process.errors if text in line), "")


@pytest.mark.slow
def test_sigterm_lets_running_requests_finish(model_dir, tmp_path):
    process, address = serve(model_dir)
    gate = Gate(tmp_path / "gate")
    with (
        grpc.insecure_channel(address) as channel,
        concurrent.futures.ThreadPoolExecutor(1) as pool,
    ):
        predict = predictor(channel)
        serving = health_pb2.HealthCheckResponse.SERVING
        wait_for(lambda: health(channel) == serving)
        running = pool.submit(predict, "", good([gate.photo]))
        wait_for(gate.reached)
        process.terminate()
        wait_for(lambda: said(process, "stopping"))
        assert refusal(predict)[0] == grpc.StatusCode.UNAVAILABLE
        assert not running.done()
        gate.open()
        scores = tf.make_ndarray(running.result().outputs["scores"])
        np.testing.assert_allclose(scores, expected_scores([gate.photo], CLASSES))
    process.communicate()
    assert process.returncode == 0


@pytest.mark.slow
def test_draining_ends_in_the_time_given(model_dir, tmp_path):
    process, address = serve(model_dir, "--drain-seconds", "1")
    gate = Gate(tmp_path / "gate")
    with (
        grpc.insecure_channel(address) as channel,
        concurrent.futures.ThreadPoolExecutor(1) as pool,
    ):
        predict = predictor(channel)
        wait_for(lambda: health(channel) == health_pb2.HealthCheckResponse.SERVING)
        running = pool.submit(refusal, predict, "", good([gate.photo]))
        wait_for(gate.reached)
        process.terminate()
        began = time.monotonic()
        _, errors = process.communicate()
        assert "cut off" in errors and process.returncode == 0
        assert time.monotonic() - began < LONGEST_WAIT_SECONDS
        assert running.result()[0] == grpc.StatusCode.UNAVAILABLE


def test_mistakes_of_the_command_line_are_told(tmp_path, model_dir, server, capsys):
    def message(*arguments):
        assert server_command.main([str(argument) for argument in arguments]) == 2
        return capsys.readouterr().err

    assert "no such folder" in message(tmp_path / "missing")
    assert f"name the folder it is in: {model_dir}" in message(model_dir / "3")
    assert "use at least 1" in message(model_dir, "--threads", 0)
    assert "give both" in message(model_dir, "--tls-key", "key.pem")
    assert "is another server there" in message(model_dir, "--port", server.port)
    metrics = [model_dir, "--port", 0, "--metrics-port", server.metrics_port]
    assert "--metrics-port" in message(*metrics)


def test_settings_are_checked():
    with pytest.raises(UserError, match="2047"):
        ServerSettings(max_message_mb=4096)
