"""The benchmark of evaluation compares what it times."""

import pytest

from benchmarks import evaluation


def test_what_is_timed_gives_the_same_figures(capsys):
    pytest.importorskip("sklearn")
    assert evaluation.main(["--smoke"]) == 0
    printed = capsys.readouterr().out
    assert "| scikit-learn's average_precision_score |" in printed
    assert "| 600 x 60, scores in file |" in printed


@pytest.mark.parametrize("other", ["scikit_learn", "loop_over_classes", "loop_over_photos"])
def test_other_figures_are_an_error(other, monkeypatch, capsys):
    pytest.importorskip("sklearn")
    right = getattr(evaluation, other)
    monkeypatch.setattr(evaluation, "_peaks", lambda *sizes: None)
    monkeypatch.setattr(evaluation, other, lambda *data: right(*data) + 1e-9)
    assert evaluation.main(["--smoke"]) == 2
    assert "gives different results, 1.0e-09 apart" in capsys.readouterr().err
