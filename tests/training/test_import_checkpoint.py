"""A checkpoint of the authors' code becomes the folder of a run."""

import dataclasses

import numpy as np
import pytest
from torch_files import tensor, write_zip

from biam_tf.backbones import build_backbone
from biam_tf.models import build_tagger
from biam_tf.models.presets import PRESETS
from biam_tf.runs import load_run
from biam_tf.vocabulary import Vocabulary
from training.config import load_config
from training.import_checkpoint import main

CHANNELS, HEADS, EMBEDDING_SIZE = 16, 4, 10
# The names of the authors' file, at sizes that fit the backbone `small`.
SHAPES = {
    "conv_3X3.body": (CHANNELS, 128, 3, 3),
    "region_context_block.w_q": (CHANNELS, CHANNELS, 1, 1),
    "region_context_block.w_k": (CHANNELS, CHANNELS, 1, 1),
    "region_context_block.w_v": (CHANNELS, CHANNELS, 1, 1),
    "region_context_block.w_o": (CHANNELS, CHANNELS, 1, 1),
    "region_context_block.sub_network.conv1": (2 * CHANNELS, CHANNELS, 1, 1),
    "region_context_block.sub_network.conv2": (CHANNELS, 2 * CHANNELS, 1, 1),
    "scene_context_block.w_g": (CHANNELS, 256, 1, 1),
    "scene_context_block.gcff.body": (CHANNELS, CHANNELS, 3, 3),
    "scene_context_block.channel_conv.body": (CHANNELS, CHANNELS, 1, 1),
    "W": (24, EMBEDDING_SIZE),
    "conv_1X1.body": (24, 2 * CHANNELS, 1, 1),
}


@pytest.fixture
def checkpoint(tmp_path, rng):
    arrays = {}
    for name, shape in SHAPES.items():
        arrays |= {
            f"{name}.weight": rng.normal(size=shape),
            f"{name}.bias": rng.normal(size=shape[0]),
        }
    for name in ("conv_3X3.bn", "scene_context_block.gcff.bn"):
        for part in ("weight", "bias", "running_mean", "running_var"):
            arrays[f"{name}.{part}"] = rng.uniform(0.5, 1.5, CHANNELS)
    state = {
        f"module.{name}": tensor(array.astype("float32"), str(key))
        for key, (name, array) in enumerate(arrays.items())
    }
    return write_zip(tmp_path / "best.pth", {"epoch": 7, "state_dict": state})


@pytest.fixture
def small_weights(tmp_path):
    path = tmp_path / "small.weights.h5"
    build_backbone("small", 32).save_weights(path)
    return path


@pytest.fixture
def convert(checkpoint, small_weights, tmp_path):
    """Runs the command on the backbone `small`; returns the exit status."""

    def run(*options):
        settings = ("backbone.name=small", "backbone.image_size=32")
        settings += (f"backbone.weights={small_weights}",)
        overrides = [part for setting in settings for part in ("--set", setting)]
        target = str(tmp_path / "runs" / "imported")
        return main([str(checkpoint), target, "--num-heads", str(HEADS), *overrides, *options])

    return run


def test_an_imported_checkpoint_is_a_run(convert, tmp_path, rng):
    assert convert() == 0
    run = load_run(tmp_path / "runs" / "imported")
    assert load_config(run.folder.config).head.settings == dataclasses.replace(
        PRESETS["released"], num_heads=HEADS, top_k=6, channels=CHANNELS, fused_channels=24
    )
    assert len(run.vocabulary) == 0
    assert run.vocabulary.embedding_size == EMBEDDING_SIZE
    photos = rng.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    class_embeddings = rng.normal(size=(5, EMBEDDING_SIZE)).astype("float32")
    scores = build_tagger(run.backbone, run.head)([photos, class_embeddings])
    assert scores.shape == (2, 5)
    assert np.isfinite(scores).all()


def test_the_classes_may_be_given(convert, tmp_path, rng):
    embeddings = rng.normal(size=(2, EMBEDDING_SIZE))
    Vocabulary(("bear", "sky"), embeddings, ("unseen", "seen")).save(tmp_path / "classes.npz")
    assert convert("--vocabulary", str(tmp_path / "classes.npz")) == 0
    assert load_run(tmp_path / "runs" / "imported").vocabulary.names == ("bear", "sky")


def test_an_existing_folder_is_left_alone(convert, tmp_path, capsys):
    folder = tmp_path / "runs" / "imported"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("mine")
    assert convert() == 2
    assert "imported exists already; nothing was changed" in capsys.readouterr().err
    assert [file.name for file in folder.iterdir()] == ["config.yaml"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--num-heads", "3"], "num_heads=3 does not divide the 16 channels"),
        (["--top-k", "0"], "top_k"),
        (["--set", "backbone.nam=small"], "backbone.nam: unknown key; did you mean 'name'?"),
        (["--set", "backbone.image_size=33"], "image_size must be a multiple of 8; got 33"),
    ],
)
def test_a_mistake_is_one_message_and_leaves_nothing(convert, options, message, tmp_path, capsys):
    assert convert(*options) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())


def test_a_backbone_of_other_features_is_refused(convert, tmp_path, capsys):
    weights = tmp_path / "lite0.weights.h5"
    build_backbone("efficientnet_lite0", 32, "none").save_weights(weights)
    options = ("--set", "backbone.name=efficientnet_lite0", "--set", f"backbone.weights={weights}")
    assert convert(*options) == 2
    message = "was trained on region_features of 128 numbers; the backbone efficientnet_lite0 has"
    assert message in capsys.readouterr().err


def test_embeddings_of_another_length_are_refused(convert, tmp_path, rng, capsys):
    Vocabulary(("bear",), rng.normal(size=(1, 7)), ("seen",)).save(tmp_path / "classes.npz")
    assert convert("--vocabulary", str(tmp_path / "classes.npz")) == 2
    assert "class embeddings have 7 numbers" in capsys.readouterr().err


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, capsys):
    (tmp_path / "best.pth").write_text("<html>")
    assert main([str(tmp_path / "best.pth"), str(tmp_path / "run")]) == 2
    assert "not a checkpoint saved by torch.save" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
