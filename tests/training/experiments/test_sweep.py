"""Sweeps over settings: what is trained, what is taken as it is, and what is said in the end."""

import csv
import json

import numpy as np
import pytest
from plots import assert_drawn, assert_labels_apart, assert_picture
from tiny_run import TINY

from biam_tf.errors import UserError
from training import sweep
from training.experiments import trials
from training.experiments.grid import parse_grid
from training.experiments.sweep_report import draw_plot, ranked, table
from training.experiments.trials import Outcome, Trial


@pytest.fixture
def command(scenes):
    """Returns a function that runs the command in this process."""

    def command(output, *arguments) -> int:
        settings = [*TINY, f"data.directory={scenes}", "data.name=folder", "training.epochs=1"]
        options = [text for setting in settings for text in ("--set", setting)]
        return sweep.main([*options, "--output", str(output), *arguments])

    return command


def stands_in(config):
    """Figures without a training: validation is best at k = 2, the test at k = 3."""
    if config.head.settings.top_k == 99:
        raise UserError("head: k=99 is larger than the regions")
    k, seed = config.head.settings.top_k, config.training.seed
    f1 = {"f1": k / 10, "precision": 0, "recall": 0}
    part = {"mAP": k / 10, "F1@3": f1, "F1@5": f1}
    return {"zsl": part, "gzsl": part, "seed": seed}


@pytest.fixture
def trained(monkeypatch):
    """Stands in for training; the configurations that were asked for, in order."""
    configs = []

    def run(config):
        configs.append(config)
        return stands_in(config)

    def validation(folder):
        k = configs[-1].head.settings.top_k
        return {"seen": 50.0 - abs(k - 2) + configs[-1].training.seed, "gzsl": 40.0 + k}

    monkeypatch.setattr(trials, "run", run)
    monkeypatch.setattr(trials, "best_validation", validation)
    return configs


def rows_of(output) -> list[dict]:
    with (output / "sweep.csv").open() as file:
        return list(csv.DictReader(file))


def modified(run) -> dict:
    return {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_sweep_trains_resumes_and_grows(command, tmp_path, capsys, saved_figures):
    output = tmp_path / "sweep"
    assert command(output, "--grid", "head.top_k=2") == 0
    run = output / "head.top_k-2-0"
    (row,) = rows_of(output)
    figures = json.loads((run / "metrics.json").read_text())
    assert float(row["test GZSL mAP"]) == pytest.approx(100 * figures["gzsl"]["mAP"], abs=1e-3)
    best = json.loads((run / "log.jsonl").read_text().splitlines()[-1])["validation"]["seen"]
    assert float(row["validation seen mAP"]) == pytest.approx(100 * best, abs=1e-3)
    assert_picture(output / "sweep.png")
    assert_drawn(saved_figures[0], 2, 100 * best)
    assert "Best on validation: --set head.top_k=2" in capsys.readouterr().out

    before = modified(run)
    assert command(output, "--grid", "head.top_k=400,2") == 1  # 144 regions
    printed = capsys.readouterr().out
    assert printed.count("is complete already") == 1
    assert before == modified(run)
    assert "Failed: top_k 400: head: " in (output / "sweep.md").read_text()
    assert [row["head.top_k"] for row in rows_of(output)] == ["2", "400"]


def test_every_setting_is_trained_with_every_seed(command, trained, tmp_path):
    grid = ["--grid", "head.top_k=1,2", "--grid", "training.epochs=1,2"]
    assert command(tmp_path, *grid, "--seeds", "2", "--set", "training.seed=5") == 0
    assert [(c.head.settings.top_k, c.training.epochs, c.training.seed) for c in trained] == [
        (k, e, s) for k in (1, 2) for e in (1, 2) for s in (5, 6)
    ]
    assert len({config.output for config in trained}) == 8
    assert [row["seed"] for row in rows_of(tmp_path)] == ["5", "6"] * 4


def test_validation_alone_chooses(command, trained, tmp_path, capsys):
    assert command(tmp_path, "--grid", "head.top_k=1,2,3", "--seeds", "2") == 0
    assert "Best on validation: --set head.top_k=2" in capsys.readouterr().out
    text = (tmp_path / "sweep.md").read_text()
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| ")]
    assert [row[1].strip() for row in rows[1:]] == ["2", "1", "3"]  # the test is best at 3
    # Seeds 0 and 1 give 50 and 51 at k = 2: mean 50.5, standard deviation sqrt(1/2).
    assert rows[1][2].strip() == "2" and rows[1][3].strip() == "50.5 ± 0.7"
    assert rows[1][6].strip() == "20.0 ± 0.0"
    assert "test figures are shown but must not be used to choose" in text


def test_another_validation_figure_may_choose(command, trained, tmp_path, capsys):
    assert command(tmp_path, "--grid", "head.top_k=1,2,3", "--sort-by", "gzsl_mAP") == 0
    assert "Best on validation: --set head.top_k=3" in capsys.readouterr().out


def test_a_setting_that_fails_is_reported_and_the_others_go_on(command, trained, tmp_path):
    assert command(tmp_path, "--grid", "head.top_k=1,99,2") == 1
    assert len(trained) == 3
    text = (tmp_path / "sweep.md").read_text()
    assert "Failed: top_k 99: head: k=99 is larger than the regions" in text
    assert text.index("| 99 | 0 | failed |") > text.index("| 1 | 1 |")
    assert rows_of(tmp_path)[-1]["error"] == "head: k=99 is larger than the regions"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--grid", "head.topk=1,2"], "did you mean 'top_k'"),
        (["--grid", "head.top_k=1", "--grid", "trainin.epochs=1"], "did you mean 'training'"),
        (["--grid", "head.top_k=one,two"], "head.top_k"),
        (["--grid", "head.top_k=1", "--seeds", "0"], "--seeds 0"),
        (["--grid", "head.top_k=1", "--set", "output=elsewhere"], "below --output"),
        (["--grid", "head.top_k=1", "--set", "strategy=multi_worker"], "in one process"),
    ],
)
def test_what_no_run_could_use_is_refused_before_any_work(
    command, trained, tmp_path, capsys, arguments, message
):
    assert command(tmp_path / "sweep", *arguments) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert not trained and not (tmp_path / "sweep").exists()


