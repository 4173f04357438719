import unicodedata

import numpy as np
import pytest
from PIL import Image

from biam_tf.errors import UserError
from training.config import DataConfig
from training.data.class_list import read_class_list
from training.data.dataset import Split, TaggingDataset
from training.data.folder.reader import check_photos, read_folder
from training.data.registry import load_dataset

pytestmark = pytest.mark.unit

CLASSES = "name,group\ncat,seen\npolar bear,unseen\ndog,seen\nblur,ignored\n"
ANNOTATIONS = (
    "image,split,labels\n"
    "images/a.png,train,cat;dog\n"
    "images/b.png,train, polar bear ; cat \n"
    "images/deep/c.jpg,test,polar bear;blur\n"
    "images/d.png,train,\n"
)


@pytest.fixture
def folder(tmp_path):
    """A small, faultless folder data set."""
    folder = tmp_path / "photos"
    (folder / "images" / "deep").mkdir(parents=True)
    for name in ("a.png", "b.png", "deep/c.jpg", "d.png"):
        noise = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)
        Image.fromarray(noise).save(folder / "images" / name)
    (folder / "classes.csv").write_text(CLASSES, encoding="utf-8")
    (folder / "annotations.csv").write_text(ANNOTATIONS, encoding="utf-8")
    return folder


def message_of(folder) -> str:
    with pytest.raises(UserError) as caught:
        read_folder(folder)
    return str(caught.value)


def test_reads_classes_splits_and_labels(folder):
    dataset = read_folder(folder)
    assert dataset.names == ("cat", "polar bear", "dog")
    assert dataset.groups == ("seen", "unseen", "seen")
    assert dataset.seen.tolist() == [0, 2]
    assert dataset.unseen.tolist() == [1]
    assert list(dataset.splits) == ["train", "test"]
    train = dataset.split("train")
    assert train.images == ("images/a.png", "images/b.png", "images/d.png")
    assert train.labels.dtype == np.int8
    assert train.labels.tolist() == [[1, -1, 1], [1, 1, -1], [-1, -1, -1]]
    assert dataset.split("test").labels.tolist() == [[-1, 1, -1]]
    assert dataset.photo_path("images/a.png") == folder / "images" / "a.png"


def test_with_an_absent_column_unlisted_classes_are_unknown(folder):
    (folder / "annotations.csv").write_text(
        "image,split,labels,absent\n"
        "images/a.png,train,cat,dog;blur\n"
        "images/b.png,train,,\n"
        "images/d.png,val,dog,cat;polar bear\n"
    )
    dataset = read_folder(folder)
    assert dataset.split("train").labels.tolist() == [[1, 0, -1], [0, 0, 0]]
    assert dataset.split("val").labels.tolist() == [[-1, -1, 1]]


def test_columns_may_stand_in_any_order_among_others(folder):
    (folder / "annotations.csv").write_text(
        'photographer,labels,image,split\n"Doe, J.",cat,images/a.png,val\n\n,,,\n'
    )
    assert read_folder(folder).split("val").labels.tolist() == [[1, -1, -1]]


def test_files_saved_by_a_spreadsheet_are_read(folder):
    for name in ("classes.csv", "annotations.csv"):
        text = (folder / name).read_text()
        (folder / name).write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert read_folder(folder).split("train").labels.tolist()[0] == [1, -1, 1]


def test_two_spellings_of_a_path_are_one_photo(folder):
    with (folder / "annotations.csv").open("a") as file:
        file.write("./images//a.png,val,cat\n")
    assert "row 6: photo 'images/a.png' is already listed in row 2" in message_of(folder)


