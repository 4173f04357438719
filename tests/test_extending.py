"""The system that docs/extending.md walks through, taken from the page."""

import pathlib
import re
import sys
import types

import keras
import numpy as np
import pytest

from biam_tf.models.systems import SYSTEMS, build_system_head
from training import run

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "extending.md"


@pytest.fixture
def scene_pooling(monkeypatch):
    """The page's system, registered for a test as its one line would."""
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[1]
    module = types.ModuleType("scene_pooling")
    monkeypatch.setitem(sys.modules, "scene_pooling", module)  # where the dataclass looks itself up
    exec(compile(code, str(PAGE), "exec"), module.__dict__)
    monkeypatch.setitem(SYSTEMS, "scene_pooling", module.SCENE_POOLING)
    return module


def test_it_scores_what_the_page_says(scene_pooling, rng):
    head = build_system_head("scene_pooling", (2, 3, 5), 4, 6, channels=7)
    x_r, x_g = rng.normal(size=(2, 2, 3, 5)), rng.normal(size=(2, 4))
    classes = rng.normal(size=(3, 6))
    (w_r, b_r), (w_g, b_g) = (
        head.get_layer(name).get_weights() for name in ("region_embedding", "scene_embedding")
    )
    regions, scene = x_r.reshape(2, 6, 5) @ w_r + b_r, x_g @ w_g + b_g
    likeness = np.exp(np.einsum("brd,bd->br", regions, scene) / np.sqrt(7))
    weights = likeness / likeness.sum(axis=1, keepdims=True)
    pooled = np.einsum("br,brd->bd", weights, regions)
    expected = pooled @ (classes @ head.get_layer("bilinear").kernel.numpy()).T
    np.testing.assert_allclose(head([x_r, x_g, classes]), expected, rtol=1e-4, atol=1e-5)


def test_it_trains_by_the_command_of_the_page_and_is_read_back(
    scene_pooling, scenes, tmp_path, capsys
):
    settings = [
        "head={system: scene_pooling, channels: 8}",
        "training.epochs=1",
        "training.batch_size=8",
        f"data={{name: folder, directory: {scenes}}}",
        f"output={tmp_path / 'run'}",
    ]
    assert run.main([option for setting in settings for option in ("--set", setting)]) == 0
    head = keras.models.load_model(tmp_path / "run" / "model.keras")
    assert "scene_pooling" in [layer.name for layer in head.layers]
    assert run.main(["--set", "head={system: scene_pooling, chanels: 8}"]) == 2
    assert "head.chanels: unknown key; did you mean 'channels'" in capsys.readouterr().err
