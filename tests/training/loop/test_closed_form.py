"""A system without epochs, through the command that trains all of them."""

import json
import pathlib

import numpy as np
import pytest
from small_systems import small_backbone_classes

from biam_tf.backbones import BackboneClassifier, build_backbone
from biam_tf.runs import load_run
from training import lr_range, run
from training.pipeline import examples, models

ESZSL = ["head={system: eszsl, gamma: 0.1}", "training.batch_size=16"]


@pytest.fixture(scope="module")
def frozen(tmp_path_factory, scenes):
    """Settings of drawn pictures whose features are stored, of a backbone that is not trained."""
    weights = tmp_path_factory.mktemp("weights") / "small.weights.h5"
    build_backbone("small", 32, "none").save_weights(weights)
    backbone = f"backbone={{name: small, image_size: 32, trainable: false, weights: {weights}}}"
    return [backbone, "data.name=folder", f"data.directory={scenes}"]


def command(*settings):
    return [option for setting in settings for option in ("--set", setting)]


@pytest.mark.slow
@pytest.mark.rounding
def test_it_is_solved_evaluated_and_taken_as_it_is(frozen, tmp_path, capsys):
    settings = command(*frozen, *ESZSL, f"output={tmp_path / 'run'}")
    assert run.main(settings) == 0
    printed = capsys.readouterr().out
    assert "eszsl: solved in" in printed
    assert "eszsl has a closed form: training.epochs, training.optimizer have no" in printed
    (record,) = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert set(json.loads(record)["validation"]) == {"seen", "gzsl"}
    trained = load_run(tmp_path / "run")
    kernel = trained.head.get_layer("bilinear").kernel.numpy()
    page = (tmp_path / "run" / "report" / "index.html").read_text()
    assert 'id="training"' not in page and "Figures" in page

    # Stopped after the solution, it goes on with the figures.
    (tmp_path / "run" / "metrics.json").unlink()
    assert run.main(settings) == 0
    assert "solved in" not in capsys.readouterr().out
    again = load_run(tmp_path / "run").head.get_layer("bilinear").kernel.numpy()
    np.testing.assert_array_equal(again, kernel)
    assert (tmp_path / "run" / "metrics.json").exists()


def test_what_a_closed_form_has_not_is_refused(frozen, tmp_path, capsys):
    trained = ["head={system: eszsl}", f"output={tmp_path / 'run'}"]
    assert run.main(command(*trained)) == 2
    assert "backbone.trainable: false" in capsys.readouterr().err
    assert run.main(["--dry-run", *command(*frozen, *trained)]) == 2
    assert "head.system: eszsl has a closed form" in capsys.readouterr().err
    options = ["--output", str(tmp_path / "rates")]
    assert lr_range.main([*options, *command(*frozen, "head={system: eszsl}")]) == 2
    assert "without steps or a learning rate" in capsys.readouterr().err


@pytest.mark.slow
def test_a_system_without_training_reads_no_training_photo(frozen, tmp_path, monkeypatch, capsys):
    data = pathlib.Path(frozen[-1].partition("=")[2])
    table = data / "class_attributes.csv"
    names = tuple(line.partition(",")[0] for line in table.read_text().splitlines()[1:])
    known = small_backbone_classes(128, 256, 3, classes=len(names)).classifier
    known = BackboneClassifier(names, known.scene_layers, known.region_layers)
    monkeypatch.setattr(models, "load_classifier", lambda name, weights: known)
    extracted, ensure = [], examples.ensure_features

    def noting(config, dataset, *others):
        extracted.append(set(dataset.splits))
        return ensure(config, dataset, *others)

    monkeypatch.setattr(examples, "ensure_features", noting)
    head = f"head={{system: backbone_classes, name_vectors: {table}, top_k: 4}}"
    settings = [*frozen, head, f"output={tmp_path / 'run'}"]
    assert run.main(command(*settings)) == 0
    printed = capsys.readouterr().out
    assert f"{len(names)} classes of small, embedded by {table}\n" in printed
    assert "backbone_classes: nothing to train" in printed
    (record,) = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert set(json.loads(record)["validation"]) == {"seen", "gzsl"}
    assert (tmp_path / "run" / "thresholds.json").exists()
    assert extracted == [{"val", "test"}]
    head = load_run(tmp_path / "run").head
    assert head.trainable_weights == []

    assert run.main(command(*settings, "backbone.trainable=true")) == 2
    assert "has nothing to train; set backbone.trainable: false" in capsys.readouterr().err
    assert run.main(["--dry-run", *command(*settings, f"output={tmp_path / 'dry'}")]) == 2
    assert "has nothing to train, so that" in capsys.readouterr().err
