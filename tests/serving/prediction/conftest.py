"""Fixtures of the tests of `serving.predict`."""

import functools
import shutil

import pytest

from biam_tf import Tagger


@pytest.fixture(scope="session", autouse=True)
def loaded_once():
    """A model is loaded for the first test that needs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tagger, "load", functools.cache(Tagger.load))
        yield


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The cache folder, empty."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("BIAM_CACHE", str(folder))
    return folder


@pytest.fixture
def photos(scenes, tmp_path):
    """A folder of 20 photos in two sub-folders, one of them broken, and what is no photo."""
    folder = tmp_path / "photos"
    (folder / "b" / "deep").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    drawn = sorted((scenes / "images").rglob("*.*"))[:20]
    for number, path in enumerate(drawn):
        place = folder / "b" / "deep" if number % 2 else folder
        shutil.copy(path, place / f"{number:02d}{path.suffix}")
    (folder / "broken.jpg").write_bytes(b"no photo")
    (folder / "notes.txt").write_text("no photo")
    shutil.copy(drawn[0], folder / ".hidden" / "thumbnail.jpg")
    shutil.copy(drawn[0], folder / "._00.jpg")
    return folder
