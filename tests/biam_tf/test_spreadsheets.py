"""Names that a spreadsheet would run as formulas."""

import ast
import csv
import io

import pytest
from source_tree import PACKAGES, modules

from biam_tf.spreadsheets import SpreadsheetWriter, literal_cell

pytestmark = pytest.mark.unit

# These write data sets, which are read back: names stay as they are.
WRITERS_OF_DATA_SETS = {
    "biam_tf.spreadsheets",
    "biam_tf.csv_files",
    "training.data.scenes.reader",
    "training.data.open_images.from_tfds",
    "serving.indexing.vector_export",  # read by a vector database, beside the vectors
}


@pytest.mark.parametrize(
    "formula",
    [
        '=HYPERLINK("http://evil.example","photo")',
        "+1+cmd|' /C calc'!A0",
        "-2+3+cmd|' /C calc'!A0",
        "@SUM(A1)",
        " =1+1",
        "\t=1+1",
        "\r=1",
        "\uff1d1+1",
        "=1\n2",
        "-dog",
    ],
)
def test_a_formula_becomes_a_text(formula):
    assert literal_cell(formula) == "'" + formula


@pytest.mark.parametrize(
    "text", ["dog", "a=b", "-", "", "-0.35", "+1.2", "-1.0 ± 0.2", "-0.3 to +0.5", "-1e-05", "-inf"]
)
def test_other_texts_and_numbers_stay(text):
    assert literal_cell(text) == text
    assert literal_cell(-1.5) == -1.5


def test_a_row_is_guarded_cell_by_cell():
    file = io.StringIO()
    SpreadsheetWriter(file).writerows([("=a", "dog", -1), ("x", "=b,c", "-0.5")])
    assert file.getvalue() == "'=a,dog,-1\nx,\"'=b,c\",-0.5\n"


def test_a_line_break_in_a_name_begins_no_row():
    row = ["dog\r=1", "a\n=2", "b\r\n=3", "c"]
    file = io.StringIO(newline="")
    SpreadsheetWriter(file).writerows([row, row])
    assert file.getvalue().count('"dog\r=1"') == 2
    assert [*csv.reader(io.StringIO(file.getvalue(), newline=""))] == [row, row]


def test_every_table_for_people_is_guarded():
    writers = {
        module.name
        for module in modules().values()
        if module.package in PACKAGES
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("csv.writer", "csv.DictWriter")
    }
    assert writers == WRITERS_OF_DATA_SETS
