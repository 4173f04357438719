import io

import pytest

from biam_tf.progress import progress

pytestmark = pytest.mark.unit


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_log_gets_whole_lines_and_few_of_them():
    log = io.StringIO()
    with progress(200, "Features", "photo", stream=log) as bar:
        for _ in range(200):
            bar.update(1)
    lines = log.getvalue().splitlines()
    assert len(lines) == 2 and "\r" not in log.getvalue()
    assert lines[0].startswith("Features: 0/200 (0%)")
    assert lines[1].startswith("Features: 200/200 (100%)") and "photo/s" in lines[1]


def test_a_log_gets_a_line_whenever_the_interval_has_passed():
    log = io.StringIO()
    with progress(3, "Features", "photo", stream=log, interval=0) as bar:
        for step in range(3):
            bar.set_postfix_str(f"loss {step}", refresh=False)
            bar.update(1)
    assert [line.split(",")[-1] for line in log.getvalue().splitlines()][1:4] == [
        " loss 0",
        " loss 1",
        " loss 2",
    ]


def test_work_that_is_summed_up_adds_lines_to_a_log_only_if_it_takes_long(monkeypatch):
    log, clock = io.StringIO(), [0.0]
    monkeypatch.setattr("biam_tf.progress.time.monotonic", lambda: clock[0])
    for epoch in range(50):
        with progress(1, f"epoch {epoch + 1}/50", "step", stream=log, summed_up=True) as bar:
            bar.update(1)
    assert log.getvalue() == ""
    with progress(3, "epoch 1/1", "step", stream=log, interval=5, summed_up=True) as bar:
        for seconds in (6.0, 8.0, 9.0):
            clock[0] = seconds
            bar.update(1)
            bar.refresh()
    assert [line.partition(" (")[0] for line in log.getvalue().splitlines()] == ["epoch 1/1: 1/3"]


def test_a_terminal_gets_one_line_that_is_rewritten():
    terminal = Terminal()
    with progress(5, "Features", "photo", stream=terminal) as bar:
        bar.update(5)
    assert "\r" in terminal.getvalue() and terminal.getvalue().count("\n") == 1
    assert "5/5" in terminal.getvalue()


def test_what_was_done_before_counts_but_not_towards_the_rate():
    log = io.StringIO()
    with progress(100, "Features", "photo", initial=90, stream=log):
        pass
    assert log.getvalue().startswith("Features: 90/100 (90%) ?")


def test_an_error_ends_the_line():
    log = io.StringIO()
    with pytest.raises(KeyboardInterrupt), progress(10, "Features", "photo", stream=log) as bar:
        bar.update(4)
        raise KeyboardInterrupt
    assert "4/10" in log.getvalue().splitlines()[-1]