def test_every_bad_row_is_reported_at_once_with_its_number(folder):
    (folder / "images" / "empty.png").touch()
    (folder / "classes.csv").write_text(
        CLASSES + "cat,unseen\nfox,hidden\n,seen\na;b,seen\nlonely\n"
    )
    (folder / "annotations.csv").write_text(
        "image,split,labels,absent\n"
        "images/a.png,train,cat,blur\n"
        "images/a.png,val,cat,\n"
        "images/gone.png,train,cat,\n"
        "images/empty.png,train,cat,\n"
        "images/deep,train,cat,\n"
        "../photos/images/b.png,train,cat,\n"
        "/etc/passwd,train,cat,\n"
        ",train,cat,\n"
        "images/b.png,trian,dogs;zebra,\n"
        "images/d.png,val,cat;dog,dog\n"
        "images/deep/c.jpg,train,cat,dog,\n"
    )
    lines = message_of(folder).splitlines()
    assert lines[0] == f"{folder}: 17 problems"
    assert [line.strip() for line in lines[1:]] == [
        "classes.csv row 6: class 'cat' is already declared in row 2",
        "classes.csv row 7: class 'fox': unknown group 'hidden'; use seen, unseen, ignored",
        "classes.csv row 8: the class has no name",
        "classes.csv row 9: class 'a;b': a name cannot contain ';', which separates names",
        "classes.csv row 10: expected 2 cells (name,group), got 1; a cell with a comma needs "
        "quotes",
        "annotations.csv row 3: photo 'images/a.png' is already listed in row 2",
        "annotations.csv row 4: no such photo: 'images/gone.png'",
        "annotations.csv row 5: photo 'images/empty.png' is empty (0 bytes)",
        "annotations.csv row 6: photo 'images/deep' is a folder",
        "annotations.csv row 7: photo '../photos/images/b.png' lies outside the folder",
        "annotations.csv row 8: photo '/etc/passwd' lies outside the folder",
        "annotations.csv row 9: no photo is named",
        "annotations.csv row 10: label 'dogs' is not declared in classes.csv; did you mean 'dog'?",
        "annotations.csv row 10: label 'zebra' is not declared in classes.csv; declare it there "
        "as seen, unseen or ignored",
        "annotations.csv row 10: unknown split 'trian'; use train, val, test",
        "annotations.csv row 11: 'dog' is both in labels and in absent",
        "annotations.csv row 12: expected 4 cells (image,split,labels,absent), got 5; a cell with "
        "a comma needs quotes",
    ]


def test_a_photo_that_lies_in_images_is_pointed_at(folder):
    (folder / "annotations.csv").write_text("image,split,labels\na.png,train,cat\n")
    assert "no such photo: 'a.png'; did you mean 'images/a.png'?" in message_of(folder)


