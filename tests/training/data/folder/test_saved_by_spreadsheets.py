"""Lists as spreadsheets and other computers save them are read, or answered in one sentence."""

import pytest
from PIL import Image

from biam_tf.errors import UserError
from training.data.class_list import read_class_list, read_row_names
from training.data.folder.reader import read_folder
from training.describe import main as describe

pytestmark = pytest.mark.unit

CLASSES = "name,group\ncat,seen\ndog,unseen\n"
ANNOTATIONS = 'image,split,labels,absent\nimages/a.png,train,"cat;dog",\nimages/B.png,val,,cat\n'


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    for name in ("a.png", "B.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / "images" / name)
    (tmp_path / "classes.csv").write_text(CLASSES)
    (tmp_path / "annotations.csv").write_text(ANNOTATIONS)
    return tmp_path


def message_of(folder, **options) -> str:
    with pytest.raises(UserError) as caught:
        read_folder(folder, **options)
    return str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le-bom"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("more", ["", "SS"])
def test_every_common_form_gives_the_same_data(folder, encoding, separator, more):
    for name, text in (("classes.csv", CLASSES), ("annotations.csv", ANNOTATIONS)):
        end = more.replace("S", separator) + "\r\n"
        text = "".join(line + end for line in text.replace(",", separator).splitlines())
        text += separator * 3 + "\r\n"
        if encoding == "utf-16-le-bom":
            content = ("\ufeff" + text).encode("utf-16-le")
        else:
            content = text.encode(encoding)
        (folder / name).write_bytes(content)
    dataset = read_folder(folder)
    assert dataset.names == ("cat", "dog") and dataset.groups == ("seen", "unseen")
    assert dataset.split("train").labels.tolist() == [[1, 1]]
    assert dataset.split("val").labels.tolist() == [[-1, 0]]
    assert read_class_list(folder).groups == ("seen", "unseen")


def test_a_cell_may_be_longer_than_the_csv_module_takes_by_itself(folder):
    labels = "cat;" * 50_000
    (folder / "annotations.csv").write_text(f"image,split,labels\nimages/a.png,train,{labels}\n")
    assert read_folder(folder).split("train").labels.tolist() == [[1, -1]]


def test_a_workbook_is_named(folder):
    (folder / "annotations.csv").write_bytes(b"PK\x03\x04 ...")
    assert "annotations.csv: is an Excel workbook (.xlsx) or a zip archive and not a CSV" in (
        message_of(folder)
    )
    (folder / "classes.csv").write_bytes(b"\xd0\xcf\x11\xe0 ...")
    assert "save it as CSV UTF-8" in message_of(folder)
    with pytest.raises(UserError, match=r"classes.csv: is an Excel workbook \(.xls\)"):
        read_class_list(folder)
    (folder / "annotations.csv").rename(folder / "annotations.xlsx")
    assert "annotations.xlsx is there: save or rename it as annotations.csv" in message_of(folder)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_text_file_of_names_may_have_a_byte_order_mark(tmp_path, encoding):
    path = tmp_path / "names.txt"
    path.write_bytes("caf\u00e9\r\ndog, wild\r\n".encode(encoding))
    assert read_class_list(path).names == read_row_names(path) == ("caf\u00e9", "dog, wild")
    path.write_bytes(b"PK\x03\x04")
    with pytest.raises(UserError, match=r"names.txt: is an Excel workbook"):
        read_row_names(path)


def test_names_joined_by_commas_are_told_how_to_be(folder):
    text = "image;split;labels\nimages/a.png;train;cat,dog\n"
    (folder / "annotations.csv").write_text(text)
    assert "label 'cat,dog' is not declared in classes.csv; separate names with ';'" in (
        message_of(folder)
    )


@pytest.mark.parametrize(
    ("image", "answer"),
    [
        ("images\\a.png", "did you mean 'images/a.png'? Write / instead of \\"),
        ("images\\c.png", "no such photo: 'images\\\\c.png'; write / instead of \\"),
        ("a.png", "did you mean 'images/a.png'?"),
        ("images/A.PNG", "did you mean 'images/a.png'?"),
        ("images/b.png", "did you mean 'images/B.png'?"),
        ("C:\\photos\\a.png", "is a path of a Windows computer; write its path below this folder"),
        ("D:/photos/a.png", "is a path of a Windows computer"),
        ("\\\\server\\photos\\a.png", "is a path of a Windows computer"),
    ],
)
def test_a_path_of_another_computer_is_answered(folder, image, answer):
    (folder / "annotations.csv").write_text(f"image,split,labels\n{image},train,cat\n")
    assert answer in message_of(folder)


def test_all_broken_photos_are_named_at_once(folder):
    for name in ("empty", "gone", "cut", "fine"):
        with (folder / "annotations.csv").open("a") as file:
            file.write(f"images/{name}.png,train,cat,\n")
    Image.effect_noise((32, 32), 90).save(folder / "images/fine.png")
    (folder / "images/empty.png").touch()
    (folder / "images/cut.png").write_bytes((folder / "images/fine.png").read_bytes()[:200])
    message = message_of(folder)
    assert message.startswith(f"{folder}: 3 problems\n")
    assert "row 4: photo 'images/empty.png' is empty" in message
    assert "row 5: no such photo: 'images/gone.png'" in message
    assert "row 6: photo 'images/cut.png': not a whole" in message


def test_a_data_set_without_one_readable_photo_is_described(folder, tmp_path, capsys):
    text = ANNOTATIONS.replace("images/", "images\\")
    (folder / "annotations.csv").write_text(text)
    assert describe([str(folder), "--output", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1] == (
        "Warning: 2 of 2 photos cannot be read. The paths of 2 of them have a backslash; write / "
        "instead."
    )
