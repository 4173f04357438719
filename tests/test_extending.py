"""The system, the context block and the data set of docs/extending.md, taken from the page."""

import pathlib
import re
import shutil
import sys
import types

import keras
import numpy as np
import pytest

from biam_tf.models.context_blocks import REGION_CONTEXT, ContextBlock
from biam_tf.models.systems import SYSTEMS, build_system_head
from training import run
from training.data.registry import DATA_SOURCES

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "extending.md"
CODE = {
    pathlib.PurePath(path).stem: code
    for path, code in re.findall(
        r"^`([\w/]+\.py)`:\n\n```python\n(.*?)```", PAGE.read_text(), re.DOTALL | re.MULTILINE
    )
}


@pytest.fixture
def page_module(monkeypatch):
    """Returns a function that makes a module of the page's code."""

    def make(name: str) -> types.ModuleType:
        module = types.ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)  # a dataclass looks up its own module
        exec(compile(CODE[name], str(PAGE), "exec"), module.__dict__)
        return module

    return make


@pytest.fixture
def scene_pooling(page_module, monkeypatch):
    """The page's system, registered as by its one line."""
    module = page_module("scene_pooling")
    monkeypatch.setitem(SYSTEMS, "scene_pooling", module.SCENE_POOLING)
    return module


@pytest.fixture
def squeeze_excitation(page_module, monkeypatch):
    """The page's context block, registered as by its one line."""
    module = page_module("squeeze_excitation")
    block = ContextBlock(lambda settings, name: module.SqueezeExcitation(name=name))
    monkeypatch.setitem(REGION_CONTEXT, "squeeze_excitation", block)
    return module


@pytest.fixture
def class_folders(page_module, monkeypatch):
    """The page's data set, registered as by its one line."""
    module = page_module("class_folders")
    monkeypatch.setitem(DATA_SOURCES, module.CLASS_FOLDERS.name, module.CLASS_FOLDERS)
    return module


def train(*settings: str) -> int:
    few = ("training.epochs=1", "training.batch_size=8", "backbone.image_size=32")
    bare = ("training.report=false", "training.tensorboard=false", "thresholds.held_out_folds=0")
    settings = (*few, *bare, *settings)
    return run.main([option for setting in settings for option in ("--set", setting)])


def test_the_system_scores_what_the_page_says(scene_pooling, rng):
    head = build_system_head("scene_pooling", (2, 3, 5), 4, 6, channels=7)
    x_r, x_g = rng.normal(size=(2, 2, 3, 5)), rng.normal(size=(2, 4))
    classes = rng.normal(size=(3, 6))
    (w_r, b_r), (w_g, b_g) = (
        head.get_layer(name).get_weights() for name in ("region_embedding", "scene_embedding")
    )
    regions, scene = x_r.reshape(2, 6, 5) @ w_r + b_r, x_g @ w_g + b_g
    similarity = np.exp(np.einsum("brd,bd->br", regions, scene) / np.sqrt(7))
    weights = similarity / similarity.sum(axis=1, keepdims=True)
    pooled = np.einsum("br,brd->bd", weights, regions)
    expected = pooled @ (classes @ head.get_layer("bilinear").kernel.numpy()).T
    np.testing.assert_allclose(head([x_r, x_g, classes]), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_the_system_trains_by_the_command_of_the_page_and_is_read_back(
    scene_pooling, scenes, tmp_path, capsys
):
    data = f"data={{name: folder, directory: {scenes}}}"
    head = "head={system: scene_pooling, channels: 8}"
    assert train(head, data, f"output={tmp_path / 'run'}") == 0
    head = keras.models.load_model(tmp_path / "run" / "model.keras")
    assert "scene_pooling" in [layer.name for layer in head.layers]
    assert train("head={system: scene_pooling, chanels: 8}") == 2
    assert "head.chanels: unknown key; did you mean 'channels'" in capsys.readouterr().err


def test_the_context_block_scales_channels_by_their_means(squeeze_excitation, rng):
    layer, regions = (
        squeeze_excitation.SqueezeExcitation(reduction=2),
        rng.normal(size=(2, 3, 5, 4)),
    )
    scaled = keras.ops.convert_to_numpy(layer(regions))
    (w_1, b_1), (w_2, b_2) = layer.squeeze.get_weights(), layer.excite.get_weights()
    hidden = np.maximum(regions.mean(axis=(1, 2)) @ w_1 + b_1, 0)
    weights = 1 / (1 + np.exp(-(hidden @ w_2 + b_2)))
    np.testing.assert_allclose(scaled, regions * weights[:, None, None], rtol=1e-4, atol=1e-5)
    again = type(layer).from_config(layer.get_config())
    assert again.reduction == 2 and layer.compute_output_shape((None, 3, 5, 4)) == (None, 3, 5, 4)


@pytest.mark.slow
def test_the_context_block_trains_by_the_command_of_the_page_and_is_read_back(
    squeeze_excitation, scenes, tmp_path, capsys
):
    data = f"data={{name: folder, directory: {scenes}}}"
    head = "head={region_context: squeeze_excitation, channels: 8, top_k: 3}"
    assert train(head, data, f"output={tmp_path / 'run'}") == 0
    head = keras.models.load_model(tmp_path / "run" / "model.keras")
    assert isinstance(head.get_layer("region_context"), squeeze_excitation.SqueezeExcitation)
    assert train("head.region_context=squeeze_excitaton") == 2
    assert "criss_cross, squeeze_excitation, none" in capsys.readouterr().err


@pytest.mark.slow
def test_the_data_set_is_read_and_trained_on(class_folders, scenes, tmp_path, capsys):
    photos = iter(sorted((scenes / "images").iterdir()))
    for split, count in (("train", 8), ("test", 2)):
        for name in ("dog", "sea", "zebra"):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for _ in range(count):
                shutil.copy(next(photos), folder)
    vectors = tmp_path / "vectors.txt"
    vectors.write_text("dog 1 0 0\nsea 0 1 0\nzebra 0 0 1\n")
    data = f"name: class_folders, directory: {tmp_path / 'photos'}"
    settings = (
        "head={channels: 8, num_heads: 2, top_k: 3}",
        f"vocabulary.word_vectors={vectors}",
        f"output={tmp_path / 'run'}",
    )
    assert train(f"data={{{data}, unseen_names: [zebra]}}", *settings) == 0
    assert "24 train, 6 test photos; 2 seen and 1 unseen classes" in capsys.readouterr().out
    assert train(f"data={{{data}, unseen_names: [zebr]}}", *settings[:2]) == 2
    error = capsys.readouterr().err
    assert "data.unseen_names: no folder 'zebr'; did you mean 'zebra'?" in error
    assert train(f"data={{{data}, unseen: [zebra]}}", *settings[:2]) == 2
    assert "data.unseen: unknown key; did you mean 'unseen_names'?" in capsys.readouterr().err
