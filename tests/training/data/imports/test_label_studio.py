"""Exports of Label Studio."""

import json

import pytest
from import_tables import imported, write_table

from training.import_data import main

pytestmark = pytest.mark.unit


def choices(*names, control="choice", kind="choices"):
    value = {kind: list(names)} if kind != "taxonomy" else {kind: [n.split("/") for n in names]}
    return {"from_name": control, "to_name": "image", "type": kind, "value": value}


def task(image, *annotations, **more):
    results = [{"result": list(results), "was_cancelled": False} for results in annotations]
    return {"id": 1, "data": {"image": image, "caption": "a.b"}, "annotations": results} | more


def import_tasks(photos, out, tasks, *options):
    path = photos / "project.json"
    path.write_text(json.dumps(tasks))
    return main(["label-studio", f"train={path}", str(out), *options])


def test_choices_and_regions_of_a_whole_export_become_labels(photos, tmp_path, capsys):
    regions = choices("Car", control="box", kind="rectanglelabels")
    tasks = [
        task("0.jpg", [choices("red", "blue"), regions, regions]),
        task("/data/local-files/?d=1.jpg", []),
        task("2.jpg"),
        task("3.jpg", [choices("red")], predictions=[{"result": [choices("green")]}]),
        task("4.jpg", annotations=[{"result": [choices("red")], "was_cancelled": True}]),
    ]
    out = tmp_path / "out"
    assert import_tasks(photos, out, tasks) == 0
    assert imported(out) == (
        [
            ["image", "split", "labels"],
            ["0.jpg", "train", "red;blue;Car"],
            ["1.jpg", "train", ""],
            ["3.jpg", "train", "red"],
        ],
        [["name", "group"], ["Car", "seen"], ["blue", "seen"], ["red", "seen"]],
    )
    text = capsys.readouterr().out
    assert "labels of the controls choice (3), box (2)" in text
    assert "2 photos without an annotation, or skipped, are left out" in text
    assert "predictions of 1 tasks are not taken" in text


def test_where_annotators_differ_labels_are_unknown(photos, tmp_path, capsys):
    tasks = [
        task("0.jpg", [choices("red", "blue")], [choices("red")]),
        task("1.jpg", [choices("green")], [choices("green")]),
        task("2.jpg", [choices("red")], [choices("blue")]),
    ]
    tasks[2]["annotations"][1]["ground_truth"] = True
    out = tmp_path / "out"
    assert import_tasks(photos, out, tasks) == 0
    assert imported(out)[0] == [
        ["image", "split", "labels", "absent"],
        ["0.jpg", "train", "red", "green"],
        ["1.jpg", "train", "green", "blue;red"],
        ["2.jpg", "train", "blue", "green;red"],
    ]
    assert "annotators differ on 1 photos" in capsys.readouterr().out


def test_a_taxonomy_is_its_leaf_or_its_whole_path(photos, tmp_path):
    tasks = [task("0.jpg", [choices("animal/dog", "sea", kind="taxonomy")])]
    for name, options, labels in (("a", [], "dog;sea"), ("b", ["--whole-path"], "animal/dog;sea")):
        assert import_tasks(photos, tmp_path / name, tasks, *options) == 0
        assert imported(tmp_path / name)[0][1][2] == labels


def test_json_min_has_labels_beside_the_data(photos, tmp_path, capsys):
    about = {"annotator": 1, "annotation_id": 1, "created_at": "2024", "lead_time": 3.1}
    tasks = [
        {"image": "0.jpg", "caption": "x", "id": 1, "color": {"choices": ["red", "blue"]}} | about,
        {"image": "1.jpg", "caption": "y", "id": 2, "color": "red"} | about,
        {"image": "2.jpg", "caption": "z", "id": 3, "box": [{"x": 1, "rectanglelabels": ["Car"]}]}
        | about,
        {"image": "3.jpg", "caption": "z", "id": 4} | about,
    ]
    out = tmp_path / "out"
    assert import_tasks(photos, out, tasks) == 0
    assert imported(out) == (
        [
            ["image", "split", "labels"],
            ["0.jpg", "train", "red;blue"],
            ["1.jpg", "train", "red"],
            ["2.jpg", "train", "Car"],
            ["3.jpg", "train", ""],
        ],
        [["name", "group"], ["Car", "seen"], ["blue", "seen"], ["red", "seen"]],
    )
    assert "not taken: the fields 'caption'" in capsys.readouterr().out
    assert import_tasks(photos, tmp_path / "box", tasks, "--controls=box") == 0
    assert [row[2] for row in imported(tmp_path / "box")[0][1:]] == ["", "", "Car", ""]


def test_csv_has_labels_as_json_or_plain(photos, tmp_path):
    header = ("annotation_id", "annotator", "choice", "created_at", "id", "image", "lead_time")
    rows = [
        (1, 1, '{"choices":["red","a, b"]}', "2024", 1, "/data/upload/1/0.jpg", 2.5),
        (2, 1, "a, b", "2024", 2, "/data/upload/1/1.jpg", 2.5),
        (3, 1, "", "2024", 3, "/data/upload/1/2.jpg", 2.5),
    ]
    table = write_table(tmp_path / "project.csv", rows, header)
    out = tmp_path / "out"
    arguments = ["label-studio", f"train={table}", str(out), f"--photo-folder={photos}"]
    assert main(arguments) == 0
    assert imported(out) == (
        [
            ["image", "split", "labels"],
            ["0.jpg", "train", "red;a, b"],
            ["1.jpg", "train", "a, b"],
            ["2.jpg", "train", ""],
        ],
        [["name", "group"], ["a, b", "seen"], ["red", "seen"]],
    )


def test_uploads_that_would_be_one_file_are_named(photos, tmp_path, capsys):
    tasks = [task(f"/data/upload/{n}/0.jpg", [choices("red")]) for n in (1, 2)]
    assert import_tasks(photos, tmp_path / "out", tasks) == 2
    assert "/data/upload/1/0.jpg and /data/upload/2/0.jpg are both" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("tasks", "options", "complaint"),
    [
        ({"a": 1}, [], "is no list of tasks"),
        ([3], [], "[0]: expected a task, got 3"),
        ([task(["0.jpg"], [choices("red")])], [], "the photo ['0.jpg'] is not a string"),
        (
            [{"data": {"a": "0.jpg", "b": "1.jpg"}, "annotations": []}],
            [],
            "which field is the photo? Give --image-column with one of a, b",
        ),
        ([task("s3://b/0.jpg", [choices("red")])], [], "--replace-path"),
        ([task("0.jpg", [choices("red")])], ["--controls=chioce"], "did you mean 'choice'?"),
        ([task("0.jpg")], [], "has no annotated photo"),
        ([{"image": "0.jpg", "content": "red"}], [], "which fields hold labels?"),
    ],
)
def test_what_is_wrong_is_said(photos, tmp_path, capsys, tasks, options, complaint):
    assert import_tasks(photos, tmp_path / "out", tasks, *options) == 2
    assert complaint in capsys.readouterr().err
