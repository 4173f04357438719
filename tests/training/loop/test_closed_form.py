"""A system without epochs, through the command that trains all of them."""

import json

import numpy as np
import pytest

from biam_tf.backbones import build_backbone
from biam_tf.runs import load_run
from training import lr_range, run

pytestmark = pytest.mark.rounding

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


def test_it_is_solved_evaluated_and_taken_as_it_is(frozen, tmp_path, capsys):
    settings = command(*frozen, *ESZSL, f"output={tmp_path / 'run'}")
    assert run.main(settings) == 0
    assert "eszsl: solved in" in capsys.readouterr().out
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
