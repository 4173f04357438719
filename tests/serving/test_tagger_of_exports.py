"""`Tagger` on an exported model, and exports of pretrained taggers."""

import pathlib

import numpy as np
import pytest

from biam_tf import Tagger, pretrained
from biam_tf.errors import UserError
from biam_tf.vocabulary import Vocabulary
from serving import export
from serving.graph.saved_model import Exported


@pytest.fixture(scope="module")
def photos(scenes):
    return sorted((scenes / "images").rglob("*.*"))[:3]


@pytest.fixture(scope="module")
def run(finished):
    return Tagger.load(finished.path)


@pytest.fixture(scope="module")
def exported(tagger_dir):
    return Tagger.load(tagger_dir)


@pytest.mark.slow
def test_an_export_and_its_run_say_the_same(run, exported, photos):
    assert exported.vocabulary.names == run.vocabulary.names
    names = [*run.vocabulary.names[:3], run.vocabulary.names[0].upper()]
    expected = run.scores(photos, names)
    np.testing.assert_allclose(exported.scores(photos, names), expected, rtol=1e-4, atol=1e-5)
    for mine, its in zip(run.explain(photos, names), exported.explain(photos, names), strict=True):
        np.testing.assert_allclose(its, mine, rtol=1e-4, atol=1e-4)
    pairs = zip(run.tag(photos[0], names), exported.tag(photos[0], names), strict=True)
    for one, other in pairs:
        assert (one.name, one.present) == (other.name, other.present)
        assert one.probability == pytest.approx(other.probability, abs=1e-4)


def test_a_class_learned_by_an_export_is_that_of_its_run(run, exported, photos):
    mine, its = (tagger.learn("mine", photos[:2]).embeddings for tagger in (run, exported))
    np.testing.assert_allclose(its, mine, atol=1e-3)


def test_broken_photos_and_unknown_names_are_named(exported, photos):
    with pytest.raises(UserError, match="photo 2: not a whole"):
        exported.scores([photos[0], b"broken"])
    with pytest.raises(UserError, match="unheard-of"):
        exported.tag(photos[0], ["unheard-of"])


def test_the_folder_of_a_version_is_loaded_as_the_models(finished, tagger_dir):
    tagger = Tagger.load(tagger_dir / "1")
    assert tagger.vocabulary.names == Vocabulary.load(finished.vocabulary).names


def test_the_folder_of_a_version_without_its_facts_is_refused(tagger_dir, tmp_path):
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "saved_model.pb").symlink_to(tagger_dir / "1" / "saved_model.pb")
    with pytest.raises(UserError, match=r"no exported tagger: it has no assets\.extra"):
        Tagger.load(tmp_path)


def test_a_preset_takes_the_place_of_the_run(finished, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pretrained, "pretrained_run", lambda name: pathlib.Path(finished.path))
    exported = []

    def write(run, model_dir, settings, **options):  # as it is written is tested elsewhere
        exported.append((run.folder.path, pathlib.Path(model_dir)))
        return Exported(model_dir / "1", (), {}, index="an index")

    with monkeypatch.context() as patch:
        patch.setattr(export, "export", write)
        assert export.main(["--preset", "some", str(tmp_path / "model")]) == 0
    assert exported == [(finished.path, tmp_path / "model")]
    assert "photo index: an index" in capsys.readouterr().out
    for arguments in ([str(tmp_path)], ["run", str(tmp_path), "--preset", "some"]):
        assert export.main(arguments) == 2
        assert "give either the folder RUN or --preset NAME" in capsys.readouterr().err
