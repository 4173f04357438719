"""The script that trains a small image-text model writes a preset that everything reads."""

import json

import numpy as np
import pytest

pytest.importorskip("keras_hub", reason="keras-hub is not installed")

from benchmarks import image_text_model
from biam_tf.backbones import build_backbone
from biam_tf.backbones.joint_space import joint_space
from biam_tf.embeddings.text_tower import TextTower


def test_a_few_steps_give_a_preset_whose_two_sides_are_of_one_space(tmp_path, capsys):
    folder = tmp_path / "preset"
    sizes = ["--steps", "3", "2", "--pictures", "140", "70", "--texts", "4"]
    assert image_text_model.main([str(folder), *sizes]) == 0
    printed = capsys.readouterr().out
    assert "whole: step 2 of 2, loss" in printed and f"keras_hub:{folder}" in printed
    name = f"keras_hub:{folder}"
    backbone, tower = build_backbone(name), TextTower.load(name)
    outputs = backbone(np.zeros((1, 96, 96, 3), np.float32))
    assert outputs["region_features"].shape == (1, 8, 8, 64)
    assert joint_space(backbone).fingerprint == tower.space
    # Words are tokens of their own, so that all objects of a caption fit into the context.
    caption = "two red striped stars and a blue plain ring and a pink plain cross"
    assert len(tower.tokens([caption])[0]) < tower.context
    assert json.loads((folder / "config.json").read_text())["registered_name"].endswith(
        "SigLIPBackbone"
    )
    assert image_text_model.main([str(folder), *sizes]) == 2
    assert "exists already; nothing was changed" in capsys.readouterr().err
