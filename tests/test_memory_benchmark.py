"""The benchmark of memory measures processes of its own."""

import re

import pytest

from benchmarks import memory


@pytest.mark.slow
def test_every_size_is_measured_in_a_process_of_its_own(capsys):
    options = ["--classes", "10", "4000", "--batch-size", "4", "--steps", "1"]
    assert memory.main(options) == 0
    rows = re.findall(r"^ +(\d+) +(\d+) +(\d+)$", capsys.readouterr().out, re.MULTILINE)
    few, many = ([int(number) for number in row] for row in rows)
    assert (few[0], many[0]) == (10, 4000)
    # A float32 response map of 4 photos, 7x7 regions and 3,990 more classes takes 3 MB.
    assert many[1] > few[1] + 3 and many[2] > few[2] + 3


def test_numbers_that_measure_nothing_are_named(capsys):
    assert memory.main(["--classes", "2"]) == 2
    assert "--classes" in capsys.readouterr().err
