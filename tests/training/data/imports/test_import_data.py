import json
import re

import pytest
from import_tables import labels_of, write_table

from training.data.folder.reader import read_folder
from training.data.imports.class_names import new_names
from training.import_data import main


def test_a_table_with_a_row_a_label_becomes_a_folder_data_set(photos, tmp_path, capsys):
    table = write_table(
        photos / "labels.csv",
        [("0.jpg", "dog", "train"), ("0.jpg", "sea;dog", "train"), ("1.jpg", "zebra", "test")],
    )
    out = tmp_path / "data"
    assert main(["csv", str(table), str(out), "--split-column=split", "--unseen=zebra"]) == 0
    dataset = read_folder(out)
    assert dict(zip(dataset.names, dataset.groups, strict=True)) == {
        "dog": "seen",
        "sea": "seen",
        "zebra": "unseen",
    }
    assert labels_of(dataset, "train") == [{"dog", "sea"}]
    assert labels_of(dataset, "test") == [{"zebra"}]
    photo = dataset.photo_path(dataset.splits["train"].images[0])
    assert photo.samefile(photos / "0.jpg")  # a link, no copy
    assert "photos 1 train, 1 test; classes 2 seen, 1 unseen" in capsys.readouterr().out


def test_splits_are_drawn_by_the_file_name_alone(photos, tmp_path):
    rows = [(f"{number}.jpg", "dog") for number in range(6)]
    splits = []
    for name, part in (("a", rows), ("b", rows[::-1])):
        table = write_table(photos / f"{name}.csv", part, ("image", "labels"))
        options = ["--val-share=0.3", "--test-share=0.3", "--photos=copy"]
        assert main(["csv", str(table), str(tmp_path / name), *options]) == 0
        read = read_folder(tmp_path / name)
        splits.append({name: set(part.images) for name, part in read.splits.items()})
    assert splits[0] == splits[1] and len(splits[0]) > 1


def test_photos_of_one_name_in_many_folders_are_in_all_splits(photos, tmp_path):
    rows = [(f"{number}/image.jpg", "dog") for number in range(50)]
    for name, _ in rows:
        (photos / name).parent.mkdir(exist_ok=True)
        (photos / name).hardlink_to(photos / "0.jpg")
    table = write_table(photos / "t.csv", rows, ("image", "labels"))
    out = tmp_path / "data"
    assert main(["csv", str(table), str(out), "--val-share=0.2", "--test-share=0.2"]) == 0
    counts = {name: len(split) for name, split in read_folder(out).splits.items()}
    # Of `sha256sum` of the 50 paths, as many begin below 0.2 and 0.4 of the range.
    assert counts == {"train": 31, "val": 9, "test": 10}


