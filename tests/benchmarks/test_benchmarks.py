"""Benchmarks at their smallest sizes give equal results and write their tables."""

import pathlib
import subprocess
import sys

import pytest
from plots import assert_picture
from unchecked_export import unchecked

from benchmarks import all as all_benchmarks
from benchmarks import cold_start, growth, loss, scale, training_step
from benchmarks.shared.benchmark_command import read_tables, write_tables
from benchmarks.shared.timing import in_own_process, in_turns, ratios
from biam_tf.errors import UserError
from training.tables.table import Table


@pytest.mark.slow
@pytest.mark.parametrize("benchmark", [training_step, loss])
def test_ours_and_the_rival_in_pytorch_agree(benchmark, capsys):
    pytest.importorskip("torch", reason="the rival is PyTorch (the extra [benchmarks])")
    assert benchmark.main(["--smoke"]) == 0
    assert "| ours |" in capsys.readouterr().out


def test_the_rival_is_the_released_code(test_data):
    pytest.importorskip("torch", reason="the rival is PyTorch (the extra [benchmarks])")
    from benchmarks.shared.torch_rival import check

    found = check(test_data / "golden")
    assert len(found) == 5 and max(found.values()) < 1e-5, found


@pytest.mark.slow
def test_ways_of_extraction_agree():
    # A process of its own: it sets TensorFlow's threads, which can be done once.
    command = [sys.executable, "-m", "benchmarks.extraction", "--smoke"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "| TensorFlow, folded |" in done.stdout


@pytest.mark.slow
def test_a_cold_start_is_measured(capsys):
    with unchecked():  # the benchmark's model has random weights
        assert cold_start.main(["--smoke"]) == 0
    assert "| first request |" in capsys.readouterr().out


@pytest.mark.slow
def test_growth_is_measured_and_drawn(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    assert growth.main(["--smoke", "--plot", str(tmp_path / "growth.png")]) == 0
    assert "| step: classes | 20, 40 |" in capsys.readouterr().out
    assert_picture(tmp_path / "growth.png")


def test_a_bottleneck_is_the_slowest_of_what_goes_on_side_by_side():
    head = scale.Head(operations=1e9, first_operations=0.4e9, parameters=10**6)
    rates = scale.Rates(gpu_tflops=10, utilization=0.5, launch=0.0, storage=1e3)
    step = scale.step_on(8, head, rates)
    assert step.products == pytest.approx(32 * 2.6e9 / 5e12)  # three times, less the first's input
    assert step.gradients == pytest.approx(2 * 7 / 8 * 4e6 / 200e9)
    assert step.bottleneck == "products" and step.seconds == step.products + step.gradients
    slow = scale.step_on(8, head, scale.Rates(storage=0.1))
    assert slow.bottleneck == "reading features"
    assert slow.seconds == pytest.approx(8 * 32 * scale.FEATURE_BYTES / 1e8)


def test_turns_and_ratios():
    calls = []
    seconds = in_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2)
    assert calls == ["a", "b"] * 3 and [len(each) for each in seconds.values()] == [2, 2]
    assert ratios([2.0, 8.0, 3.0], [1.0, 2.0, 2.0]) == "2.00 (1.50-4.00)"


def test_a_process_that_fails_is_quoted():
    with pytest.raises(UserError, match="status 2"):
        in_own_process("benchmarks.loss", ["--side", "nobody"])


def test_tables_are_put_between_the_lines_that_name_them(tmp_path, monkeypatch, capsys):
    tables = [Table("Seconds", ("a", "b"), [("1", "2")], "A note.")]
    write_tables(tmp_path / "tables.json", tables)
    assert [table.markdown() for table in read_tables(tmp_path / "tables.json")] == [
        "**Seconds**\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\nA note.\n"
    ]
    document = tmp_path / "performance.md"
    document.write_text(
        "before\n<!-- python -m benchmarks.loss -->\nold\n<!-- end of loss -->\nafter"
    )
    monkeypatch.setattr(all_benchmarks, "DOCS", tmp_path)

    def run(command, **_):
        write_tables(pathlib.Path(command[command.index("--output") + 1]), tables)
        return type("Done", (), {"returncode": 0})

    monkeypatch.setattr(all_benchmarks.subprocess, "run", run)
    assert all_benchmarks.main(["--only", "loss", "--smoke"]) == 0
    assert "old" in document.read_text()
    assert all_benchmarks.main(["--only", "loss"]) == 0
    lines = document.read_text().splitlines()
    assert "old" not in lines and "| 1 | 2 |" in lines
    assert (lines[0], lines[-1]) == ("before", "after")
    assert all_benchmarks.main(["--only", "growth"]) == 2
    assert "the lines <!-- python -m benchmarks.growth -->" in capsys.readouterr().err


def test_the_documents_have_a_place_for_every_benchmark():
    for name, document in all_benchmarks.DOCUMENTS.items():
        assert f"<!-- end of {name} -->" in (all_benchmarks.DOCS / document).read_text()
        assert (pathlib.Path(all_benchmarks.__file__).parent / f"{name}.py").exists()
