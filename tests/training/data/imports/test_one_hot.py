"""Tables with a column for each class."""

import pytest
from import_tables import imported

from training.import_data import main

pytestmark = pytest.mark.unit


def import_table(path, text, out, *options):
    path.write_text(text)
    return main(["one-hot", str(path), str(out), "--val-share=0", "--test-share=0", *options])


def test_classes_of_roboflow_keep_their_order_and_splits(photos, tmp_path):
    sources = []
    for split, number, cells in (("train", 0, "1, 0, 1"), ("val", 1, "0, 0, 0")):
        folder = tmp_path / split
        folder.mkdir()
        (photos / f"{number}.jpg").rename(folder / f"{number}.jpg")
        text = f"filename, sea, dog, traffic light\n{number}.jpg, {cells}\n"
        (folder / "_classes.csv").write_text(text)
        sources.append(f"{split}={folder / '_classes.csv'}")
    out = tmp_path / "out"
    assert main(["one-hot", *sources, str(out), "--unseen=dog"]) == 0
    assert imported(out) == (
        [
            ["image", "split", "labels"],
            ["0.jpg", "train", "sea;traffic light"],
            ["1.jpg", "val", ""],
        ],
        [["name", "group"], ["sea", "seen"], ["dog", "unseen"], ["traffic light", "seen"]],
    )


def test_minus_one_and_empty_cells_of_chexpert_are_unknown(photos, tmp_path, capsys):
    text = "Path,Sex,Edema,Fracture,Pleural Other\n0.jpg,F,1.0,0.0,\n1.jpg,M,-1.0,nan,1.0\n"
    out = tmp_path / "out"
    table = photos / "train.csv"
    assert import_table(table, text, out) == 2
    error = capsys.readouterr().err
    assert "column 'Sex': expected 1, 0, -1 or an empty cell, got 'F' in row 2" in error
    assert "--skip-columns Sex" in error
    assert import_table(table, text, out, "--skip-columns=Sex") == 0
    assert imported(out) == (
        [
            ["image", "split", "labels", "absent"],
            ["0.jpg", "train", "Edema", "Fracture"],
            ["1.jpg", "train", "Pleural Other", ""],
        ],
        [["name", "group"], ["Edema", "seen"], ["Fracture", "seen"], ["Pleural Other", "seen"]],
    )
    assert "2 present, 1 absent, 3 unknown" in capsys.readouterr().out


def test_a_table_of_kaggle_without_suffixes_and_with_an_index(photos, tmp_path, capsys):
    (tmp_path / "lists").mkdir()
    text = ",id,a,b,fold\n0,0,True,0,1\n1,1,False,1,0\n"
    out = tmp_path / "out"
    options = [
        f"--photo-folder={photos}",
        "--image-column=id",
        "--image-suffix=.jpg",
        "--skip-columns=fold",
    ]
    assert import_table(tmp_path / "lists" / "train.csv", text, out, *options) == 0
    assert imported(out)[0][1:] == [["0.jpg", "train", "a"], ["1.jpg", "train", "b"]]
    assert "a column without a name is left out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "options", "absent"),
    [
        ("image,a,b\n0.jpg,1,-1\n1.jpg,-1,1\n", ["--minus-one=absent"], None),
        ("image,a,b\n0.jpg,1,-1\n1.jpg,-1,1\n", ["--minus-one=unknown"], ["", ""]),
        ("image,a,b\n0.jpg,1,\n1.jpg,,1\n", ["--blank=absent"], None),
        ("image,a,b\n0.jpg,1,\n1.jpg,-1,1\n", ["--minus-one=absent"], ["", "a"]),
    ],
)
def test_without_zeros_it_must_be_said_what_is_absent(
    photos, tmp_path, capsys, text, options, absent
):
    out = tmp_path / "out"
    assert import_table(photos / "t.csv", text, out) == 2
    assert f"{options[0].replace('=', ' ').split()[0]} absent" in capsys.readouterr().err
    assert import_table(photos / "t.csv", text, out, *options) == 0
    header, *rows = imported(out)[0]
    assert [row[2] for row in rows] == ["a", "b"]
    assert ([row[3] for row in rows] if "absent" in header else None) == absent


@pytest.mark.parametrize(
    ("text", "options", "complaint"),
    [
        ("image,a,a\n0.jpg,1,0\n", [], "column 'a' occurs 2 times"),
        ("image,a b,a  b\n0.jpg,1,0\n", [], "2 columns are called 'a b'"),
        ("image,a\n0.jpg,1\n0.jpg,0\n", [], "t.csv row 3:"),
        ("image,a\n0.jpg,0.7\n", [], "got '0.7' in row 2"),
        ("image,labels\n0.jpg,dog\n", [], "--skip-columns labels"),
        ("image,a\n0.jpg,1\n", ["--skip-columns=b"], "--skip-columns: no column 'b'"),
        ("image\n0.jpg\n", [], "has no columns of classes"),
        ("image,a,part\n0.jpg,1,dev\n", ["--split-column=part"], "row 2: unknown split 'dev'"),
        ("image,a\n", [], "lists no photos"),
        ("image,a\n0.jpg,0\n", [], "none of the 1 photos has a label"),
    ],
)
def test_what_is_wrong_is_said(photos, tmp_path, capsys, text, options, complaint):
    assert import_table(photos / "t.csv", text, tmp_path / "out", *options) == 2
    assert complaint in capsys.readouterr().err
