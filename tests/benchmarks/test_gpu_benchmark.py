"""What `benchmarks.gpu` says of what was measured and of what could not be run.

`.ci/run` runs its smoke version.
"""

import subprocess

import pytest

from benchmarks import gpu
from benchmarks.shared import timing
from benchmarks.shared.gpu_process import seconds_of
from biam_tf.errors import UserError

pytestmark = pytest.mark.unit

OURS = {
    "device": "H1",
    "forward": 0.004,
    "loss": 0.001,
    "step": 0.01,
    "forward operations": 2e12,
    "forward bytes": 1e9,
    "step operations": 1e12,
    "step bytes": 8e9,
    "operations per second": 1e15,
    "bytes per second": 1e12,
}


@pytest.fixture
def processes(monkeypatch):
    """Answers in place of processes, by side; returns the sides and limits that were asked for."""
    asked, answers = [], {}

    def run(module, arguments, seconds, keras_backend):
        side = arguments[1]
        asked.append((side, seconds, keras_backend))
        answer = answers[side]
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(gpu, "in_own_process", run)
    return asked, answers


def test_times_are_compared_and_held_against_the_floor(processes):
    asked, answers = processes
    answers |= {gpu.OURS: OURS, "trainer": {"unusable": "TensorFlow sees no GPU"}}
    answers[gpu.RELEASED] = {"device": "H1", "forward": 0.008, "loss": 0.002, "step": 0.05}
    compared, floors, trainer = gpu.measure(smoke=False)
    assert compared.title.endswith("on H1") and len(compared.rows) == 4 * 2 * 3
    title = "925 classes, 32 photos, float32"
    assert (f"step, {title}", "50 ms", "10 ms", "5.00") in compared.rows
    # Of forward 2 ms by its operations, of a step 8 ms by its bytes.
    assert floors.rows[0] == (
        f"forward, {title}", "2e+03 GFLOP", "1 GB", "2 ms", "4 ms", "2.00",
    )  # fmt: skip
    assert floors.rows[1][3:] == ("8 ms", "10 ms", "1.25")
    assert trainer.rows == [] and trainer.note == "Not run: trainer: TensorFlow sees no GPU."
    assert {backend for _, _, backend in asked} == {"jax", "torch", "tensorflow"}
    assert all(0 < seconds <= 480 for _, seconds, _ in asked)
    assert sum(side == "trainer" for side, _, _ in asked) == 1  # what is unusable is asked once


def test_what_fails_or_comes_too_late_is_said(processes, monkeypatch):
    _, answers = processes
    died = UserError("python -m x: ended by SIGSEGV:\nsome last words")
    answers |= {gpu.RELEASED: died, gpu.OURS: OURS, "trainer": {"failed": "does not fit"}}
    *_, trainer = gpu.measure(smoke=True)
    assert "released, PyTorch, 50 classes, 2 photos, float32: python -m x: ended by" in trainer.note
    assert "trainer, default: does not fit" in trainer.note
    monkeypatch.setattr(gpu, "LIMIT_SECONDS", 5)
    with pytest.raises(UserError, match=r"nothing could .*: the eight minutes were over"):
        gpu.measure(smoke=True)


@pytest.mark.integration
def test_a_child_that_ends_by_a_signal_is_named(monkeypatch):
    killing = ["python", "-c", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"]
    real = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda command, **how: real(killing, **how))
    with pytest.raises(UserError, match=r"-m benchmarks\.gpu: ended by SIGSEGV"):
        timing.in_own_process("benchmarks.gpu", [])
    assert timing.ending(3) == "exit status 3" and timing.ending(-9) == "ended by SIGKILL"


@pytest.mark.integration
def test_a_process_that_serves_an_object_and_is_killed_is_named():
    with pytest.raises(UserError, match="the process of kill_itself: ended by SIGKILL"):
        with timing.RemoteObject(kill_itself):
            pass


def kill_itself():
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)


def test_calls_are_repeated_until_they_take_the_time_asked_for(monkeypatch):
    clock, started = [0.0], []
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])

    def run():
        started.append(len(started))
        return len(started)

    def wait(result):
        # 10 ms for each call since the last wait.
        clock[0] += 0.01 * (result - wait.seen)
        wait.seen = result

    wait.seen = 0
    assert seconds_of(run, wait, 0.5) == pytest.approx(0.01)
    assert len(started) >= 50
