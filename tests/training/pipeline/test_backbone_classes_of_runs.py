"""When the head of a run uses the classes that its backbone knows, and what it says otherwise."""

import dataclasses

import numpy as np
import pytest
from small_systems import small_backbone_classes

from biam_tf.errors import UserError
from biam_tf.vocabulary import Vocabulary
from training.config import load_config
from training.pipeline import models

pytestmark = pytest.mark.unit

NAMES = ("tench", "zebra", "great owl")
FROZEN = ("backbone={name: vgg19, trainable: false}", "head={preset: recommended}")


@pytest.fixture
def words(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("zebra 1 0 0\ngreat 0 1 0\nowl 0 0 1\nsea 1 1 0\n")
    return f"vocabulary.word_vectors={path}"


@pytest.fixture
def knows(monkeypatch):
    known = small_backbone_classes(8, 6, 3, classes=len(NAMES)).classifier
    known = dataclasses.replace(known, names=NAMES)
    monkeypatch.setattr(models, "load_classifier", lambda name, weights: known)


def classes_of(*settings):
    vocabulary = Vocabulary(("sea",), np.array([[1.0, 1.0, 0.0]]), ("seen",))
    return models._backbone_classes(load_config(None, settings), vocabulary)


def test_the_recommended_head_uses_what_the_backbone_knows(knows, words, capsys):
    found = classes_of(*FROZEN, words)
    assert found.classifier.names == ("zebra", "great owl")
    np.testing.assert_allclose(found.embeddings, [[1, 0, 0], [0, 0.5**0.5, 0.5**0.5]], atol=1e-6)
    assert "3 classes of vgg19, embedded by " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (FROZEN, "the class embeddings are attributes of the data set"),
        (("head={preset: recommended}", "WORDS"), "the backbone is trained"),
    ],
)
def test_it_says_why_it_does_without(settings, reason, knows, words, capsys):
    settings = [words if setting == "WORDS" else setting for setting in settings]
    assert classes_of(*settings) is None
    assert f"head.use_backbone_classes: not used: {reason}" in capsys.readouterr().out


def test_a_backbone_without_a_classifier_is_named_or_refused(words, tmp_path, capsys):
    (tmp_path / "mine.weights.h5").write_bytes(b"")
    small = f"backbone={{name: small, trainable: false, weights: {tmp_path / 'mine.weights.h5'}}}"
    assert classes_of(small, FROZEN[1], words) is None
    assert "not used: backbone small: it has no classifier" in capsys.readouterr().out
    with pytest.raises(UserError, match="small: it has no classifier"):
        classes_of(small, FROZEN[1], words, "head.use_backbone_classes=required")
    assert classes_of(*FROZEN, words, "head.use_backbone_classes=none") is None


def test_names_of_another_source_are_refused_with_a_way_out(knows, words, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("zebra 1 0 0 0\ngreat 0 1 0 0\nowl 0 0 1 0\nsea 1 1 0 0\n")
    with pytest.raises(UserError, match=r"numbers.*; or leave out .*use_backbone_classes: none"):
        classes_of(*FROZEN, words, f"head.name_vectors={other}")
