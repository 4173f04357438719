"""The command line of the demo's page, as far as it goes without a page."""

import importlib.util

import pytest

from serving import demo
from serving.indexing.folder_indexes import FolderIndexes


@pytest.fixture
def refused(capsys):
    def refused(*arguments):
        assert demo.main([str(argument) for argument in arguments]) == 2
        return capsys.readouterr().err

    return refused


@pytest.fixture
def gradio():
    pytest.importorskip("gradio", reason="the demo's page needs gradio")


def test_others_are_not_let_in_by_chance(refused, gradio, tmp_path):
    assert "--host 0.0.0.0: others could search any folder" in refused(tmp_path, "--host=0.0.0.0")
    assert "any folder" in refused(tmp_path, "--host", "::")
    assert "any folder" in refused(tmp_path, "--host", "example.org")
    # With a folder for them the next thing is looked at: the model.
    there = refused(tmp_path, "--host", "0.0.0.0", "--photos", tmp_path)
    assert "no version in it" in there


def test_what_can_not_be_meant_is_refused(refused, gradio, tmp_path):
    assert "use 0 to 65535" in refused(tmp_path, "--port", "70000")
    assert "give both" in refused(tmp_path, "--compare-server", "localhost:1")
    assert "no such folder" in refused(tmp_path, "--photos", tmp_path / "nowhere")
    assert "nowhere: no such folder" in refused(tmp_path / "nowhere")
    assert "either the folder MODEL_DIR or --preset NAME" in refused()
    assert "either the folder" in refused(
        tmp_path, "--preset", "efficientnet_lite0_imagenet_minilm"
    )
    unknown = refused("--preset", "efficientnet_lite0_imagenet_minlm")
    assert "did you mean 'efficientnet_lite0_imagenet_minilm'?" in unknown


def test_without_gradio_the_extra_is_named(refused, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install 'biam-tf[demo]'" in refused(tmp_path)


def test_a_model_that_can_not_be_loaded_ends_the_command(refused, gradio, tagger_dir, tmp_path):
    version = tmp_path / "model" / "1"
    version.mkdir(parents=True)
    for name in ("saved_model.pb", "assets.extra"):
        (version / name).symlink_to(tagger_dir / "1" / name)  # and no variables
    said = refused(tmp_path / "model", "--port", "0", "--no-browser")
    assert "model: the model can't be loaded: " in said


def test_an_export_without_its_facts_is_told_of(refused, gradio, tagger_dir, tmp_path):
    version = tmp_path / "model" / "1"
    version.mkdir(parents=True)
    for name in ("saved_model.pb", "variables"):
        (version / name).symlink_to(tagger_dir / "1" / name)
    assert "no assets.extra/vocabulary.npz" in refused(tmp_path / "model", "--port", "0")


def test_folders_are_listed_only_where_they_may_be_searched(tagger_dir, tmp_path):
    for name in ("open/a", "open/.hidden", "open/b", "closed"):
        (tmp_path / name).mkdir(parents=True)
    root = tmp_path / "open"
    indexes = FolderIndexes(tagger_dir, tmp_path / "indexes", root)
    assert indexes.nearby(str(root)) == [str(root), f"{root}/a", f"{root}/b"]
    assert indexes.nearby(f"{root}/a") == [f"{root}/a", str(root)]
    assert indexes.nearby(str(tmp_path)) == indexes.nearby("/") == indexes.nearby("") == []