def test_parquet_may_hold_lists(photos, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {"file": ["0.jpg", "1.jpg"], "tags": [["a;b", "c"], []], "part": ["train", "val"]}
    parquet.write_table(pyarrow.table(columns), photos / "t.parquet")
    out = tmp_path / "data"
    options = ["--image-column=file", "--labels-column=tags", "--split-column=part"]
    # A name with the sign that joins names is refused by the writer of the folder form.
    assert main(["csv", str(photos / "t.parquet"), str(out), *options]) == 2
    columns["tags"][0][0] = "a b"
    parquet.write_table(pyarrow.table(columns), photos / "t.parquet")
    assert main(["csv", str(photos / "t.parquet"), str(out), *options]) == 0
    assert labels_of(read_folder(out), "train") == [{"a b", "c"}]


def test_a_damaged_parquet_file_is_named(photos, tmp_path, capsys):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = photos / "t.parquet"
    columns = {name: [f"{n}.jpg" for n in range(2000)] for name in ("image", "labels")}
    parquet.write_table(pyarrow.table(columns), path)
    damaged = bytearray(path.read_bytes())
    damaged[300:900] = b"\xff" * 600
    path.write_bytes(damaged)
    assert main(["csv", str(path), str(tmp_path / "data")]) == 2
    assert "t.parquet: is damaged after row" in capsys.readouterr().err


def test_the_list_of_failed_photos_goes_with_the_failures(photos, tmp_path):
    rows = [("0.jpg", "dog", "train"), ("9.jpg", "dog", "train")]
    table, out = write_table(photos / "t.csv", rows), tmp_path / "data"
    assert main(["csv", str(table), str(out)]) == 2
    assert (out / "failed_photos.csv").exists()
    (photos / "1.jpg").rename(photos / "9.jpg")
    assert main(["csv", str(table), str(out)]) == 0
    assert not (out / "failed_photos.csv").exists()


@pytest.mark.parametrize(("failed", "count"), [(1, 3), (29, 100), (299, 300)])
def test_the_share_that_is_suggested_is_accepted(photos, tmp_path, capsys, failed, count):
    rows = [(f"photo{i}.jpg", "dog", "train") for i in range(count)]
    for name, _, _ in rows[failed:]:
        (photos / name).hardlink_to(photos / "0.jpg")
    table, out = write_table(photos / "t.csv", rows), tmp_path / "data"
    arguments = ["csv", str(table), str(out), "--split-column=split"]
    assert main(arguments) == 2
    option = re.search(r"--max-broken-share [\d.]+", capsys.readouterr().err)[0]
    assert main([*arguments, *option.split()]) == 0


def test_no_share_is_suggested_where_every_photo_failed(photos, tmp_path, capsys):
    table = write_table(photos / "t.csv", [("x.jpg", "dog", "train")])
    assert main(["csv", str(table), str(tmp_path / "data")]) == 2
    assert "--max-broken-share" not in capsys.readouterr().err


def test_every_row_with_a_wrong_number_of_cells_is_named(photos, tmp_path, capsys):
    rows = [
        ("0.jpg", "dog", "train"),
        ("1.jpg",),
        ("2.jpg", "dog", "dev"),
        ("3.jpg", "a", "val", ""),
    ]
    table = write_table(photos / "t.csv", rows)
    arguments = [str(tmp_path / "data"), "--split-column=split"]
    assert main(["csv", str(table), *arguments]) == 2
    error = capsys.readouterr().err
    assert "3 problems" in error and "t.csv row 4: unknown split 'dev'" in error
    assert "t.csv row 3: expected 3 cells (image,labels,split), got 1" in error
    assert "t.csv row 5: expected 3 cells (image,labels,split), got 4" in error

    table = write_table(photos / "t.csv", [("1.jpg",)] * 40)
    assert main(["csv", str(table), *arguments]) == 2
    error = capsys.readouterr().err
    assert "40 problems" in error and "and 10 more" in error


@pytest.mark.parametrize(
    ("labels", "complaint"),
    [
        ([["dog"], ["dog", None]], "t.parquet row 2: the label None is not a string"),
        ([["dog"], None], "t.parquet row 2: the list of labels is null"),
        ([[3], [4]], "t.parquet row 1: the label 3 is not a string"),
        ([0, 4], "t.parquet row 1: the label 0 is not a string"),
        ([b"dog", b"cat"], "t.parquet row 1: the label b'dog' is not a string"),
    ],
)
def test_labels_of_parquet_that_are_no_texts_are_named(photos, tmp_path, capsys, labels, complaint):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {"image": ["0.jpg", "1.jpg"], "labels": labels}
    parquet.write_table(pyarrow.table(columns), photos / "t.parquet")
    assert main(["csv", str(photos / "t.parquet"), str(tmp_path / "data")]) == 2
    assert complaint in capsys.readouterr().err


def test_an_empty_cell_of_parquet_is_a_photo_without_labels(photos, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {"image": ["0.jpg", "1.jpg"], "labels": ["dog", None], "split": ["train"] * 2}
    parquet.write_table(pyarrow.table(columns), photos / "t.parquet")
    out = tmp_path / "data"
    assert main(["csv", str(photos / "t.parquet"), str(out), "--split-column=split"]) == 0
    assert labels_of(read_folder(out), "train") == [{"dog"}, set()]


def test_classes_are_renamed_and_merged(photos, tmp_path):
    rows = [
        ("0.jpg", "Dog;hound", "train"),
        ("1.jpg", "TV;SEA", "train"),
        ("2.jpg", "sea", "train"),
    ]
    table, out = write_table(photos / "t.csv", rows), tmp_path / "data"
    options = ["--rename=hound=dog", "--rename", "TV = Television", "--lower-case", "--unseen=sea"]
    assert main(["csv", str(table), str(out), "--split-column=split", *options]) == 0
    dataset = read_folder(out)
    groups = dict(zip(dataset.names, dataset.groups, strict=True))
    assert groups == {"dog": "seen", "television": "seen", "sea": "unseen"}
    assert labels_of(dataset, "train") == [{"dog"}, {"television", "sea"}, {"sea"}]


def test_new_names_are_not_renamed_again():
    names = {"a": "b", "b": "a", "C": "C"}
    assert new_names(names, ["a=b", "b=a"]) == names


def coco(path, annotations):
    path.write_text(
        json.dumps(
            {
                "images": [{"id": 7, "file_name": "0.jpg"}, {"id": 9, "file_name": "1.jpg"}],
                "categories": [{"id": 3, "name": "dog"}, {"id": 90, "name": "traffic light"}],
                "annotations": annotations,
            }
        )
    )
    return path


def test_objects_of_coco_become_labels(photos, tmp_path):
    entries = [{"image_id": 9, "category_id": 90}, {"image_id": 9, "category_id": 90}]
    path, out = coco(tmp_path / "instances.json", entries), tmp_path / "data"
    arguments = ["coco", str(out), f"--annotations=train={path}", f"--images=train={photos}"]
    assert main([*arguments, "--ignored", "dog"]) == 0
    dataset = read_folder(out)
    assert dataset.names == ("traffic light",)
    assert labels_of(dataset, "train") == [set(), {"traffic light"}]
    assert main(arguments) == 2  # nothing is overwritten


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([("0.jpg", "dog", "dev")], ["--split-column=split"], "t.csv row 2: unknown split 'dev'"),
        ([("0.jpg", "dog", "train")], ["--split-column=splt"], "did you mean 'split'?"),
        ([("0.jpg", "dog", "train")], ["--unseen=dgo"], "no class 'dgo'; did you mean 'dog'?"),
        ([("0.jpg", "dog", "train")], ["--unseen=dog"], "no class is left to train on"),
        ([("x.jpg", "dog", "train")], [], "x.jpg: No such file or directory"),
        ([("0.jpg", "dog", "train")], ["--val-share=1"], "--val-share 1: expected at least 0"),
        (
            [("0.jpg", "dog", "train")],
            ["--val-share=0.5", "--test-share=0.5"],
            "--val-share 0.5 and --test-share 0.5 leave nothing to train on",
        ),
        ([("0.jpg", "dog", "train")], ["--separator="], "--separator: is empty"),
        (
            [("0.jpg", "dog", "train"), ("http://[bad/0.jpg", "dog", "train")],
            [],
            "t.csv row 3: malformed URL 'http://[bad/0.jpg'",
        ),
        ([("http:///0.jpg", "dog", "train")], [], "row 2: malformed URL 'http:///0.jpg'"),
        ([("http://h:99999/0.jpg", "dog", "train")], [], "row 2: malformed URL"),
        ([("0.jpg", "dog", "train")], ["--rename=dgo=cat"], "no class 'dgo'; did you mean 'dog'?"),
        ([("0.jpg", "dog", "train")], ["--rename=dog"], "--rename 'dog': expected OLD=NEW"),
        (
            [("0.jpg", "dog", "train")],
            ["--rename=dog=a", "--rename=dog=b"],
            "'dog' is renamed to both 'a' and 'b'",
        ),
        ([("0.jpg", "dog", "train")], ["--rename=dog=a;b"], "class 'a;b': a name must not"),
        ([], [], "lists no photos"),
    ],
)
def test_what_is_wrong_with_a_table_is_said(photos, tmp_path, capsys, rows, options, message):
    table = write_table(photos / "t.csv", rows)
    assert main(["csv", str(table), str(tmp_path / "data"), *options]) == 2
    assert message in capsys.readouterr().err


