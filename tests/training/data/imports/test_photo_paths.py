"""Paths of photos as lists of other computers have them."""

import collections
import pathlib
import unicodedata

import pytest

from biam_tf.errors import UserError
from training.data.imports.photo_paths import PhotoPaths, split_named

pytestmark = pytest.mark.unit


def test_photos_of_one_name_in_many_folders_are_drawn_apart(tmp_path):
    paths = PhotoPaths(tmp_path)
    drawn = collections.Counter(
        paths.split(paths.find(f"{number}/image.jpg")[0], (0.2, 0.2)) for number in range(200)
    )
    assert all(25 < drawn[split] < 55 for split in ("val", "test"))


def test_the_split_is_that_of_the_path_below_the_list(tmp_path):
    # sha256sum of these names begins with the numbers; the first 0.2 of them are val, the next 0.3
    # test.
    expected = {
        "0/image.jpg": "train",  # 8c15
        "1/image.jpg": "test",  # 658a
        "2/image.jpg": "train",  # d216
        "3/image.jpg": "test",  # 55fd
        "4/image.jpg": "val",  # 156e
        "9/image.jpg": "val",  # 2036
    }
    for folder in (tmp_path, pathlib.Path("photos")):
        for name, split in expected.items():
            for written in (name, f"./{name}", name.replace("/", "\\"), str(tmp_path / name)):
                paths = PhotoPaths(tmp_path if written.startswith("/") else folder)
                assert paths.split(paths.find(written)[0], (0.2, 0.3)) == split


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("images\\a.jpg", "images/a.jpg"),
        (".\\images\\a.jpg", "images/a.jpg"),
        ("./images//a.jpg", "images/a.jpg"),
        ("C:\\photos\\2024\\a.jpg", "local/2024/a.jpg"),
        ("C:/photos/a.jpg", "local/a.jpg"),
        ("s3://bucket/a.jpg", "s3/a.jpg"),
    ],
)
def test_paths_are_those_below_the_list(tmp_path, written, expected):
    paths = PhotoPaths(tmp_path, ["C:\\photos\\=local/", "s3://bucket/=s3/"])
    assert paths.find(written) == (str(tmp_path / expected), None)


def test_a_backslash_in_a_name_that_exists_stays(tmp_path):
    (tmp_path / "a\\b.jpg").touch()
    assert PhotoPaths(tmp_path).find("a\\b.jpg")[0] == str(tmp_path / "a\\b.jpg")


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("C:\\photos\\a.jpg", "'C:\\\\photos\\\\a.jpg' is a path of a Windows computer"),
        ("\\\\server\\share\\a.jpg", "--replace-path //server/share/=photos/"),
        ("gs://bucket/a.jpg", "only http and https addresses are downloaded"),
        ("  ", "names no photo"),
    ],
)
def test_paths_of_other_places_are_answered(tmp_path, written, problem):
    location, complaint = PhotoPaths(tmp_path).find(written)
    assert not location and problem in complaint


def test_two_unicode_forms_of_a_path_are_one_photo(tmp_path):
    paths = PhotoPaths(tmp_path)
    nfd = unicodedata.normalize("NFD", "café.jpg")
    assert paths.find("café.jpg") == paths.find(nfd)


def test_a_replacement_needs_two_sides(tmp_path):
    with pytest.raises(UserError, match="--replace-path 'C:': expected OLD=NEW"):
        PhotoPaths(tmp_path, ["C:"])


def test_splits_have_their_usual_names():
    assert [split_named(text) for text in ("Train", "valid", "Validation", "TEST", "dev")] == [
        "train",
        "val",
        "val",
        "test",
        None,
    ]
