"""Files of LVIS, Roboflow and others in COCO's format."""

import json

import pytest
from import_tables import imported, rows_of

from training.data.folder.reader import read_folder
from training.import_data import main

pytestmark = pytest.mark.unit


def import_coco(photos, out, content):
    path = out.parent / "i.json"
    path.write_text(json.dumps(content))
    return main(["coco", str(out), f"--annotations=train={path}", f"--images=train={photos}"])


CATEGORIES = [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}, {"id": 3, "name": "sea"}]


def test_only_negative_categories_of_lvis_are_absent(photos, tmp_path, capsys):
    url = "http://images.cocodataset.org/train2017/"
    images = [
        {"id": 1, "coco_url": f"{url}0.jpg", "neg_category_ids": [2],
         "not_exhaustive_category_ids": [3]},
        {"id": 2, "coco_url": f"{url}1.jpg", "neg_category_ids": [1, 2],
         "not_exhaustive_category_ids": []},
        {"id": 3, "coco_url": f"{url}2.jpg", "neg_category_ids": []},
        {"id": 4, "coco_url": f"{url}3.jpg", "neg_category_ids": [3, 1],
         "not_exhaustive_category_ids": [3]},
    ]  # fmt: skip
    objects = [
        {"id": 1, "image_id": 1, "category_id": 1},
        {"id": 2, "image_id": 2, "category_id": 3},
    ]
    content = {"images": images, "annotations": objects, "categories": CATEGORIES}
    assert import_coco(photos, tmp_path / "out", content) == 0
    assert imported(tmp_path / "out")[0] == [
        ["image", "split", "labels", "absent"],
        ["0.jpg", "train", "dog", "cat"],
        ["1.jpg", "train", "sea", "dog;cat"],
        ["2.jpg", "train", "", ""],
        ["3.jpg", "train", "", "dog"],
    ]
    # dog, cat, sea: 1 present, -1 absent, 0 unknown.
    labels = read_folder(tmp_path / "out").splits["train"].labels
    assert labels.tolist() == [[1, -1, 0], [-1, -1, 1], [0, 0, 0], [-1, 0, 0]]
    assert "neg_category_ids of each photo" in capsys.readouterr().out


def test_photos_of_both_folders_of_lvis_are_found(photos, tmp_path):
    for folder, name in (("train2017", "0.jpg"), ("val2017", "1.jpg")):
        (photos / folder).mkdir()
        (photos / name).rename(photos / folder / f"9{name}")
    images = [
        {"id": n, "coco_url": f"http://images.cocodataset.org/{name}"}
        for n, name in enumerate(("train2017/90.jpg", "val2017/91.jpg"))
    ]
    objects = [{"image_id": 0, "category_id": 1}]
    content = {"images": images, "annotations": objects, "categories": CATEGORIES}
    assert import_coco(photos, tmp_path / "out", content) == 0
    assert imported(tmp_path / "out")[0][1:] == [
        ["90.jpg", "train", "dog"],
        ["91.jpg", "train", ""],
    ]


def test_the_group_of_roboflow_is_no_class(photos, tmp_path, capsys):
    categories = [
        {"id": 0, "name": "animals", "supercategory": "none"},
        {"id": 1, "name": "dog", "supercategory": "animals"},
        {"id": 2, "name": "cat", "supercategory": "animals"},
    ]
    images = [{"id": 0, "file_name": "0.jpg"}, {"id": 1, "file_name": "1.jpg"}]
    objects = [{"image_id": 0, "category_id": 1, "iscrowd": 1}]
    content = {"images": images, "annotations": objects, "categories": categories}
    assert import_coco(photos, tmp_path / "out", content) == 0
    assert rows_of(tmp_path / "out" / "classes.csv") == [
        ["name", "group"],
        ["dog", "seen"],
        ["cat", "seen"],
    ]
    text = capsys.readouterr().out
    assert "category 'animals' is left out" in text
    assert "1 of 2 photos have no object" in text and "annotations of crowds" in text
    # With an object of it, it is a class.
    objects[0]["category_id"] = 0
    assert import_coco(photos, tmp_path / "used", content) == 0
    assert ["animals", "seen"] in rows_of(tmp_path / "used" / "classes.csv")


def test_objects_of_unknown_images_are_counted(photos, tmp_path, capsys):
    content = {
        "images": [{"id": 1, "file_name": "", "coco_url": "http://x/y/0.jpg"}],
        "annotations": [{"image_id": 9, "category_id": 1}] * 40 + [{"image_id": "1"}],
        "categories": CATEGORIES,
    }
    assert import_coco(photos, tmp_path / "out", content) == 2
    error = capsys.readouterr().err
    assert error.count("image_id 9 is not the id of an image") == 10
    assert "annotations: 41 of 41 in all have as image_id no id of an image" in error


@pytest.mark.parametrize(
    ("image", "complaint"),
    [
        ({"neg_category_ids": [9]}, "images[0]: neg_category_ids 9 is not the id of a category"),
        ({"neg_category_ids": 9}, "images[0]: neg_category_ids 9 is not the id of a category"),
        ({"neg_category_ids": [1]}, "images[0]: 'dog' has an object and is in neg_category_ids"),
        ({"file_name": "C:\\a\\0.jpg"}, "is a path of a Windows computer"),
    ],
)
def test_contradictions_are_named(photos, tmp_path, capsys, image, complaint):
    content = {
        "images": [{"id": 1, "file_name": "0.jpg"} | image],
        "annotations": [{"image_id": 1, "category_id": 1}],
        "categories": CATEGORIES,
    }
    assert import_coco(photos, tmp_path / "out", content) == 2
    assert complaint in capsys.readouterr().err


def test_categories_that_only_one_file_has_are_said(photos, tmp_path, capsys):
    arguments = ["coco", str(tmp_path / "out")]
    for split, number, categories in (("train", 0, CATEGORIES), ("val", 1, CATEGORIES[:2])):
        path = tmp_path / f"{split}.json"
        images = [{"id": 1, "file_name": f"{number}.jpg"}]
        objects = [{"image_id": 1, "category_id": 1}]
        content = {"images": images, "annotations": objects, "categories": categories}
        path.write_text(json.dumps(content))
        arguments += [f"--annotations={split}={path}", f"--images={split}={photos}"]
    assert main(arguments) == 0
    assert "val.json: lacks categories of the other files ('sea')" in capsys.readouterr().out
