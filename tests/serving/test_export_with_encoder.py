"""An export that embeds any phrase with a sentence encoder, and an index that asks it."""

import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf
from photo_files import encoded
from small_encoder import random_weights, write_encoder
from unchecked_export import unchecked

from biam_tf.embeddings.sentence_encoder import SentenceEncoder
from biam_tf.embeddings.sources import embed_by_sentences
from biam_tf.errors import UserError
from biam_tf.models import build_head
from biam_tf.photos import decode_photo
from biam_tf.runs import load_run
from biam_tf.vocabulary import Vocabulary
from serving import export
from serving.demo_page.served_model import read_newest
from serving.indexing.photo_index import VOCABULARY, IndexManifest, PhotoIndex

PHOTOS = [encoded("JPEG", (80, 60)), encoded("PNG", (33, 99))]


def call(signature, **inputs):
    tensors = {name: tf.constant(value) for name, value in inputs.items()}
    return {name: value.numpy() for name, value in signature(**tensors).items()}


@pytest.fixture(scope="module")
def run(finished):
    return load_run(finished.path)


@pytest.mark.slow
def test_a_model_with_a_sentence_encoder_takes_any_phrase(
    run, finished, tmp_path, capsys, monkeypatch
):
    folder = tmp_path / "encoder"
    folder.mkdir()
    write_encoder(folder, random_weights(np.random.default_rng(0)))
    encoder = SentenceEncoder.load(folder)
    names, templates = ("dog", "black sea"), ["a photo of {name}"]
    vocabulary = Vocabulary(
        names, embed_by_sentences(encoder, names, templates), ("seen", "unseen")
    )
    shapes = {tensor.name: tensor.shape[1:] for tensor in run.head.inputs}
    head = build_head(
        shapes["region_features"], shapes["scene_feature"][0], 12, channels=8, num_heads=2
    )
    small = dataclasses.replace(run, head=head, vocabulary=vocabulary, thresholds=None)
    monkeypatch.setattr("biam_tf.runs.load_run", lambda path: small)
    options = [str(finished.path), str(tmp_path / "models"), "--sentence-encoder", str(folder)]
    options += ["--formats", "jpeg,png"]
    with unchecked():  # compared below
        assert export.main(options) == 0
    out = capsys.readouterr().out
    assert f"sentence encoder: {folder}, reads 'a photo of {{name}}'" in out
    version = tmp_path / "models" / "1"
    size = sum(path.stat().st_size for path in version.rglob("*") if path.is_file())
    assert f"size: {size / 1e6:.1f} MB; about " in out and "without the sentence encoder" in out
    assert "any other phrase" in (version / "assets.extra" / "model_card.md").read_text()

    asked = ["a black dog", "Black_Sea", "photo"]
    expected = encoder.encode([f"a photo of {text}" for text in ("a black dog", "x", "photo")])
    expected[1] = vocabulary.embeddings[1]
    # Test and index share one copy of the model, which takes seconds to load.
    load = tf.saved_model.load
    monkeypatch.setattr(tf.saved_model, "load", functools.cache(lambda path: load(path)))
    loaded = tf.saved_model.load(version)
    found = call(loaded.signatures["embed"], class_names=asked)["class_embeddings"]
    np.testing.assert_allclose(found, expected, atol=3e-4)
    scores = call(loaded.signatures["tag"], images=PHOTOS, class_names=asked)["scores"]
    by_embedding = call(loaded.signatures["serving_default"], images=PHOTOS, class_embeddings=found)
    np.testing.assert_allclose(scores, by_embedding["scores"], rtol=0, atol=1e-4)
    pixels = tf.stack([decode_photo(photo, run.image_size) for photo in PHOTOS])
    features = run.backbone(pixels, training=False)
    parts = [features["region_features"], features["scene_feature"], tf.constant(found)]
    np.testing.assert_allclose(scores, head(parts, training=False), rtol=0, atol=1e-4)
    with pytest.raises(tf.errors.InvalidArgumentError, match="a name without letters or signs"):
        call(loaded.signatures["tag"], images=PHOTOS, class_names=["dog", " "])

    # An index asks the model that made it for the names that it does not know, and the page
    # knows that there are no unknown names.
    vocabulary.save(tmp_path / VOCABULARY)
    IndexManifest("photos", str(version), "", (1, 1), 12, False, 1).write(tmp_path)
    index = PhotoIndex(tmp_path)
    np.testing.assert_allclose(index.embed(asked), found, atol=1e-6)
    with pytest.raises(UserError, match=r"models/1: class_names\[1\] .*without letters or signs$"):
        index.embed(["dog", "\u200b"])
    assert read_newest(version.parent).classes.unknown([*asked, "\u200b"])[0].name == "\u200b"


def test_an_encoder_that_cannot_be_used_is_named(run, tmp_path):
    with pytest.raises(UserError, match="nowhere: no folder of a sentence encoder"):
        export.export(run, tmp_path / "models", sentence_encoder=tmp_path / "nowhere")
    with pytest.raises(UserError, match="--template is a text for a sentence encoder"):
        export.export(run, tmp_path / "models", templates=["{name}"])
    words = tmp_path / "words.txt"
    words.write_text("red " + " ".join("1" * 14) + "\n")
    with pytest.raises(UserError, match="put together from word vectors already"):
        export.export(run, tmp_path / "models", word_vectors=words, sentence_encoder="minilm")
    assert not (tmp_path / "models").exists()
