"""The learning-rate range test: its rates, its smoothing, its suggestion."""

import csv
import math

import numpy as np
import pytest
from plots import assert_drawn, assert_picture
from tiny_run import TINY

from training import lr_range
from training.experiments.rate_range import ExponentialRise, RangeTest, smooth, suggested_rate


@pytest.fixture
def command(scenes):
    """Returns a function that runs the command in this process."""

    def command(output, *arguments) -> int:
        settings = [*TINY, f"data.directory={scenes}", "data.name=folder", f"output={output}/run"]
        options = [text for setting in settings for text in ("--set", setting)]
        return lr_range.main([*options, "--output", str(output), *arguments])

    return command


def test_rates_rise_by_the_same_factor_from_the_first_to_the_last():
    schedule = ExponentialRise(1e-6, 1.0, 7)
    rates = [float(schedule(step)) for step in range(7)]
    np.testing.assert_allclose(rates, [10.0**power for power in range(-6, 1)], rtol=1e-5)


def test_smoothing_is_a_weighted_mean_of_what_was_seen():
    losses = [4.0, 2.0, 7.0]
    weights = [0.81, 0.9, 1.0]
    expected = sum(w * x for w, x in zip(weights, losses, strict=True)) / sum(weights)
    averages = smooth(losses)
    assert averages[0] == 4.0
    assert averages[2] == pytest.approx(expected, rel=1e-12)


def test_the_suggestion_is_the_rate_of_the_lowest_smoothed_loss():
    rates = np.geomspace(1e-6, 1.0, 601)
    # Falls until 1e-2, then rises; slow beside the smoothing, so that its delay is small.
    losses = (np.log10(rates) + 2) ** 2
    test = RangeTest(tuple(rates), tuple(losses), diverged=False)
    suggestion = suggested_rate(test)
    assert suggestion == rates[np.argmin(smooth(losses))]
    assert abs(math.log10(suggestion) + 2) < 0.15


def test_a_loss_that_never_falls_gives_no_suggestion():
    test = RangeTest((1e-3, 1e-2, 1e-1), (1.0, 2.0, 3.0), diverged=True)
    assert suggested_rate(test) is None


def test_a_loss_that_is_lowest_at_the_last_rate_gives_no_suggestion():
    rates, losses = (1e-3, 1e-2, 1e-1), (3.0, 2.0, 1.0)
    assert suggested_rate(RangeTest(rates, losses, diverged=False)) is None
    almost = RangeTest((1e-3, 1e-2, 1e-1, 0.2), (9.0, 2.0, 0.1, 1.0), diverged=False)
    assert np.argmin(almost.smoothed()) == 3
    # Where the next step diverged, the last rate is the suggestion.
    assert suggested_rate(RangeTest(rates, losses, diverged=True)) == 1e-1


@pytest.mark.slow
def test_the_command_writes_every_step_and_prints_a_setting(
    command, tmp_path, capsys, saved_figures
):
    arguments = ["--steps", "20", "--from", "1e-5", "--to", "1e-2"]
    # The loss still falls at the last rate: the values are written, and nothing is suggested.
    assert command(tmp_path, *arguments) == 2
    with (tmp_path / "lr_range.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == list(range(1, 21))
    rates = [float(row["learning_rate"]) for row in rows]
    np.testing.assert_allclose(rates, np.geomspace(1e-5, 1e-2, 20), rtol=1e-4)
    losses = [float(row["loss"]) for row in rows]
    np.testing.assert_allclose(
        [float(row["smoothed_loss"]) for row in rows], smooth(losses), rtol=1e-5
    )
    assert_picture(tmp_path / "lr_range.png")
    assert_drawn(saved_figures[0], *rates, *losses, *smooth(losses))
    printed = capsys.readouterr()
    assert (
        "suggestion:" not in printed.out
        and "not risen again at the last rate, 1.0e-02" in printed.err
    )
    assert not (tmp_path / "run").exists()

    # The same factor from step to step, further up: the seed gives the same steps again (rates
    # differ in the last digit, which grows), and then the loss diverges.
    assert command(tmp_path / "on", "--steps", "58", "--from", "1e-5", "--to", "1e4") == 0
    printed = capsys.readouterr().out
    assert "the loss diverged at a rate of" in printed
    assert "--set training.optimizer.learning_rate=" in printed
    further = (tmp_path / "on/lr_range.csv").read_text().splitlines()
    assert 21 < len(further) < 59
    with (tmp_path / "on/lr_range.csv").open() as file:
        again = [float(row["loss"]) for row in csv.DictReader(file)]
    np.testing.assert_allclose(again[:10], losses[:10], rtol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--from", "1", "--to", "0.1"], "the first smaller than the last"),
        (["--from", "0"], "above 0"),
        (["--steps", "3"], "at least 20"),
        (["--set", "strategy=multi_worker"], "in one process"),
        (["--set", "training.batch_size=41"], "training.batch_size: 41"),
    ],
)
def test_what_cannot_be_tested_is_named(command, tmp_path, capsys, arguments, message):
    assert command(tmp_path / "rates", *arguments) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
