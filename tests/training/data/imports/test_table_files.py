"""Tables as other programs write them."""

import pytest
from import_tables import imported

from training.import_data import main

pytestmark = pytest.mark.unit

CELLS = "image,labels\n0.jpg,caf\u00e9;dog\n1.jpg,dog\n"
ROWS = [
    ["image", "split", "labels"],
    ["0.jpg", "train", "caf\u00e9;dog"],
    ["1.jpg", "train", "dog"],
]


def import_content(path, content, out, *options):
    path.write_bytes(content)
    return main(["csv", str(path), str(out), "--val-share=0", "--test-share=0", *options])


@pytest.mark.parametrize(
    ("name", "content", "options"),
    [
        ("t.csv", CELLS.encode("utf-8-sig"), []),
        ("t.csv", CELLS.encode("utf-16"), []),
        ("t.csv", CELLS.encode("utf-16-le"), []),
        ("t.txt", CELLS.replace(",", "\t").replace("\n", "\r\n").encode("utf-16"), []),
        ("t.tsv", CELLS.replace(",", "\t").encode(), []),
        ("t.csv", CELLS.replace("caf\u00e9;dog", '"caf\u00e9;dog"').replace(",", ";").encode(), []),
        ("t.csv", CELLS.replace(",", "|").encode(), []),
        ("t.csv", ("sep=,\r\n" + CELLS).encode(), []),
        ("t.csv", CELLS.encode("cp1252"), ["--encoding=cp1252"]),
        ("t.csv", CELLS.encode().replace(b"\n", b"\r"), []),
    ],
)
def test_a_table_is_read_whatever_program_wrote_it(photos, tmp_path, name, content, options):
    assert import_content(photos / name, content, tmp_path / "out", *options) == 0
    assert imported(tmp_path / "out")[0] == ROWS


def test_a_table_with_semicolons_and_commas_exchanged_is_answered(photos, tmp_path, capsys):
    content = b"image;labels\n0.jpg;red,blue\n1.jpg;red\n"
    assert import_content(photos / "t.csv", content, tmp_path / "out") == 2
    assert "row 2: 'red,blue' may be several labels" in capsys.readouterr().err
    assert import_content(photos / "t.csv", content, tmp_path / "out", "--separator=,") == 0
    assert imported(tmp_path / "out")[0][1][2] == "red;blue"


def test_a_cell_may_be_longer_than_python_takes(photos, tmp_path):
    names = ";".join(f"name{number:060}" for number in range(2_200))
    content = f"image,note,labels\n0.jpg,{'x' * 200_000},dog\n1.jpg,,{names}\n".encode()
    assert import_content(photos / "t.csv", content, tmp_path / "out") == 0
    assert imported(tmp_path / "out")[0][2][2] == names


def workbook(path, rows, sheets=("Sheet",)):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.title = sheets[0]
    for row in rows:
        book.active.append(row)
    for name in sheets[1:]:
        book.create_sheet(name)
    book.save(path)
    return path


def test_workbooks_of_excel_are_read(photos, tmp_path, capsys):
    (photos / "2.jpg").rename(photos / "7")
    rows = [["image", "labels", None], ["0.jpg", "caf\u00e9;dog"], [None, None], [7, 3.0]]
    path = workbook(photos / "t.xlsx", rows, ("A", "B"))
    arguments = ["csv", str(path), str(tmp_path / "out"), "--val-share=0", "--test-share=0"]
    assert main(arguments) == 2
    assert "has the sheets 'A', 'B'; give one with --sheet NAME" in capsys.readouterr().err
    assert main([*arguments, "--sheet=A"]) == 0
    assert imported(tmp_path / "out")[0][1:] == [ROWS[1], ["7", "train", "3"]]


def test_dates_that_excel_makes_of_names_are_named(photos, tmp_path, capsys):
    import datetime

    rows = [["image", "labels"], ["0.jpg", datetime.datetime(2024, 3, 1)]]
    path = workbook(photos / "t.xlsx", rows)
    assert main(["csv", str(path), str(tmp_path / "out")]) == 2
    assert "row 2: column 'labels': Excel made a date of it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("t.xlsx", b"PK\x03\x04xx", "t.xlsx: cannot be read as an Excel workbook"),
        ("t.csv", b"PK\x03\x04xx", "t.csv: cannot be read as an Excel workbook"),
        ("t.xls", b"\xd0\xcf\x11\xe0\xa1\xb1", "is an old Excel workbook"),
        ("t.csv", b'[{"image": "0.jpg"}]', "is JSON and not a table"),
        ("t.csv.gz", b"\x1f\x8b\x08", "is compressed by gzip"),
        ("t.csv", CELLS.encode("latin-1"), "is not UTF-8 text (line 2, '0.jpg,caf\u00e9;dog')"),
        ("t.csv", b'image,labels\n0.jpg,"dog\n1.jpg,sea\n', "none closes it"),
        ("t.csv", b"image,tags\n0.jpg,dog\n", "no column 'labels'"),
        ("t.csv", b"", "no column 'image'"),
        ("t.csv", b"image,labels\n0.jpg,\n", "none of the 1 photos has a label (column 'labels')"),
    ],
)
def test_what_is_no_table_is_answered_in_one_sentence(
    photos, tmp_path, capsys, name, content, complaint
):
    assert import_content(photos / name, content, tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert complaint in error and "Traceback" not in error


def test_rows_and_photos_that_are_wrong_are_named_in_one_round(photos, tmp_path, capsys):
    (photos / "1.jpg").write_bytes(b"")
    (photos / "2.jpg").write_bytes((photos / "3.jpg").read_bytes()[:200])
    content = (
        b"image,labels,split\n0.jpg,dog,dev\n1.jpg,dog,train\n2.jpg,Dog,train\n9.jpg,dog,val\n"
    )
    out = tmp_path / "out"
    assert import_content(photos / "t.csv", content, out, "--split-column=split") == 2
    error = capsys.readouterr().err
    for part in (
        "5 problems",
        "t.csv row 2: unknown split 'dev'",
        "names that differ only in upper and lower case",
        "t.csv row 3: photo",
        "t.csv row 4: photo",
        "t.csv row 5: photo",
    ):
        assert part in error, error
    # Without errors in the rows, broken and missing photos are named together.
    content = content.replace(b"dev", b"train").replace(b"Dog", b"dog")
    assert import_content(photos / "t.csv", content, out, "--split-column=split") == 2
    assert "3 of 4 photos are missing or broken" in capsys.readouterr().err