def test_a_long_list_of_problems_is_cut(folder):
    rows = "".join(f"images/{i}.png,train,cat\n" for i in range(100))
    (folder / "annotations.csv").write_text("image,split,labels\n" + rows)
    lines = message_of(folder).splitlines()
    assert lines[0].endswith("100 problems")
    assert lines[-1] == "  and 70 more"
    assert len(lines) == 32


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("annotations.csv", "image,split\n", "row 1: no column 'labels'; the columns are: image"),
        ("annotations.csv", "", "row 1: no column 'image'; the columns are: none"),
        ("annotations.csv", "image,split,labels\n", "annotations.csv: no photo is listed"),
        ("annotations.csv", "image,split,labels,absnet\n", "'absnet'; did you mean 'absent'?"),
        ("annotations.csv", "image,split,labels,labels\n", "column 'labels' occurs 2 times"),
        ("annotations.csv", 'image,split,labels\n"a,b\n', "is not a CSV file: line 2: unexpected"),
        ("annotations.csv", b"image,split,labels\n\xe9,train,cat\n", "is not UTF-8 text"),
        ("classes.csv", "class,group\ncat,seen\n", "row 1: no column 'name'"),
        ("classes.csv", "name,group\n", "classes.csv: no class is declared"),
        ("classes.csv", "name,group\ncat,ignored\n", "classes.csv: every class is ignored"),
    ],
)
def test_a_file_of_another_form_is_refused(folder, file, text, message):
    (folder / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    assert message in message_of(folder)


def test_a_bad_header_of_one_file_does_not_hide_the_other_files_problems(folder):
    (folder / "classes.csv").write_text("class,group\n")
    (folder / "annotations.csv").write_text("image,split,labels\nimages/gone.png,train,cat\n")
    assert "no column 'name'" in message_of(folder)
    assert "no such photo: 'images/gone.png'" in message_of(folder)
    assert "not declared" not in message_of(folder)


def test_missing_folders_and_files_are_named(folder):
    assert message_of(folder / "other") == (
        f"{folder / 'other'}: no such folder; it should hold a folder data set"
    )
    (folder / "annotations.csv").unlink()
    (folder / "classes.csv").unlink()
    assert "annotations.csv: no such file; it needs the columns image,split,labels" in message_of(
        folder
    )
    assert "classes.csv: no such file; it needs the columns name,group" in message_of(folder)


def test_a_missing_split_is_named_with_those_there_are(folder):
    with pytest.raises(UserError, match=r"no photo of split 'val'; this data set has: train, test"):
        read_folder(folder).split("val")
    with pytest.raises(UserError, match=r"split 'tests'; did you mean 'test'\?"):
        read_folder(folder).split("tests")


def test_the_fingerprint_changes_with_classes_and_labels_and_not_with_the_place(folder, tmp_path):
    first = read_folder(folder).fingerprint
    folder = folder.rename(tmp_path / "moved")
    assert read_folder(folder).fingerprint == first
    (folder / "classes.csv").write_text(CLASSES.replace("dog,seen", "dog,unseen"))
    assert read_folder(folder).fingerprint != first
    (folder / "classes.csv").write_text(CLASSES)
    (folder / "annotations.csv").write_text(ANNOTATIONS.replace("cat;dog", "cat"))
    assert read_folder(folder).fingerprint != first


def test_labels_must_fit_images_and_classes(tmp_path):
    with pytest.raises(ValueError, match="int8"):
        Split(("a",), np.zeros((1, 2)))
    with pytest.raises(ValueError, match="1 images, but 2 rows"):
        Split(("a",), np.zeros((2, 2), np.int8))
    split = Split(("a",), np.zeros((1, 2), np.int8))
    with pytest.raises(ValueError, match="labels for 2 classes"):
        TaggingDataset(tmp_path, ("x",), ("seen",), {"train": split})
    with pytest.raises(ValueError, match="2 names, but 1 groups"):
        TaggingDataset(tmp_path, ("x", "y"), ("seen",), {"train": split})


class TestCheckPhotos:
    def test_passes_photos_and_counts_them(self, folder):
        steps = []
        check_photos(read_folder(folder), progress=lambda done, total: steps.append((done, total)))
        assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]

    def test_reports_every_broken_photo_with_its_row(self, folder):
        images = folder / "images"
        for name in ("a.png", "deep/c.jpg"):
            contents = (images / name).read_bytes()
            (images / name).write_bytes(contents[: len(contents) // 2])
        (images / "b.png").write_text("no photo")
        dataset = read_folder(folder)
        (images / "d.png").unlink()
        with pytest.raises(UserError) as caught:
            check_photos(dataset)
        lines = str(caught.value).splitlines()
        assert lines[0] == f"{folder}: 4 problems"
        expected = [
            "annotations.csv row 2: photo 'images/a.png': not a whole JPEG, PNG, GIF, BMP or WebP",
            "annotations.csv row 3: photo 'images/b.png': not a whole JPEG, PNG, GIF, BMP or WebP",
            "annotations.csv row 4: photo 'images/deep/c.jpg': not a whole JPEG",
            "annotations.csv row 5: photo 'images/d.png': no such file",
        ]
        for line, start in zip(lines[1:], expected, strict=True):
            assert line.strip().startswith(start)

    def test_stops_when_interrupted(self, folder):
        dataset = read_folder(folder)
        decoded = []

        def interrupt(done, total):
            decoded.append(done)
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            check_photos(dataset, ["images/a.png"] * 1000, progress=interrupt)
        assert decoded == [1]

    def test_looks_only_at_the_photos_asked_for(self, folder):
        (folder / "images" / "b.png").write_text("no photo")
        check_photos(read_folder(folder), ["images/a.png"])
        with pytest.raises(UserError, match=r"images/b\.png"):
            check_photos(read_folder(folder), ["images/b.png"])

    def test_formats_that_nothing_decodes_are_refused(self, folder):
        Image.new("RGB", (4, 4)).save(folder / "images" / "a.png", format="PPM")
        with pytest.raises(UserError, match=r"row 2: photo 'images/a.png': not a whole"):
            check_photos(read_folder(folder))


class TestLoadDataset:
    def test_reads_a_folder(self, folder):
        assert load_dataset(DataConfig("folder", str(folder))).names[0] == "cat"

    def test_a_folder_needs_its_directory(self):
        with pytest.raises(UserError, match=r"not set; a folder .* --set data\.directory=PATH"):
            load_dataset(DataConfig("folder"))


def test_corel5k_is_read_and_its_photos_are_whole(test_data):
    dataset = read_folder(test_data / "data" / "corel5k")
    sizes = {name: len(split) for name, split in dataset.splits.items()}
    assert sizes == {"train": 2600, "val": 300, "test": 1100}
    assert (len(dataset.seen), len(dataset.unseen)) == (205, 36)
    assert (dataset.split("train").labels[:, dataset.unseen] == 1).any()
    check_photos(dataset, dataset.split("val").images)


def test_names_in_two_forms_of_unicode_are_one_class(folder):
    for file, form in (("classes.csv", "NFC"), ("annotations.csv", "NFD")):
        text = (folder / file).read_text(encoding="utf-8").replace("cat", "câté")
        (folder / file).write_text(unicodedata.normalize(form, text), encoding="utf-8")
    assert "c\u00e2t\u00e9" in read_folder(folder).names
    (folder / "annotations.csv").unlink()
    (folder / "classes.csv").write_text("name,group\nze\u0301bra,seen\n", encoding="utf-8")
    assert read_class_list(folder).names == ("z\u00e9bra",)