def test_entries_of_coco_that_do_not_fit_are_named(photos, tmp_path, capsys):
    path = coco(tmp_path / "i.json", [{"image_id": 1, "category_id": 3}, {"image_id": 7}])
    arguments = ["coco", str(tmp_path / "d"), f"--annotations=val={path}", f"--images=val={photos}"]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert "annotations[0]: image_id 1 is not the id of an image" in error
    assert "annotations[1]: category_id None is not the id of a category" in error


IMAGE, CATEGORY = {"id": 7, "file_name": "0.jpg"}, {"id": 3, "name": "dog"}


@pytest.mark.parametrize(
    ("part", "entries", "complaint"),
    [
        (
            "images",
            [IMAGE, IMAGE | {"file_name": "1.jpg"}],
            "[1]: id 7 is already used by images[0]",
        ),
        (
            "images",
            [IMAGE, {"id": 8, "file_name": "./0.jpg"}],
            "[1]: './0.jpg' is already listed as images[0]",
        ),
        ("images", [IMAGE, {"id": 8}], "[1]: file_name None is not a name"),
        ("images", [{"file_name": "0.jpg"}], "[0]: id None is neither a number nor a string"),
        (
            "images",
            [{"id": [7], "file_name": "0.jpg"}],
            "[0]: id [7] is neither a number nor a string",
        ),
        ("images", ["0.jpg"], "[0]: expected an object, got '0.jpg'"),
        (
            "images",
            [{"id": 7, "file_name": "\ud800.jpg"}],
            "[0]: file_name '\\ud800.jpg' is not valid Unicode",
        ),
        ("images", [], "lists no photos"),
        ("images", {}, "has no list 'images'; COCO's format"),
        ("categories", [CATEGORY, {"id": 4}], "[1]: name None is not a name"),
        ("categories", [CATEGORY, {"id": 4, "name": 4}], "[1]: name 4 is not a name"),
        ("categories", [CATEGORY, CATEGORY], "[1]: id 3 is already used by categories[0]"),
        ("categories", [None], "[0]: expected an object, got None"),
        ("annotations", [[7, 3]], "[0]: expected an object, got [7, 3]"),
        ("annotations", [{"category_id": 3}], "[0]: image_id None is not the id of an image"),
        (
            "annotations",
            [{"image_id": {}, "category_id": 3}],
            "[0]: image_id {} is not the id of an image",
        ),
        ("annotations", [{"image_id": 7}], "[0]: category_id None is not the id of a category"),
    ],
)
def test_entries_of_coco_that_are_not_whole_are_named(
    photos, tmp_path, capsys, part, entries, complaint
):
    path = tmp_path / "i.json"
    whole = {"images": [IMAGE], "categories": [CATEGORY], "annotations": []}
    path.write_text(json.dumps(whole | {part: entries}))
    arguments = ["coco", str(tmp_path / "d"), f"--annotations=val={path}", f"--images=val={photos}"]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert "i.json" in error and complaint in error
    assert not complaint.startswith("[") or f"i.json: {part}{complaint}" in error


def test_a_split_given_twice_loses_no_photo_unseen(photos, tmp_path, capsys):
    path = coco(tmp_path / "i.json", [])
    arguments = ["coco", str(tmp_path / "d")]
    both = [f"--annotations=train={path}", f"--images=train={photos}"]
    assert main([*arguments, *both, *both]) == 2
    assert f"--annotations: train has {path} and {path}" in capsys.readouterr().err
    other = [f"--annotations=test={path}", f"--images=test={photos}"]
    assert main([*arguments, *both, *other]) == 2
    assert f"{photos / '0.jpg'} is already in train" in capsys.readouterr().err