def test_a_folder_of_another_sweep_is_refused_before_any_work(command, trained, tmp_path, capsys):
    taken = tmp_path / "head.top_k-2-0"
    taken.mkdir()
    (taken / "thesis.txt").write_text("years of work")
    assert command(tmp_path, "--grid", "head.top_k=1,2") == 2
    assert "is not the folder of a run" in capsys.readouterr().err and not trained


def test_without_matplotlib_there_is_a_table_and_a_word_about_the_plot(
    command, trained, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert command(tmp_path, "--grid", "head.top_k=1,2") == 0
    printed = capsys.readouterr().out
    assert printed.index("biam-tf[report]") < printed.index("=== 1/2")
    assert (tmp_path / "sweep.md").exists() and not (tmp_path / "sweep.png").exists()


def test_without_a_validation_split_nothing_is_chosen():
    figures = dict.fromkeys(trials.FIGURES, 10.0)
    outcomes = [Outcome(Trial(f"k {k}", f"k-{k}", (f"k={k}",)), 0, figures) for k in (2, 1)]
    settings = ranked(outcomes, "seen")
    assert [setting.trial.name for setting in settings] == ["k 2", "k 1"]
    assert "nothing can be chosen" in table(settings, parse_grid(["k=2,1"]), "seen")


@pytest.mark.parametrize(
    "grid",
    [
        ["a=1,2,4"],
        ["a=1e-4,1e-2"],
        ["a=0,1,2,3,4,500,501,502"],
        ["a=0.000125,0.00025,0.0005,0.001,0.002,0.004,0.008,0.016,0.032,0.064,0.128"],
        ["a=none,all"],
        ["a=1,2", "b=x,y"],
        ["a=1,2", "b=a long value of a setting,another long value"],
        ["a=1", "b=2", "c=3,4"],
    ],
)
def test_every_kind_of_grid_has_a_plot(grid, tmp_path, saved_figures):
    from training.experiments.grid import expand

    axes, figures = parse_grid(grid), dict.fromkeys(trials.FIGURES, 10.0)
    outcomes = [
        Outcome(trial, seed, figures, {"seen": 20.0 + seed})
        for trial in expand(axes)[1:]  # one of them is missing
        for seed in (0, 1)
    ]
    assert draw_plot(tmp_path / "plot.png", ranked(outcomes, "seen"), axes, "seen")
    assert_picture(tmp_path / "plot.png")
    assert_drawn(saved_figures[0], 20.5)  # the mean of two seeds
    assert_labels_apart(saved_figures[0])


def test_validation_is_that_of_the_epoch_that_was_kept(tmp_path):
    lines = [
        {"epoch": 1, "best_epoch": 1, "validation": {"seen": 0.1}},
        {"epoch": 2, "best_epoch": 2, "validation": {"seen": 0.3}},
        {"epoch": 3, "best_epoch": 2, "validation": {"seen": 0.2}},
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = trials.best_validation(trials.RunFolder(tmp_path))
    np.testing.assert_allclose(found["seen"], 30.0)


def test_early_runs_are_compared_by_the_classes_of_the_others():
    now, before = {"gzsl": 60.0, "seen": 70.0}, {"gzsl": 45.0, "seen": 70.0, "zsl": 20.0}
    counts = {"gzsl": (3, 4), "seen": (2, 2)}
    found = trials.of_one_kind([now, before], [counts, {}])
    assert found == [now, before | {"gzsl": pytest.approx(60.0)}]
    assert trials.of_one_kind([before, before], [{}, {}]) == [before, before]
    other = {"gzsl": (4, 4), "seen": (2, 2)}
    # It is unknown which photos the early run had.
    assert "gzsl" not in trials.of_one_kind([now, now, before], [counts, other, {}])[2]


def test_undefined_figures_are_a_dash_beside_the_number_of_classes():
    figures = dict.fromkeys(trials.FIGURES, 10.0) | {"ZSL mAP": float("nan")}
    classes = {("validation", "seen"): (3, 4), ("test", "zsl"): (0, 2), ("test", "gzsl"): (4, 6)}
    outcomes = [
        Outcome(Trial(f"k {k}", f"k-{k}", (f"k={k}",)), seed, figures, {"seen": k}, classes=classes)
        for k in (1.0, 2.0)
        for seed in (0, 1)
    ]
    text = table(ranked(outcomes, "seen"), parse_grid(["k=1.0,2.0"]), "seen")
    assert "nan" not in text and "| - |" in text
    assert "test GZSL 4 of 6, test ZSL 0 of 2, validation seen 3 of 4" in text
    # A figure that is undefined on the validation photos chooses nothing.
    text = table(ranked(outcomes, "zsl"), parse_grid(["k=1.0,2.0"]), "zsl")
    assert "ZSL mAP is undefined on the validation photos, and by it nothing can be chosen" in text
