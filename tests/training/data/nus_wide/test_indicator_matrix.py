import numpy as np
import pytest

from biam_tf.errors import UserError
from training.data.nus_wide import indicator_matrix
from training.data.nus_wide.indicator_matrix import indicator_rows
from training.data.problems import Problems

pytestmark = pytest.mark.unit


def read(path, rows, columns):
    problems = Problems(path.parent)
    whole = np.full((rows, columns), 9, np.uint8)
    for first, block in indicator_rows(path, path.name, rows, columns, "the list", problems):
        whole[first : first + len(block)] = block
    problems.raise_if_any()
    return whole


@pytest.mark.parametrize("between", ["\t", " "])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\t\r\n", " \n"])
@pytest.mark.parametrize("chunk", [7, 50, 1 << 20])
def test_all_forms_of_lines_are_read(tmp_path, rng, monkeypatch, between, end, chunk):
    monkeypatch.setattr(indicator_matrix, "CHUNK_BYTES", chunk)
    expected = rng.integers(0, 2, (23, 5))
    path = tmp_path / "matrix.txt"
    path.write_text("".join(between.join(map(str, row)) + end for row in expected), newline="")
    np.testing.assert_array_equal(read(path, 23, 5), expected)


def test_lines_of_different_forms_and_blank_lines_at_the_end_are_read(tmp_path):
    path = tmp_path / "matrix.txt"
    path.write_bytes(b"0 1\r\n1\t\t0\n 1 1 \n0\t0\n\n\n")
    np.testing.assert_array_equal(read(path, 4, 2), [[0, 1], [1, 0], [1, 1], [0, 0]])


def test_a_last_line_without_an_end_is_read(tmp_path):
    path = tmp_path / "matrix.txt"
    path.write_bytes(b"1\n0\n1")
    np.testing.assert_array_equal(read(path, 3, 1)[:, 0], [1, 0, 1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"0 1\n1 0\n", r"m.txt row 3: the file ends after 2 rows; the list lists 3"),
        (b"0 1\n1 0\n1 1\n0 0\n", r"m.txt row 4: 4 rows, but the list lists 3"),
        (b"0 1\n1\n1 1\n", r"m.txt row 2: expected 2 values, got 1"),
        (b"0 1\n1 0\n1 -1130179\n", r"m.txt row 3: value 2 is '-1130179'; expected 0 or 1"),
        (b"0 1\n10 \n1 1\n", r"m.txt row 2: expected 2 values, got 1"),
        (b"0 1\n2 0\n1 1\n", r"m.txt row 2: value 1 is '2'"),
    ],
)
def test_wrong_rows_are_named(tmp_path, text, message):
    path = tmp_path / "m.txt"
    path.write_bytes(text)
    with pytest.raises(UserError, match=message):
        read(path, 3, 2)


def test_progress_counts_rows(tmp_path):
    path = tmp_path / "m.txt"
    path.write_bytes(b"0\n1\n0\n")
    calls = []
    problems = Problems(tmp_path)
    list(indicator_rows(path, "m", 3, 1, "list", problems, lambda *call: calls.append(call)))
    assert calls == [(3, 3)]
