"""Profiles of training steps: `python -m training.run --profile N`."""

import contextlib
import gzip
import io
import json
import re

import pytest
from tensorflow.tsl.profiler.protobuf import xplane_pb2
from tiny_run import TINY

from training import run
from training.loop.profiler_trace import (
    OperationTime,
    format_table,
    operation_times,
    wait_shares,
)
from training.pipeline.run_folder import RunFolder


def command(scenes, output, *options) -> list[str]:
    settings = [*TINY, f"data.directory={scenes}", "data.name=folder", f"output={output}"]
    settings += ["training.epochs=1", "training.report=false"]
    return [*options, *(part for setting in settings for part in ("--set", setting))]


@pytest.fixture(scope="module")
def profiled(scenes, tmp_path_factory):
    """The `RunFolder` of a run that was profiled, and what it printed."""
    folder = RunFolder(tmp_path_factory.mktemp("runs") / "profiled")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert run.main(command(scenes, folder.path, "--profile", "2")) == 0
    return folder, printed.getvalue()


def add_line(plane, name: str, events: list[tuple[str, int, int]]) -> None:
    """Adds a thread with events (name, start, duration in microseconds) to a plane."""
    line = plane.lines.add(name=name)
    for event, start, duration in events:
        number = len(plane.event_metadata) + 1
        plane.event_metadata[number].name = event
        line.events.add(metadata_id=number, offset_ps=start * 10**6, duration_ps=duration * 10**6)


def test_an_operation_is_charged_for_its_own_time_on_its_own_device():
    space = xplane_pb2.XSpace()
    host = space.planes.add(name="/host:CPU")
    within = [("net/a:MatMul", 10, 20), ("net/deep:Mul", 15, 5), ("net/b:MatMul", 40, 10)]
    add_line(host, "tf_Compute", [("ExecutorState::Process", 0, 100), *within])
    add_line(host, "tf_Compute", [("loop:While", 0, 50), ("loop/c:MatMul", 0, 30)])
    add_line(host, "python", [("Iterator::Map", 0, 9), ("EagerExecute: f", 0, 9)])
    gpu = space.planes.add(name="/device:GPU:0")
    add_line(gpu, "Stream #7(compute)", [("volta_sgemm", 0, 40), ("volta_sgemm", 50, 40)])
    add_line(gpu, "TensorFlow Ops", [("MatMul", 0, 90)])  # the same again
    space.planes.add(name="Task Environment")

    # Of the CPU's 50 us, from the beginning of While on, and of the GPU's 90.
    assert wait_shares(space) == pytest.approx({"CPU": 0.0, "GPU:0": 10 / 90})
    times = operation_times(space)

    assert [(time.device, time.name, time.count) for time in times] == [
        ("GPU:0", "volta_sgemm", 2),
        ("CPU", "MatMul", 3),
        ("CPU", "While", 1),
        ("CPU", "Mul", 1),
    ]
    assert [time.seconds for time in times] == pytest.approx([80e-6, 55e-6, 20e-6, 5e-6])


def test_the_table_adds_up():
    times = [OperationTime("CPU", f"Op{i}", 1e-3 * (25 - i), 4) for i in range(25)]
    table = format_table(times, steps=2)
    assert table.startswith("CPU: 162.50 ms per step in 25 kinds of operations\n")
    assert "     12.500    7.7%           2.0  Op0\n" in table
    assert "      7.500    4.6%          10.0  5 other kinds\n" in table
    shares = [float(share) for share in re.findall(r"([\d.]+)%", table)]
    assert sum(shares) == pytest.approx(100, abs=1.5)


def test_a_run_keeps_and_prints_where_the_time_of_its_steps_went(profiled):
    folder, printed = profiled
    written = (folder.path / "profile.txt").read_text()
    assert written.startswith("2 training steps, after 3 that are skipped\n\nCPU: ")
    assert written in printed
    assert re.search(r"\nCPU had no operation to run for [\d.]+% of the time\n\Z", written)
    rows = re.findall(r"^ +([\d.]+) +([\d.]+)% +([\d.]+)  (\w+)$", written, flags=re.MULTILINE)
    counts = {name: float(count) for _, _, count, name in rows}
    assert any("Conv2DBackpropFilter" in name for name in counts)
    assert all(float(ms) >= 0 for ms, *_ in rows)
    assert len(list(folder.tensorboard.glob("plugins/profile/*/*.xplane.pb"))) == 1
    with gzip.open(folder.path / "trace.json.gz") as file:
        events = json.load(file)["traceEvents"]
    marked = [event["name"] for event in events if event["name"].startswith("train")]
    assert len(marked) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--profile", "0"), "--profile 0: use at least 1 step"),
        (("--profile", "3"), "--profile 3: the run has 5 steps, .* use at most 2"),
        (("--profile", "1", "--dry-run"), "--profile needs a run: leave out --dry-run"),
    ],
)
def test_what_cannot_be_profiled_is_refused_before_anything_is_written(
    scenes, tmp_path, capsys, options, message
):
    assert run.main(command(scenes, tmp_path / "run", *options)) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "run").exists()


def test_a_run_that_is_complete_has_no_step_to_profile(profiled, capsys):
    folder, _ = profiled
    assert run.main(["--config", str(folder.config), "--profile", "1"]) == 2
    assert "is complete and has no step left" in capsys.readouterr().err
