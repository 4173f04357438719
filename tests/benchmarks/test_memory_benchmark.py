"""The benchmark of memory measures processes of its own."""

import re

import pytest

from benchmarks import memory


@pytest.mark.slow
def test_training_and_scoring_are_measured_in_processes_of_their_own(capsys):
    assert memory.main(["--classes", "4000", "--batch-size", "4", "--steps", "1"]) == 0
    printed = capsys.readouterr().out
    base = int(re.search(r"imports only: (\d+)$", printed, re.MULTILINE)[1])
    row = re.search(r"^ +4000 +(\d+) +(\d+)$", printed, re.MULTILINE)
    # Response maps of 4 photos, 7x7 regions and 4,000 classes take 3 MB, and there is a head.
    assert int(row[1]) > base + 3 and int(row[2]) > base + 3


def test_numbers_that_measure_nothing_are_named(capsys):
    assert memory.main(["--classes", "2"]) == 2
    assert "--classes" in capsys.readouterr().err
